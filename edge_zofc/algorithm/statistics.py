"""What a closed-form head is solved from: running sums of features, the same bits in any order and portions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_zofc.algorithm import symmetric

GRID = 2.0**-12
"""What features are rounded to before they are summed: far below what separates classes."""


@dataclass
class Statistics:
    """What a closed-form head is solved from: sums of features by class float64 [C, D], pictures by class int64 [C],
    and the raw second moment, the sum of f f^T over all pictures: a packed matrix (``symmetric.py``).

    Features are rounded to multiples of GRID. Their sums and products are then exact in float64 (up to 2^29 in all), so
    that statistics may be added, merged and subtracted in any order and portions to the same bits. For class means
    alone the moment is float64 [0].
    """

    sums: np.ndarray
    counts: np.ndarray
    moment: np.ndarray

    @classmethod
    def empty(cls, classes: int, feature_size: int, moment: bool = True) -> Statistics:
        """Zeros for ``classes`` classes and D = ``feature_size``."""
        packed = symmetric.zeros(feature_size if moment else 0)
        return cls(np.zeros((classes, feature_size)), np.zeros(classes, np.int64), packed)

    @classmethod
    def of_whole(cls, sums: np.ndarray, counts: np.ndarray, moment: np.ndarray) -> Statistics:
        """With the moment as a whole, float64 [D, D], as files hold it."""
        return cls(sums, counts, symmetric.pack(moment))

    @classmethod
    def from_scatter(cls, sums: np.ndarray, counts: np.ndarray, scatter: np.ndarray) -> Statistics:
        """From what earlier versions kept: the within-class scatter float64 [D, D] in the moment's place."""
        return cls.of_whole(_on_grid(sums, GRID), counts, _on_grid(scatter + _between(sums, counts), GRID**2))

    def add(self, features: np.ndarray, labels: np.ndarray, times: int = 1) -> None:
        """Count in, in place, ``features`` float32 [n, D] of pictures with class ids ``labels`` int64 [n].

        ``times`` -1 takes them out again, to the same bits.
        """
        rounded = _on_grid(features.astype(np.float64), GRID)
        signed = times * rounded
        if self.moment.size:
            symmetric.add_products(self.moment, signed, rounded)
        np.add.at(self.sums, labels, signed)
        self.counts += times * np.bincount(labels, minlength=len(self.counts))

    def absorb(self, other: Statistics) -> None:
        """Count in, in place, what ``other`` counted, which knows no more classes."""
        self.sums[: len(other.sums)] += other.sums
        self.counts[: len(other.counts)] += other.counts
        self.moment += other.moment

    def plus(self, other: Statistics) -> Statistics:
        """The statistics of both; either may know more classes."""
        return self._with(other, 1)

    def minus(self, other: Statistics) -> Statistics:
        """Without what ``other`` counted, which must be part of this."""
        return self._with(other, -1)

    def scaled(self, factor: float) -> Statistics:
        """As if a ``factor`` of the pictures had been seen, at least one of each class: the same class means, and the
        scatter times ``factor``, rounded to the grid. Every class must have pictures.
        """
        counts = np.maximum(np.rint(self.counts * factor), 1).astype(np.int64)
        sums = _on_grid(self.sums / self.counts[:, None] * counts[:, None], GRID)
        return Statistics.of_whole(sums, counts, _on_grid(factor * self.scatter + _between(sums, counts), GRID**2))

    @property
    def scatter(self) -> np.ndarray:
        """The scatter within classes, float64 [D, D]: the sum of (f - class mean) (f - class mean)^T; a new matrix."""
        found = _between(self.sums, self.counts)
        symmetric.subtract_from(self.moment, found)
        return found

    @property
    def moment_trace(self) -> float:
        """The sum of all squared features."""
        return symmetric.trace(self.moment, self.sums.shape[1])

    def _with(self, other: Statistics, sign: int) -> Statistics:
        classes = max(len(self.counts), len(other.counts))
        sums, counts = np.zeros((classes, self.sums.shape[1])), np.zeros(classes, np.int64)
        for part, factor in ((self, 1), (other, sign)):
            sums[: len(part.sums)] += factor * part.sums
            counts[: len(part.counts)] += factor * part.counts
        combined = np.add if sign > 0 else np.subtract
        return Statistics(sums, counts, combined(self.moment, other.moment))


def _on_grid(values: np.ndarray, step: float) -> np.ndarray:
    return np.asarray(np.rint(values / step) * step)


def _between(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The sum over classes of n mean mean^T, float64 [D, D]."""
    return np.asarray((sums / np.maximum(counts, 1)[:, None]).T @ sums)
