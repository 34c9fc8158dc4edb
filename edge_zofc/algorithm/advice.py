"""What to do next with a run, from its counts: at most two sentences, none where all is well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

LOW = 0.5
"""Accuracy below which a class is called low, and a run whose classes mostly are."""
FEW_PICTURES = 20
"""Training pictures of a class below which more of them come before anything else."""
CONFUSED = 0.15
"""Share of two classes' test pictures that are taken for the other, from which on the pair is named."""
LEAST_WRONG = 3
"""Wrong pictures below which nothing is concluded: one or two are chance."""
NAMED_CLASSES = 3


@dataclass(frozen=True)
class ClassCounts:
    """One class: training pictures, test pictures, and how many of those were named rightly."""

    name: str
    train: int
    test: int
    right: int

    @property
    def is_low(self) -> bool:
        """Whether most of its test pictures are named wrongly, and they are enough to say so."""
        return self.right < LOW * self.test and self.test - self.right >= LEAST_WRONG


def advice(classes: Sequence[ClassCounts], confusion: Iterable[Sequence[int]]) -> list[str]:
    """Sentences on what would help most; ``confusion`` holds (class, named as, pictures) with ids into ``classes``.

    [] where nothing was measured.
    """
    tested = [one for one in classes if one.test]
    low = [one for one in tested if one.is_low]
    found = []
    # Of two classes guessing alone names half.
    all_low = sum(one.right for one in tested) < LOW * sum(one.test for one in tested)
    if len(tested) > 2 and 2 * len(low) > len(tested) and all_low:
        found.append(_of_all(tested, low))
    pair = _worst_pair(classes, confusion)
    if pair is not None:
        a, b, count = pair
        found.append(
            f"Take more pictures of {a.name} and {b.name}: {count} of the {a.test + b.test} test pictures of the two "
            "are taken for the other."
        )
    elif low and not found:
        names = [one.name for one in sorted(low, key=lambda one: one.right / one.test)[:NAMED_CLASSES]]
        found.append(f"Take more pictures of {', '.join(names)}: less than half of their test pictures is named right.")
    return found


def _of_all(tested: Sequence[ClassCounts], low: Sequence[ClassCounts]) -> str:
    usual = median(one.train for one in tested)
    told = f"{len(low)} of {len(tested)} classes are below {100 * LOW:.0f} %"
    if usual < FEW_PICTURES:
        return f"Take more pictures of every class: {told}, and half of them have at most {usual:.0f} to learn from."
    return f"Take a larger backbone, pretrained on pictures like these: {told}."


def _worst_pair(
    classes: Sequence[ClassCounts], confusion: Iterable[Sequence[int]]
) -> tuple[ClassCounts, ClassCounts, int] | None:
    """The two classes that are taken for each other most often, either way together, and how often."""
    together: dict[tuple[int, int], int] = {}
    for one, other, count in confusion:
        key = (min(one, other), max(one, other))
        together[key] = together.get(key, 0) + count
    worst = None
    for (i, j), count in sorted(together.items()):
        a, b = classes[i], classes[j]
        clear = count >= LEAST_WRONG and count >= CONFUSED * (a.test + b.test)
        if clear and (worst is None or count > worst[2]):
            worst = (a, b, count)
    return worst
