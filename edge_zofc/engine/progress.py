"""How far a run is: the part of its state that is not an array, and what a checkpoint says of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge_zofc.algorithm.crowding import LIMIT
from edge_zofc.algorithm.heads import HeadBackend
from edge_zofc.data.folders import identity
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


class Gate(_Model):
    """What the moved adapter was worth at a task's end, on held-out pictures of all classes known.

    The heads of both adapters are solved without the ``held_out`` pictures. ``only_frozen`` of them are named rightly
    under the adapter's start alone, ``only_moved`` under the moved one alone. ``keeps``: the moved one stays.
    """

    held_out: Natural
    right_frozen: Natural
    right_moved: Natural
    only_frozen: Natural
    only_moved: Natural
    keeps: bool

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Gate:
        both = self.right_moved - self.only_moved
        if both != self.right_frozen - self.only_frozen:
            raise ValueError("what one adapter alone names rightly is not the difference of the two")
        if both < 0 or both + self.only_frozen + self.only_moved > self.held_out:
            raise ValueError(f"the right answers do not fit into {self.held_out} held-out pictures")
        return self


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
    held_out: Natural = 0
    """Of its pictures, so many took no part in the steps; some of them may be unreadable."""
    gate: Gate | None = None
    """None where the adapter is where it started, or where nobody asked."""
    crowding: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Of its classes at the adapter's start, before the first step; None where nobody asked."""
    first_losses: list[float] = Field(default_factory=list)
    recent_losses: list[float] = Field(default_factory=list)
    """Losses of the first and of the latest batches behind those, at most ``divergence.WINDOW`` each."""

    @property
    def is_roomy(self) -> bool:
        """Whether its classes stand so far apart that the adapter stays at its start."""
        return self.crowding is not None and self.crowding < LIMIT


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
    start: Gate | None = None
    """Of a tuned start (``tuned_start.py``): the first task's pictures, "moved" is tuned, "frozen" untuned."""
    learner: Counts = Field(default_factory=Counts)
    floor: Counts = Field(default_factory=Counts)
    frozen: Counts = Field(default_factory=Counts)
    """Of the closed-form head under the adapter's start. Its last evaluation beside the learner's, by picture:"""
    only_frozen: Natural = 0
    only_moved: Natural = 0
    total: list[Natural] = Field(default_factory=list)
    total_by_class: list[Natural] = Field(default_factory=list)
    evaluated_under: str = ""
    """``adapter_key`` of theta at the last evaluation. Passes are counted by what changed since, so that those that are
    repeated after a cut, because the kept features were lost too, are counted once."""
    forward_passes: Natural = 0
    gradient_passes: Natural = 0
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
        rows = max(len(counts.correct) for counts in (self.learner, self.floor, self.frozen))
        if not rows <= len(self.total) <= len(self.tasks):
            raise ValueError(f"there are more accuracies than the {len(self.tasks)} tasks")
        right = self.frozen.correct_by_class
        gained = sum(self.learner.correct_by_class) - sum(right) if right else 0
        if gained != self.only_moved - self.only_frozen:
            raise ValueError("what the adapter won is not what it named rightly beyond the frozen head")
        if self.only_frozen + self.only_moved > sum(self.total_by_class):
            raise ValueError("the adapter changed more answers than there are test pictures")
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
