"""Whether a head that came over a network is as good as the one before, on pictures that the device held back itself.

Both heads choose among the classes that both know, so that a head with more classes is not punished for it. What a
class that one of them lacks would take from the others is therefore not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.heads import Head
from edge_zofc.algorithm.naming import named
from edge_zofc.algorithm.paired import chance
from edge_zofc.data.stream import Sample, list_samples, read_stream
from edge_zofc.engine.evaluation import labels_of
from edge_zofc.engine.pixel_store import Picture
from edge_zofc.engine.predict import TrainedRun, open_backbone
from edge_zofc.errors import ImageError, InputError

MARGIN = 0.1
"""How much of its accuracy a device may lose by a new head."""
CHANCE = 0.16
"""A loss that a head as good as the old one has as often as this, or more often, is put down to the few pictures: it is
within one standard error, as in ``paired.is_worse``. So three pictures suffice, and one or two do not."""


@dataclass(frozen=True)
class Tried:
    """Right answers of the old and the new head on ``total`` pictures; ``only_old``: those of the old one alone."""

    old: int
    new: int
    only_old: int
    total: int

    @classmethod
    def of(cls, old: np.ndarray, new: np.ndarray) -> Tried:
        """From who was right about each picture, bool [n]."""
        return cls(int(old.sum()), int(new.sum()), int((old & ~new).sum()), len(old))

    def is_worse(self, margin: float) -> bool:
        """Whether the new head loses more than ``margin``, a fraction of the pictures, and more than by chance."""
        lost = self.old - self.new
        return lost > margin * self.total and chance(self.only_old, self.only_old - lost) < CHANCE

    def __str__(self) -> str:
        if not self.total:
            return "no picture held back to try it on"
        return f"{self.new} of {self.total} held-back pictures right, {self.old} before"


def try_on(old: TrainedRun, new: TrainedRun, streams: Sequence[Path], tell: Callable[[str], None]) -> Tried:
    """Both heads on the test pictures of streams; what cannot be read is told and left out."""
    both = [name for name in old.class_names if name in new.class_names]
    samples = _samples(streams, both, tell) if both else []
    if not samples:
        return Tried(0, 0, 0, 0)
    heads = [among(one.head, one.class_names, both) for one in (old, new)]
    adapters = [old.adapter] if np.array_equal(old.adapter, new.adapter) else [old.adapter, new.adapter]
    files, labels = [Picture(sample.path) for sample in samples], labels_of(samples)
    right, seen = np.zeros((2, len(samples)), bool), list[int]()

    def skipped(index: int, path: Path, error: ImageError) -> None:
        tell(f"Left out: {error}")

    for indices, features in new.reader(skipped).features(open_backbone(new, 1), adapters, files):
        for row, head, found in zip(right, heads, (features[0], features[-1]), strict=True):
            row[indices] = named(head, found) == labels[indices]
        seen += indices.tolist()
    return Tried.of(*right[:, seen])


def _samples(streams: Sequence[Path], names: Sequence[str], tell: Callable[[str], None]) -> list[Sample]:
    """The test pictures of classes ``names``, whose places there are the ids."""
    samples = list[Sample]()
    for folder in streams:
        try:
            stream = read_stream(folder, names, needs_train=False)
            found = [sample for task in stream.tasks for sample in list_samples(stream, task, "test")]
        except InputError as error:
            tell(f"Its pictures are not used to try heads on: {error}")
            continue
        samples += [sample for sample in found if sample.class_id < len(names)]
    return samples


def among(head: Head, names: Sequence[str], wanted: Sequence[str]) -> Head:
    """A head of classes ``names`` that chooses among ``wanted`` alone."""
    ids = np.array([names.index(name) for name in wanted], np.int64)
    return Head(head.rows[ids], head.sigma, None if head.biases is None else head.biases[ids])
