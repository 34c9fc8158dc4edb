"""The loss that steers the adapter under the closed-form head: nearest class mean, each picture left out of its own.

The loss of a discriminant on the pictures that it was solved from is next to zero and says nothing. Here a picture
is compared with means that it is no part of. Features f are whitened, g = L^T f, with L L^T the inverse of the head's
own shrunk covariance within classes, as it was before the first step:

    loss   cross-entropy of softmax over classes c of -tau |g_i - m_c|^2, m_y without picture i for its own class y

The means are those of all pictures of a class and not of a batch: with four pictures a class in a batch of 64 the
gradients of two batches have a cosine of 0.55, with these means and 64 pictures 0.72 (benchmarks/results/LOG.md).
They follow the adapter: a picture that was looked at replaces an average one. They are constants in the loss.

Snell et al. 2017 (arXiv 1703.05175) train by distances to class means of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_zofc.algorithm import symmetric
from edge_zofc.algorithm.heads import cross_entropy, softmax, within
from edge_zofc.algorithm.statistics import Statistics

SHARPNESS = 8.0
"""tau times the mean squared distance of a picture to a class mean."""
HELD_OUT = 5
"""One of so many pictures of a class is held out."""
_COLUMNS = 128
"""How many columns of an inverse are solved for at once; a multiple of 64, so that all at once have the same bits."""


@dataclass
class Prototypes:
    """Whitened class means that move with the adapter.

    ``whitening`` float32 [D, D] is L, ``sums`` float64 [C, D] and ``counts`` int64 [C] are those of whitened features
    (a class without pictures is no candidate), ``sharpness`` is tau. ``absorb`` changes ``sums`` in place.
    """

    whitening: np.ndarray
    sums: np.ndarray
    counts: np.ndarray
    sharpness: float

    @classmethod
    def of(cls, statistics: Statistics) -> Prototypes:
        """From features at the adapter's start."""
        whitening = _whitening(statistics)
        sums = statistics.sums @ whitening
        pictures = max(int(statistics.counts.sum()), 1)
        seen = statistics.counts > 0
        means = sums[seen] / statistics.counts[seen, None]
        moment = symmetric.unpack(statistics.moment, len(whitening))
        squared = float(np.einsum("ij,ij->", moment @ whitening, whitening)) / pictures
        del moment
        middle = sums.sum(axis=0) / pictures
        distance = squared - 2.0 * float(middle @ means.mean(axis=0)) + float(np.mean(np.sum(means * means, axis=1)))
        sharpness = SHARPNESS / max(distance, 1e-12)
        return cls(whitening.astype(np.float32), sums, statistics.counts, sharpness)

    def losses(self, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Mean loss of each of K adapters, float64 [K], for features float32 [K, B, D] and class ids int64 [B].

        The first of the K is the base: what a picture adds to its own class's mean is its feature there.
        """
        base = self._whitened(features[0])
        means, own, without = self._candidates(base, labels)
        # One of the K at a time: float64 copies of all would be most of a step's memory.
        others = (cross_entropy(self._logits(self._whitened(some), means, own, without), own) for some in features[1:])
        return np.array([cross_entropy(self._logits(base, means, own, without), own), *others])

    def gradients(self, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Gradient of the mean loss by features float32 [B, D] of class ids int64 [B]: float32 [B, D].

        As in ``losses`` the means, and what a picture adds to its own, are constants.
        """
        g = self._whitened(features)
        means, own, without = self._candidates(g, labels)
        pull = softmax(self._logits(g, means, own, without))
        rows = np.arange(len(own))
        pull[rows, own] -= 1.0
        # Of -|g - m|^2 by g: 2 (m - g); the g of all classes cancel, as the pulls sum to 0.
        towards = pull @ means + pull[rows, own][:, None] * (without - means[own])
        towards *= 2.0 * self.sharpness / len(own)
        return np.asarray(towards.astype(np.float32) @ self.whitening.T)

    def _candidates(self, base: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The means of the classes with pictures, [C', D], which of them is each picture's own, and that without it."""
        known = np.flatnonzero(self.counts)
        own = np.searchsorted(known, labels)
        means = self.sums[known] / self.counts[known, None]
        left = np.maximum(self.counts[labels] - 1, 1)[:, None]
        has_others = (self.counts[labels] > 1)[:, None]
        return means, own, np.where(has_others, (self.sums[labels] - base) / left, means[own])

    def _logits(self, g: np.ndarray, means: np.ndarray, own: np.ndarray, without: np.ndarray) -> np.ndarray:
        distances = np.sum(g * g, axis=1)[:, None] - 2.0 * (g @ means.T) + np.sum(means * means, axis=1)
        distances[np.arange(len(g)), own] = np.sum((g - without) ** 2, axis=1)
        return np.asarray(-self.sharpness * distances)

    def absorb(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Let each picture of float32 [B, D], of class ids int64 [B], take the place of an average one of its class."""
        for g, label in zip(self._whitened(features), labels.tolist(), strict=True):
            self.sums[label] += g - self.sums[label] / self.counts[label]

    def _whitened(self, features: np.ndarray) -> np.ndarray:
        """float64 [B, D]. The product is float32's: its rounding is the same for all queries up to 1e-6."""
        return np.asarray(features @ self.whitening, np.float64)


def held_out(labels: np.ndarray) -> np.ndarray:
    """Bool [n]: which of a task's pictures, of class ids ``labels`` int64 [n], take no part in the steps."""
    return np.asarray(part_of(labels) == HELD_OUT - 1)


def part_of(labels: np.ndarray) -> np.ndarray:
    """Int64 [n]: in which of HELD_OUT parts of its class, of ids ``labels`` int64 [n], a picture lies; neighbours lie
    together, as bursts do.
    """
    found = np.zeros(len(labels), np.int64)
    for one in np.unique(labels):
        places = np.flatnonzero(labels == one)
        found[places] = np.arange(len(places)) * HELD_OUT // len(places)
    return found


def _whitening(statistics: Statistics) -> np.ndarray:
    """L float64 [D, D] with L L^T the inverse of the shrunk covariance: the inverse of its Cholesky factor, turned."""
    factor = np.linalg.cholesky(within(statistics))
    # numpy's own inverse has two matrices more alive.
    inverse = np.empty_like(factor)
    for start in range(0, len(factor), _COLUMNS):
        part = inverse[:, start : start + _COLUMNS]
        part[:] = np.linalg.solve(factor, np.eye(len(part), part.shape[1], k=-start))
    return inverse.T


def whitening_bytes(width: int) -> int:
    """What ``Prototypes.of`` takes at its peak beyond the statistics, D = ``width``.

    The factor, the solver's copy of it and the inverse; three times some columns: the right side, its copy, the answer.
    """
    return 8 * (3 * width**2 + 3 * min(_COLUMNS, width) * width)
