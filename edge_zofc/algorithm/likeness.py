"""How much a picture is like what is known, from where on it is called unknown, and which classes look alike.

A head's softmax says which of the known classes a picture belongs to, and is as sure of a thing that was never shown.
Likeness is the cosine between a feature and a class mean. It needs no matrix and no solving, and parts what was never
shown from what was at least as well as Mahalanobis distances do (``benchmarks/results/RESULTS.md``).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edge_zofc.algorithm.heads import unit
from edge_zofc.algorithm.statistics import Statistics

SHARE = 0.75
"""Of the median likeness of pictures to their own class without them: less is unknown."""
LEAST_PICTURES = 5
WITHOUT = 0.4
"""The limit before there are so many."""
LEAST_ALIKE, ALIKE_SHARE = 3, 0.3
"""A class looks like another one if so many of its pictures, and such a part of them, are nearer to that one."""

Group = tuple[int, np.ndarray, bool]
"""Pictures that belong together, such as a burst: their class id, features float32 [n, D], and whether they are part of
the statistics."""


class Likeness:
    """Of features to the classes of ``statistics``, whose moment is not used."""

    def __init__(self, statistics: Statistics) -> None:
        self._sums, self._counts = statistics.sums, statistics.counts
        self._directions = unit(self._sums)
        self._directions[self._counts == 0] = 0.0

    def to_classes(self, features: np.ndarray) -> np.ndarray:
        """Cosines float64 [n, C] of features float32 [n, D]; -1 for a class without pictures."""
        found = unit(features.astype(np.float64)) @ self._directions.T
        found[:, self._counts == 0] = -1.0
        return np.asarray(found)

    def left_out(self, groups: Iterable[Group]) -> tuple[np.ndarray, np.ndarray]:
        """Each picture against its class without its own group: likeness to that class float64 [n], and pairs int64
        [n, 2] of its class and the class that it is nearest to. Groups that are all of their class are left out.
        """
        likenesses, pairs = [np.zeros(0)], [np.zeros((0, 2), np.int64)]
        for class_id, features, is_counted in groups:
            rows = features.astype(np.float64)
            rest = self._sums[class_id] - (rows.sum(axis=0) if is_counted else 0.0)
            if self._counts[class_id] - (len(rows) if is_counted else 0) < 1 or not len(rows):
                continue
            found = self.to_classes(features)
            found[:, class_id] = unit(rows) @ unit(rest)
            likenesses.append(found[:, class_id])
            pairs.append(np.column_stack([np.full(len(rows), class_id), found.argmax(axis=1)]))
        return np.concatenate(likenesses), np.concatenate(pairs)


def unknown_limit(likenesses: np.ndarray) -> float:
    """Below which likeness a picture is unknown, from those of ``Likeness.left_out``."""
    return WITHOUT if len(likenesses) < LEAST_PICTURES else SHARE * float(np.median(likenesses))


def lookalikes(pairs: np.ndarray) -> dict[int, int]:
    """Class id -> the class that it is easily taken for, from the pairs of ``Likeness.left_out``."""
    found = {}
    for class_id in np.unique(pairs[:, 0]):
        named = pairs[pairs[:, 0] == class_id, 1]
        others, counts = np.unique(named[named != class_id], return_counts=True)
        if len(counts) and counts.max() >= max(LEAST_ALIKE, ALIKE_SHARE * len(named)):
            found[int(class_id)] = int(others[counts.argmax()])
    return found
