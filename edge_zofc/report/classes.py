"""What the page says of each class: accuracy, counts, and which classes were taken for which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_zofc.report.pictures import MOST_PAIRS, Gallery
from edge_zofc.storage.result import RunResult

MOST_ROWS = 100
"""Rows of the confusion matrix; of more classes those with the most mistakes are shown."""
MOST_CARDS = 240
NUMBERED_ROWS = 40
"""Classes up to which a cell of the matrix has room for its number."""


@dataclass(frozen=True)
class Card:
    """One class; ``often`` is what it is mostly taken for, and ``times`` how often."""

    class_id: int
    accuracy: float | None
    train: int
    test: int
    often: int | None = None
    times: int = 0


@dataclass(frozen=True)
class Cell:
    """``span`` columns of a row of the matrix: a gap where ``count`` is 0, else one class that was named."""

    span: int
    count: int = 0
    share: float = 0.0
    named_id: int = 0


@dataclass(frozen=True)
class Matrix:
    """Rows by class id; the columns are the same classes in the same order."""

    rows: Mapping[int, Sequence[Cell]]
    left_out: int

    @property
    def has_numbers(self) -> bool:
        """Whether a cell has room for its number."""
        return len(self.rows) <= NUMBERED_ROWS


@dataclass(frozen=True)
class Pair:
    """Test pictures of one class that were named as another: ``count`` of ``total``."""

    class_id: int
    named_id: int
    count: int
    total: int
    pictures: Sequence[str]
    example: str | None


def cards(result: RunResult) -> list[Card]:
    """The classes, the least accurate first and those without test pictures last; [] for an older result."""
    most: dict[int, tuple[int, int]] = {}
    for class_id, named_id, count in result.confusion or ():
        if count > most.get(class_id, (0, 0))[0]:
            most[class_id] = (count, named_id)
    found = []
    for class_id, one in enumerate(result.classes):
        times, often = most.get(class_id, (0, None))
        found.append(Card(class_id, one.accuracy, one.train_images, one.test_images, often, times))
    return sorted(found, key=lambda card: (card.accuracy is None, card.accuracy or 0.0, card.class_id))


def matrix(result: RunResult) -> Matrix | None:
    """The confusion matrix, None where it was not measured or has a single class."""
    known = len(result.classes)
    if result.confusion is None or known < 2 or not any(one.test_images for one in result.classes):
        return None
    counts: dict[int, dict[int, int]] = defaultdict(dict)
    mistakes = [0] * known
    for class_id, named_id, count in result.confusion:
        counts[class_id][named_id] = count
        mistakes[class_id] += count
        mistakes[named_id] += count
    for class_id, one in enumerate(result.classes):
        if one.accuracy:
            counts[class_id][class_id] = round(one.accuracy * one.test_images)
    worst = sorted(range(known), key=lambda class_id: (-mistakes[class_id], class_id))
    ids = sorted(worst[:MOST_ROWS])
    rows = {class_id: _row(counts[class_id], ids, result.classes[class_id].test_images) for class_id in ids}
    return Matrix(rows, known - len(ids))


def _row(counts: Mapping[int, int], ids: Sequence[int], total: int) -> list[Cell]:
    """The cells of a row; empty ones next to each other are one gap, so that a large matrix stays a small page."""
    cells: list[Cell] = []
    for named_id in ids:
        count = counts.get(named_id, 0)
        if count:
            cells.append(Cell(1, count, min(1.0, count / max(1, total)), named_id))
        elif cells and not cells[-1].count:
            cells[-1] = Cell(cells[-1].span + 1)
        else:
            cells.append(Cell(1))
    return cells


def pairs(result: RunResult, pictures: Gallery) -> list[Pair]:
    """The pairs that were confused most, with their pictures where there are any."""
    found = []
    for class_id, named_id, count in (result.confusion or ())[:MOST_PAIRS]:
        total = result.classes[class_id].test_images
        example = next(iter(pictures.by_class.get(named_id, ())), None)
        found.append(Pair(class_id, named_id, count, total, pictures.wrong.get((class_id, named_id), ()), example))
    return found
