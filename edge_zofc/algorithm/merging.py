"""Statistics of many devices put together: their classes go by name, as each device counts its ids for itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_zofc.algorithm.statistics import Statistics


class Merging:
    """A sum of statistics, which ends in the same bits whatever the order of its parts; D is ``feature_size``."""

    def __init__(self, feature_size: int) -> None:
        self._ids: dict[str, int] = {}
        self._sum = Statistics.empty(0, feature_size)

    def add(self, class_names: Sequence[str], statistics: Statistics, times: int = 1) -> None:
        """Count a part in, whose class with id i is called ``class_names[i]``; ``times`` -1 takes it out again."""
        ids = np.array([self._ids.setdefault(name, len(self._ids)) for name in class_names], np.int64)
        sums, counts = np.zeros((len(self._ids), statistics.sums.shape[1])), np.zeros(len(self._ids), np.int64)
        sums[ids], counts[ids] = statistics.sums, statistics.counts
        part = Statistics(sums, counts, statistics.moment)
        self._sum = self._sum.plus(part) if times > 0 else self._sum.minus(part)

    def result(self) -> tuple[tuple[str, ...], Statistics]:
        """The names of the classes that have pictures, sorted, and the statistics with these ids."""
        names = sorted(name for name, class_id in self._ids.items() if self._sum.counts[class_id])
        ids = np.array([self._ids[name] for name in names], np.int64)
        return tuple(names), Statistics(self._sum.sums[ids], self._sum.counts[ids], self._sum.moment)


def capped(statistics: Statistics, pictures: float) -> Statistics:
    """The statistics as if of at most ``pictures``: one device must not outweigh the others."""
    total = int(statistics.counts.sum())
    return statistics if total <= pictures else statistics.scaled(pictures / total)
