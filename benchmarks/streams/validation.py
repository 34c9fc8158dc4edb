"""A validation part: every 4th training picture of a class is set aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from edge_zofc.data.stream import Sample

VALIDATION_EVERY = 4


def set_aside(samples: Iterable[Sample]) -> tuple[list[Sample], list[Sample]]:
    """What is left to learn from, and what is set aside, both in order."""
    train: list[Sample] = []
    held: list[Sample] = []
    count: Counter[int] = Counter()
    for sample in samples:
        count[sample.class_id] += 1
        (held if count[sample.class_id] % VALIDATION_EVERY == 0 else train).append(sample)
    return train, held
