"""Which classes were taken for which at an evaluation.

What is kept is bounded, however many tasks, classes and pictures there are: a run of a year keeps no more of it than a
run of an hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from edge_zofc.data.stream import Sample
from edge_zofc.errors import DamagedFileError
from edge_zofc.storage.result import MOST_CELLS, WrongPictures

PAIRS_WITH_PICTURES = 20
PICTURES_OF_A_PAIR = 4
MOST_PATH_BYTES = 1000


def confusion_of(wrong: Sequence[np.ndarray]) -> np.ndarray:
    """Cells int64 [n, 3] of (class, class it was named as, pictures), the most frequent first, at most MOST_CELLS.

    ``wrong`` are int64 [m, 3] of (position, class, named as), one array a task.
    """
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *(found[:, 1:] for found in wrong)])
    cells, counts = np.unique(pairs, axis=0, return_counts=True)
    # Sorted by class already, so that a stable sort leaves nothing to chance.
    order = np.argsort(-counts, kind="stable")[:MOST_CELLS]
    return np.column_stack([cells[order], counts[order]]).astype(np.int64)


def kept_confusion(cells: np.ndarray | None, total_by_class: Sequence[int]) -> np.ndarray | None:
    """A copy of the counts of a snapshot; an older one has none.

    Raises DamagedFileError where they are not what ``confusion_of`` gives for so many test pictures.
    """
    reason = None if cells is None else _what_is_wrong(cells, np.array(total_by_class, np.int64))
    if reason is not None:
        raise DamagedFileError(f"a snapshot's array confusion is wrong: {reason}.")
    return None if cells is None else cells.copy()


def _what_is_wrong(cells: np.ndarray, total: np.ndarray) -> str | None:
    if cells.dtype != np.int64 or cells.ndim != 2 or cells.shape[1] != 3 or len(cells) > MOST_CELLS:
        return f"it is {cells.dtype} {cells.shape}"
    ids, counts = cells[:, :2], cells[:, 2]
    if cells.size and (ids.min() < 0 or ids.max() >= len(total) or (ids[:, 0] == ids[:, 1]).any()):
        return f"a pair is none of {len(total)} classes"
    if cells.size and (counts.min() < 1 or counts.max() > total.max()):
        return "a count is outside of the test pictures"
    is_more = np.bincount(ids[:, 0], counts, minlength=len(total)) > total
    return "more pictures are wrong than were tested" if is_more.any() else None


def pictures_of(
    confusion: np.ndarray, wrong: Iterable[tuple[np.ndarray, Sequence[Sample]]], root: Path
) -> list[WrongPictures]:
    """The first few pictures of each of the most confused pairs, relative to the stream's ``root``.

    ``wrong`` are the arrays of ``confusion_of``, each with the samples that its positions count in. A path that is long
    or not UTF-8 is passed over.
    """
    paths: dict[tuple[int, int], list[str]] = {(int(a), int(b)): [] for a, b, _ in confusion[:PAIRS_WITH_PICTURES]}
    for rows, samples in wrong:
        for position, class_id, named_id in rows.tolist():
            kept = paths.get((class_id, named_id))
            if kept is not None and len(kept) < PICTURES_OF_A_PAIR:
                kept += _kept_path(samples[position].path, root)
    return [WrongPictures(class_id=a, named_id=b, paths=found) for (a, b), found in paths.items()]


def _kept_path(path: Path, root: Path) -> list[str]:
    """The path as one entry of ``result.json``, or none."""
    text = path.relative_to(root).as_posix()
    try:
        return [text] if len(text.encode()) <= MOST_PATH_BYTES else []
    except UnicodeEncodeError:
        return []
