"""All that a run knows: what a checkpoint must hold so that a resumed run ends with the same bits.

Nothing here depends on when a checkpoint is taken. Counters that go into ``result.json`` are part of the state, so a
step that is repeated after a power cut is counted once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.algorithm.heads import Head, HeadBackend, HeadOptimiser, Statistics
from edge_zofc.algorithm.options import HeadKind, Options
from edge_zofc.data.folders import identity
from edge_zofc.engine.mistakes import kept_confusion
from edge_zofc.errors import DamagedFileError
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.checkpoint import Snapshot
from edge_zofc.storage.reading import load_model
from edge_zofc.storage.result import WrongPictures
from edge_zofc.storage.run_folder import RunFolder

Phase = Literal["idle", "training", "trained"]
"""idle: between tasks; training: at ``epoch``/``batch``; trained: the task waits for its evaluation."""


Natural = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class TaskProgress(_Model):
    """One task as far as it is learnt; ``seconds`` is wall time of its training."""

    name: str
    class_ids: Annotated[list[Natural], Field(min_length=1)]
    train_images: Natural = 0
    test_images: Natural = 0
    skipped_images: Natural = 0
    steps: Natural = 0
    seconds: Seconds = 0.0
    first_loss: float | None = None
    last_loss: float | None = None
    fingerprint: str = ""
    begun_under: str = ""
    """``adapter_key`` of theta when the task began."""
    unreadable: list[Natural] = Field(default_factory=list)
    """Positions in the task's training list that could not be decoded when the task began."""
    first_losses: list[float] = Field(default_factory=list)
    recent_losses: list[float] = Field(default_factory=list)
    """Losses of the first and of the latest batches behind those, at most ``divergence.WINDOW`` each."""


class Counts(_Model):
    """Right answers of one learner: ``correct[i][j]`` after task i on task j (None: not measured), and by class
    at the last stage.
    """

    correct: list[list[Natural | None]] = Field(default_factory=list)
    correct_by_class: list[Natural] = Field(default_factory=list)

    @model_validator(mode="after")
    def _is_a_triangle(self) -> Counts:
        for index, row in enumerate(self.correct):
            if len(row) != index + 1:
                raise ValueError(f"row {index} of right answers has {len(row)} entries, not {index + 1}")
        return self


class RunProgress(_Model):
    """The part of the state that is not an array. ``total[j]`` is the number of test pictures of task j."""

    phase: Phase = "idle"
    epoch: Natural = 0
    batch: Natural = 0
    step: Natural = 0
    journal_records: Natural = 0
    class_names: list[str] = Field(default_factory=list)
    tasks: list[TaskProgress] = Field(default_factory=list)
    learner: Counts = Field(default_factory=Counts)
    floor: Counts = Field(default_factory=Counts)
    total: list[Natural] = Field(default_factory=list)
    total_by_class: list[Natural] = Field(default_factory=list)
    evaluated_under: str = ""
    """``adapter_key`` of theta at the last evaluation. Passes are counted by what changed since, so that those that are
    repeated after a cut, because the kept features were lost too, are counted once."""
    forward_passes: Natural = 0
    evaluation_forward_passes: Natural = 0
    floor_forward_passes: Natural = 0
    seconds: Seconds = 0.0
    peak_rss_bytes: Natural = 0
    peak_anonymous_bytes: int | None = None
    peak_file_bytes: int | None = None
    head_backend: HeadBackend = "torch"
    wrong_pictures: Annotated[list[WrongPictures], Field(max_length=100)] = Field(default_factory=list)
    """Of the pairs of classes that were confused most at the last evaluation."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> RunProgress:
        classes = len(self.class_names)
        if len(set(self.class_names)) < classes:
            raise ValueError("a class stands in it twice")
        if any(class_id >= classes for task in self.tasks for class_id in task.class_ids):
            raise ValueError(f"a task has a class beyond the {classes} that there are")
        if any(max(pair.class_id, pair.named_id) >= classes for pair in self.wrong_pictures):
            raise ValueError(f"a wrong picture's class is beyond the {classes} that there are")
        if self.phase != "idle" and not self.tasks:
            raise ValueError(f"the phase is {self.phase} and no task was begun")
        rows = max(len(counts.correct) for counts in (self.learner, self.floor))
        if not rows <= len(self.total) <= len(self.tasks):
            raise ValueError(f"there are more accuracies than the {len(self.tasks)} tasks")
        return self


def progress_of(snapshot: Snapshot) -> RunProgress:
    """What a snapshot says besides its arrays. Raises DamagedFileError if it is not a state."""
    progress = load_model(RunProgress, snapshot.metadata, "a snapshot's state is not valid:")
    # Task names were once kept in the form that the folder had.
    names = [identity(task.name) for task in progress.tasks]
    if len(set(names)) == len(names):
        for task, name in zip(progress.tasks, names, strict=True):
            task.name = name
    return progress


def tasks_of(run: RunFolder) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the tasks that a run has finished, and of the one that it is in the middle of."""
    found = run.latest()
    if found is None:
        return frozenset(), frozenset()
    progress = progress_of(found.snapshot)
    names = [task.name for task in progress.tasks]
    half = names[-1:] if progress.phase != "idle" else []
    return frozenset(names) - frozenset(half), frozenset(half)


@dataclass
class RunState:
    """Adapter, head, its optimiser while a task is being learnt, the floor's class sums and the progress.

    ``class_sums`` float64 [C, D] and ``class_counts`` int64 [C]: sums of the frozen features of each class's
    training pictures, which is all that the class-mean floor needs. ``statistics``: those of the adapted features
    of finished tasks, for the closed-form head (None for the cosine head). ``confusion`` int64 [n, 3]: (class, class it
    was named as, test pictures) at the last evaluation, n at most MOST_CELLS; replaced, never changed. None where
    nothing was measured.
    """

    adapter: Adapter
    head: Head
    class_sums: np.ndarray
    class_counts: np.ndarray
    statistics: Statistics | None = None
    progress: RunProgress = field(default_factory=RunProgress)
    optimiser: HeadOptimiser | None = None
    confusion: np.ndarray | None = None

    @classmethod
    def of(cls, bundle: Bundle, options: Options, snapshot: Snapshot | None = None) -> RunState:
        """The state of a run with this bundle and these options: a new one's, or what ``snapshot`` holds.

        Raises DamagedFileError if that is not a state.
        """
        start = bundle.initial_adapter()
        adapter = Adapter(start, options.seed, options.eps, options.momentum, options.optimizer)
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
        self.progress = RunProgress(head_backend=self.progress.head_backend)
        self.confusion = None

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
        """Copies of everything that learning changes in place; ``Statistics`` are replaced, never changed."""
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
            arrays["feature_moment"] = self.statistics.moment
        if self.confusion is not None:
            arrays["confusion"] = self.confusion
        if self.optimiser is not None:
            arrays["row_velocity"] = self.optimiser.row_velocity.copy()
            arrays["sigma_velocity"] = self.optimiser.sigma_velocity.copy()
        return Snapshot(arrays, self.progress.model_dump(mode="json"))

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
        if self.statistics is not None:
            self._restore_statistics(arrays, count)
        elif progress.phase == "training":
            optimiser = self.begin_optimiser()
            rows = (len(self.current_task.class_ids), feature_size)
            _expect(arrays, "row_velocity", np.float32, rows)
            _expect(arrays, "sigma_velocity", np.float32, (1,))
            optimiser.row_velocity[:] = arrays["row_velocity"]
            optimiser.sigma_velocity[:] = arrays["sigma_velocity"]

    def _restore_statistics(self, arrays: dict[str, np.ndarray], count: int) -> None:
        size = self.head.rows.shape[1]
        known = len(arrays.get("feature_counts", ()))
        _expect(arrays, "biases", np.float32, (count,))
        _expect(arrays, "feature_sums", np.float64, (known, size))
        _expect(arrays, "feature_counts", np.int64, (known,))
        # Snapshots of format 1 hold the scatter.
        name = "feature_scatter" if "feature_scatter" in arrays else "feature_moment"
        _expect(arrays, name, np.float64, (size, size))
        self.head.biases = arrays["biases"].copy()
        make = Statistics.from_scatter if name == "feature_scatter" else Statistics
        self.statistics = make(*(arrays[key].copy() for key in ("feature_sums", "feature_counts", name)))

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
