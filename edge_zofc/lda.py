"""A closed-form head: linear discriminant analysis on running sums, with nothing to tune.

Class means and one shared within-class covariance (streaming LDA: Hayes and Kanan 2020, arXiv 1909.01520), the
covariance shrunk towards a multiple of the identity by the OAS rule (Chen et al. 2010, arXiv 0907.4698, eq. 23).
Classes count as equally likely.

What may surprise: only sums are kept, so memory is D x D + C x D numbers however many pictures are seen. A class
learnt long ago keeps the sums of the adapter of its day; an adapter that has moved since makes them a little old.

Of a ViT-B a D x D matrix of float64 is 4.5 MiB, so they are counted (``MATRICES``) and changed in place if possible.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MATRICES = 3
"""float64 [D, D] alive beside a run of the graph: the run's own scatter, a task's, and a micro-batch's product.

Solving takes five (their sum, its shrunk copy and the solver's), when what the graph took is free again.
"""
_RELATIVE_FLOOR = 1e-6
"""Of the mean variance: keeps the covariance invertible where a direction never varied (two pictures, say)."""


@dataclass
class Statistics:
    """Sums of features by class float64 [C, D], pictures by class int64 [C], and the within-class scatter
    float64 [D, D]: the sum over pictures of (f - class mean) (f - class mean)^T, task by task.
    """

    sums: np.ndarray
    counts: np.ndarray
    scatter: np.ndarray

    @classmethod
    def empty(cls, classes: int, feature_size: int) -> Statistics:
        """Zeros for ``classes`` classes and D = ``feature_size``."""
        return cls(
            np.zeros((classes, feature_size)),
            np.zeros(classes, np.int64),
            np.zeros((feature_size, feature_size)),
        )

    def plus(self, other: Statistics) -> Statistics:
        """The statistics of both; ``other`` may know more classes."""
        sums, counts = other.sums.copy(), other.counts.copy()
        sums[: len(self.sums)] += self.sums
        counts[: len(self.counts)] += self.counts
        return Statistics(sums, counts, self.scatter + other.scatter)


class Collector:
    """Adds up one task's features, micro-batch by micro-batch, into ``Statistics``.

    Without ``scatter`` only sums and counts are kept, for class means, and the scatter is float64 [0, 0].
    """

    def __init__(self, classes: int, feature_size: int, scatter: bool = True) -> None:
        self._sums = np.zeros((classes, feature_size))
        self._counts = np.zeros(classes, np.int64)
        self._moment = np.zeros((feature_size, feature_size) if scatter else (0, 0))

    def add(self, features: np.ndarray, labels: np.ndarray) -> None:
        """``features`` float32 [n, D] of pictures with class ids ``labels`` int64 [n]."""
        exact = features.astype(np.float64)
        np.add.at(self._sums, labels, exact)
        self._counts += np.bincount(labels, minlength=len(self._counts))
        if self._moment.size:
            self._moment += exact.T @ exact

    def statistics(self) -> Statistics:
        """What was added so far."""
        means = self._sums / np.maximum(self._counts, 1)[:, None]
        scatter = self._moment
        if scatter.size:
            scatter = (self._counts[:, None] * means).T @ means
            np.subtract(self._moment, scatter, out=scatter)
        return Statistics(self._sums.copy(), self._counts.copy(), scatter)


def solve(statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """Rows float32 [C, D] and biases float32 [C] of the discriminant: logit_c = row_c . f + bias_c.

    row = covariance^-1 mean, bias = - mean . row / 2. A class without pictures gets the bias -inf's stand-in
    -1e30: it is never the argmax, and everything stays finite.
    """
    pictures, seen = int(statistics.counts.sum()), statistics.counts > 0
    means = statistics.sums / np.maximum(statistics.counts, 1)[:, None]
    free = max(pictures - int(seen.sum()), 1)
    covariance = shrunk(statistics.scatter / free, free)
    rows = np.linalg.solve(covariance, means.T).T
    biases = -0.5 * np.sum(means * rows, axis=1)
    biases[~seen] = -1e30
    return rows.astype(np.float32), biases.astype(np.float32)


def shrunk(covariance: np.ndarray, samples: int) -> np.ndarray:
    """``covariance`` S float64 [D, D], changed in place to (1 - rho) S + rho tr(S)/D I, with OAS's rho for
    ``samples`` observations.
    """
    size = len(covariance)
    trace, squares = float(np.trace(covariance)), float(np.sum(covariance * covariance))
    spread = squares - trace * trace / size
    top = (1.0 - 2.0 / size) * squares + trace * trace
    rho = 1.0 if spread <= 0.0 else min(1.0, top / ((samples + 1.0 - 2.0 / size) * spread))
    mean_variance = max(trace / size, 1e-30)
    covariance *= 1.0 - rho
    covariance.flat[:: size + 1] += (rho + _RELATIVE_FLOOR) * mean_variance
    return covariance
