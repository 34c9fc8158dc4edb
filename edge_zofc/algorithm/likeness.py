"""How much a picture is like what is known, and from where on it is called unknown.

A head's softmax says which of the known classes a picture belongs to, and is as sure of a thing that was never shown.
Likeness is the cosine between a feature and the nearest class mean, both seen from the mean of all class means.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_zofc.algorithm.heads import unit
from edge_zofc.algorithm.statistics import Statistics

SHARE = 0.6
"""Of the median likeness of pictures that were kept back: less is unknown."""
LEAST_PICTURES = 5
WITHOUT = 0.35
"""The limit before so many were kept back."""


class Likeness:
    """Of features float32 [n, D] to the classes of ``statistics``; with fewer than two classes nothing is centred."""

    def __init__(self, statistics: Statistics) -> None:
        means = statistics.sums / np.maximum(statistics.counts, 1)[:, None]
        self.seen = statistics.counts > 0
        self._centre = means[self.seen].mean(axis=0) if self.seen.sum() > 1 else np.zeros(means.shape[1])
        self._directions = unit(means - self._centre)

    def to_classes(self, features: np.ndarray) -> np.ndarray:
        """Cosines float64 [n, C]; -1 for a class without pictures."""
        found = unit(features.astype(np.float64) - self._centre) @ self._directions.T
        return np.where(self.seen, found, -1.0)

    def between_classes(self) -> np.ndarray:
        """Cosines float64 [C, C] between class means, seen from the mean of all; -1 on the diagonal."""
        found = np.asarray(self._directions @ self._directions.T)
        found[~self.seen] = found[:, ~self.seen] = -1.0
        np.fill_diagonal(found, -1.0)
        return found


def unknown_limit(kept_back: Sequence[float]) -> float:
    """Below which likeness a picture is unknown, from the likenesses of pictures that were kept back."""
    if len(kept_back) < LEAST_PICTURES:
        return WITHOUT
    return SHARE * float(np.median(kept_back))
