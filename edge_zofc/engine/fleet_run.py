"""A fleet that is open for questions, as a ``TaughtRun``: what its shares come to, and nothing that was shown."""

from __future__ import annotations

from edge_zofc.algorithm.likeness import WITHOUT
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.engine.feature_store import FeatureStore
from edge_zofc.engine.lesson import Knowledge, LessonView
from edge_zofc.engine.taught_run import TaughtRun
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_folder import FleetFolder
from edge_zofc.storage.run_folder import RunFolder
from edge_zofc.storage.settings import Settings


class FleetRun(TaughtRun):
    """The fleet in ``fleet``. Raises as ``FleetFolder.merged``."""

    def __init__(self, fleet: FleetFolder, bundle: Bundle, settings: Settings, threads: int = 1) -> None:
        self._fleet = fleet
        super().__init__(RunFolder(fleet.path), bundle, settings, threads)

    def _load(self) -> None:
        mark, merged = self._mark(), self._fleet.in_force().merged()
        self.merged, self._seen = merged, mark
        self.theta, self.view, self.features, self.finished = self._fleet.adapter(self.bundle), LessonView(), {}, []
        self._store = FeatureStore(self.folder.features, self.bundle.manifest.feature_size)
        counts = dict(zip(merged.class_names, map(int, merged.statistics.counts), strict=True))
        self.knowledge = Knowledge(list(merged.class_names), merged.statistics, counts)
        self._changed()
        self.__dict__["head"] = merged.head()
        # Whoever merged shares has no picture to measure a limit on, nor to find classes that look alike.
        self.__dict__["left_out"] = self.likeness.left_out([])
        self.__dict__["limit"] = WITHOUT

    def _mark(self) -> tuple[tuple[str, int], ...]:
        """What changes when a share comes or goes, or the adapter moves."""
        shares = self._fleet.in_force().shares
        return tuple(sorted((str(path), path.stat().st_mtime_ns) for path in shares.iterdir()))

    @property
    def class_names(self) -> tuple[str, ...]:
        """As of a run."""
        return tuple(self.merged.class_names)

    @property
    def statistics(self) -> Statistics:
        """As of a run."""
        return self.merged.statistics

    def refresh(self) -> bool:
        """Take over shares that came since; returns whether there were any."""
        if self._mark() == self._seen:
            return False
        self._load()
        return True
