"""All that a run knows: what a checkpoint must hold so that a resumed run ends with the same bits.

Nothing here depends on when a checkpoint is taken. Counters that go into ``result.json`` are part of the state, so a
step that is repeated after a power cut is counted once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_zofc.algorithm import symmetric
from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.algorithm.directions import SCHEMES
from edge_zofc.algorithm.heads import Head, HeadOptimiser
from edge_zofc.algorithm.options import HeadKind, Options
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.engine.mistakes import kept_confusion
from edge_zofc.engine.progress import RunProgress, TaskProgress, progress_of
from edge_zofc.errors import DamagedFileError
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.checkpoint import Snapshot


@dataclass
class RunState:
    """Adapter, head, its optimiser while a task is being learnt, the floor's class sums and the progress.

    ``class_sums`` float64 [C, D] and ``class_counts`` int64 [C]: sums of the frozen features of each class's
    training pictures, which is all that the class-mean floor needs. ``statistics``: those of the adapted features
    of finished tasks, for the closed-form head (None for the cosine head). ``confusion`` int64 [n, 3]: (class, class it
    was named as, test pictures) at the last evaluation, n at most MOST_CELLS; replaced, never changed. None where
    nothing was measured.

    ``frozen_moment``, a packed matrix (``symmetric.py``): with ``class_sums`` and ``class_counts`` the statistics of
    all tasks, the one at work too, under the adapter's start; None until the adapter moves, and once it is decided that
    it rests. It is replaced, never changed. ``prototype_sums`` float64 [C, D]: those of the ``Prototypes`` while a task
    is trained.
    """

    adapter: Adapter
    head: Head
    class_sums: np.ndarray
    class_counts: np.ndarray
    statistics: Statistics | None = None
    progress: RunProgress = field(default_factory=RunProgress)
    optimiser: HeadOptimiser | None = None
    confusion: np.ndarray | None = None
    frozen_moment: np.ndarray | None = None
    prototype_sums: np.ndarray | None = None

    @classmethod
    def of(cls, bundle: Bundle, options: Options, snapshot: Snapshot | None = None) -> RunState:
        """The state of a run with this bundle and these options: a new one's, or what ``snapshot`` holds.

        Raises DamagedFileError if that is not a state.
        """
        scales = bundle.scales(SCHEMES[options.directions])
        start = bundle.initial_adapter()
        adapter = Adapter(start, options.seed, options.eps, options.momentum, options.optimizer, scales)
        state = cls.start(adapter, bundle.manifest.feature_size, options.head)
        if snapshot is not None:
            state.restore(snapshot)
        return state

    @classmethod
    def start(cls, adapter: Adapter, feature_size: int, head_kind: HeadKind) -> RunState:
        """The state before the first task."""
        sums, head = np.zeros((0, feature_size), np.float64), Head.empty(feature_size)
        statistics = None
        if head_kind == "lda":
            head.biases = np.zeros(0, np.float32)
            statistics = Statistics.empty(0, feature_size)
        return cls(adapter, head, sums, np.zeros(0, np.int64), statistics)

    def restart(self, initial_adapter: np.ndarray) -> None:
        """Go back, in place, to the state before the first task. ``initial_adapter`` float32 [P]."""
        kind: HeadKind = "cosine" if self.statistics is None else "lda"
        fresh = RunState.start(self.adapter, self.head.rows.shape[1], kind)
        self.adapter.theta[:] = initial_adapter
        self.adapter.reset_velocity()
        self.head, self.statistics, self.optimiser = fresh.head, fresh.statistics, None
        self.class_sums, self.class_counts = fresh.class_sums, fresh.class_counts
        # What was settled before the first task stays.
        self.progress = RunProgress(head_backend=self.progress.head_backend, start=self.progress.start)
        self.confusion = self.frozen_moment = self.prototype_sums = None

    @property
    def current_task(self) -> TaskProgress:
        """The task that was begun last."""
        return self.progress.tasks[-1]

    @property
    def finished_tasks(self) -> list[TaskProgress]:
        """Tasks that were learnt and evaluated."""
        tasks = self.progress.tasks
        return tasks if self.progress.phase == "idle" else tasks[:-1]

    def to_snapshot(self) -> Snapshot:
        """Copies of everything that learning changes in place; ``Statistics`` are replaced, never changed.

        Second moments are no copies, and whole matrices in the file alone.
        """
        size, moments = self.head.rows.shape[1], dict[str, symmetric.Packed]()
        arrays = {
            "theta": self.adapter.theta.copy(),
            **{name: array.copy() for name, array in self.adapter.moments().items()},
            "rows": self.head.rows.copy(),
            "sigma": self.head.sigma.copy(),
            "class_sums": self.class_sums.copy(),
            "class_counts": self.class_counts.copy(),
        }
        if self.statistics is not None and self.head.biases is not None:
            arrays["biases"] = self.head.biases.copy()
            arrays["feature_sums"] = self.statistics.sums
            arrays["feature_counts"] = self.statistics.counts
            moments["feature_moment"] = symmetric.Packed(self.statistics.moment, size)
        if self.confusion is not None:
            arrays["confusion"] = self.confusion
        if self.frozen_moment is not None:
            moments["frozen_moment"] = symmetric.Packed(self.frozen_moment, size)
        if self.prototype_sums is not None:
            arrays["prototype_sums"] = self.prototype_sums.copy()
        if self.optimiser is not None:
            arrays["row_velocity"] = self.optimiser.row_velocity.copy()
            arrays["sigma_velocity"] = self.optimiser.sigma_velocity.copy()
        return Snapshot(arrays, self.progress.model_dump(mode="json"), moments)

    def restore(self, snapshot: Snapshot) -> None:
        """Take over what a snapshot holds, in place. Raises DamagedFileError if it is not a state."""
        progress = progress_of(snapshot)
        arrays, feature_size = snapshot.arrays, self.head.rows.shape[1]
        count, size = len(progress.class_names), self.adapter.size
        _expect(arrays, "theta", np.float32, (size,))
        for name, array in self.adapter.moments().items():
            _expect(arrays, name, array.dtype, array.shape)
        _expect(arrays, "rows", np.float32, (count, feature_size))
        _expect(arrays, "sigma", np.float32, (1,))
        _expect(arrays, "class_sums", np.float64, (count, feature_size))
        _expect(arrays, "class_counts", np.int64, (count,))
        # In place: whoever holds the progress goes on with what was restored.
        for name in type(progress).model_fields:
            setattr(self.progress, name, getattr(progress, name))
        self.adapter.theta[:] = arrays["theta"]
        for name, array in self.adapter.moments().items():
            array[:] = arrays[name]
        self.head.rows = arrays["rows"].copy()
        self.head.sigma = arrays["sigma"].copy()
        self.class_sums = arrays["class_sums"].copy()
        self.class_counts = arrays["class_counts"].copy()
        self.confusion = kept_confusion(arrays.get("confusion"), progress.total_by_class)
        self.optimiser = None
        self._restore_of_moved(snapshot, count)
        if self.statistics is not None:
            self._restore_statistics(snapshot, count)
        elif progress.phase == "training":
            optimiser = self.begin_optimiser()
            rows = (len(self.current_task.class_ids), feature_size)
            _expect(arrays, "row_velocity", np.float32, rows)
            _expect(arrays, "sigma_velocity", np.float32, (1,))
            optimiser.row_velocity[:] = arrays["row_velocity"]
            optimiser.sigma_velocity[:] = arrays["sigma_velocity"]

    def _restore_of_moved(self, snapshot: Snapshot, count: int) -> None:
        arrays = snapshot.arrays
        if "prototype_sums" in arrays and self.progress.phase != "training":
            raise DamagedFileError("a snapshot's array prototype_sums is there, though no task is being trained.")
        is_there = "frozen_moment" in {*arrays, *snapshot.packed}
        self.frozen_moment = self._restored_moment(snapshot, "frozen_moment") if is_there else None
        self.prototype_sums = None
        if "prototype_sums" in arrays:
            _expect(arrays, "prototype_sums", np.float64, (count, self.head.rows.shape[1]))
            self.prototype_sums = arrays["prototype_sums"].copy()

    def _restored_moment(self, snapshot: Snapshot, name: str) -> np.ndarray:
        """A packed copy of a matrix."""
        if name in snapshot.packed:
            return snapshot.packed[name].values.copy()
        size = self.head.rows.shape[1]
        _expect(snapshot.arrays, name, np.float64, (size, size))
        return symmetric.pack(snapshot.arrays[name])

    def _restore_statistics(self, snapshot: Snapshot, count: int) -> None:
        arrays, size = snapshot.arrays, self.head.rows.shape[1]
        known = len(arrays.get("feature_counts", ()))
        _expect(arrays, "biases", np.float32, (count,))
        _expect(arrays, "feature_sums", np.float64, (known, size))
        _expect(arrays, "feature_counts", np.int64, (known,))
        self.head.biases = arrays["biases"].copy()
        sums, counts = arrays["feature_sums"].copy(), arrays["feature_counts"].copy()
        if "feature_scatter" in arrays:  # of format 1
            _expect(arrays, "feature_scatter", np.float64, (size, size))
            self.statistics = Statistics.from_scatter(sums, counts, arrays["feature_scatter"])
        else:
            self.statistics = Statistics(sums, counts, self._restored_moment(snapshot, "feature_moment"))

    def begin_optimiser(self) -> HeadOptimiser:
        """Set and return a new head optimiser for the current task, as the paper rebuilds it for each."""
        ids = np.array(self.current_task.class_ids, np.int64)
        self.optimiser = HeadOptimiser(self.head, ids, self.adapter.momentum, self.progress.head_backend)
        return self.optimiser

    def add_classes(self, names: list[str], rows: np.ndarray) -> None:
        """Give ids to new classes: ``rows`` float32 [n, D] for the n ``names``."""
        self.progress.class_names.extend(names)
        self.head.grow(rows)
        missing = len(self.progress.class_names) - len(self.class_sums)
        self.class_sums = np.concatenate([self.class_sums, np.zeros((missing, rows.shape[1]))])
        self.class_counts = np.concatenate([self.class_counts, np.zeros(missing, np.int64)])


def _expect(arrays: dict[str, np.ndarray], name: str, dtype: Any, shape: tuple[int, ...]) -> None:
    found = arrays.get(name)
    if found is None or found.dtype != dtype or found.shape != shape:
        what = "missing" if found is None else f"{found.dtype} {found.shape}"
        raise DamagedFileError(f"a snapshot's array {name} is {what}, not {np.dtype(dtype)} {shape}.")
    if found.dtype.kind == "f" and not bool(np.isfinite(found).all()):
        raise DamagedFileError(f"a snapshot's array {name} holds values that are not finite.")
