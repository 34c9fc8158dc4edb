"""Whether a head that came over a network is as good as the one before, on pictures that the device held back itself.

Both heads choose among the classes that both know, so that a head with more classes is not punished for it. What a
class that one of them lacks would take from the others is therefore not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.heads import Head
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.engine.predict import TrainedRun, evaluate, open_backbone
from edge_zofc.errors import InputError

MARGIN = 0.1
"""How much of its accuracy a device may lose by a new head."""


@dataclass(frozen=True)
class Tried:
    """Right answers of the old and the new head on ``total`` pictures."""

    old: int
    new: int
    total: int

    def is_worse(self, margin: float) -> bool:
        """Whether the new head loses more than ``margin``, a fraction of the pictures."""
        return self.old - self.new > margin * self.total

    def __str__(self) -> str:
        if not self.total:
            return "no picture held back to try it on"
        return f"{self.new} of {self.total} held-back pictures right, {self.old} before"


def try_on(old: TrainedRun, new: TrainedRun, streams: Sequence[Path], tell: Callable[[str], None]) -> Tried:
    """Both heads on the test pictures of streams; a stream that cannot be read is told and left out."""
    both = [name for name in old.class_names if name in new.class_names]
    totals = np.zeros(3, np.int64)
    if not (both and streams):
        return Tried(0, 0, 0)
    backbone = open_backbone(new, 1)
    for stream in streams:
        try:
            found = [evaluate(among(one, both), backbone, stream, tell) for one in (old, new)]
        except InputError as error:
            tell(f"Its pictures are not used to try heads on: {error}")
            continue
        right = [sum(task.correct for task in one.tasks) for one in found]
        totals += (*right, sum(task.total for task in found[0].tasks))
    return Tried(*map(int, totals))


def among(trained: TrainedRun, names: Sequence[str]) -> TrainedRun:
    """The same head, which chooses among these classes alone."""
    ids = np.array([trained.class_names.index(name) for name in names], np.int64)
    head, counted = trained.head, trained.statistics
    return replace(
        trained,
        head=Head(head.rows[ids], head.sigma, None if head.biases is None else head.biases[ids]),
        class_names=tuple(names),
        statistics=Statistics(counted.sums[ids], counted.counts[ids], counted.moment),
    )
