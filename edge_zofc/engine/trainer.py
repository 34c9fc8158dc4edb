"""A run that is open for learning: its parts, what it saves and tells, and the way back from a task that diverged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edge_zofc.algorithm.divergence import WINDOW, out_of_band
from edge_zofc.algorithm.episodes import Prototypes
from edge_zofc.algorithm.options import Options
from edge_zofc.data.stream import Stream, Task
from edge_zofc.device.system import PeakSampler, larger, mib
from edge_zofc.engine.feature_store import FeatureStore
from edge_zofc.engine.pictures import TaskPictures
from edge_zofc.engine.pixel_store import PixelStore
from edge_zofc.engine.state import RunState
from edge_zofc.engine.task_ends import is_readable, load_end, save_end
from edge_zofc.errors import DivergedError, InputError
from edge_zofc.inference.backbone import Backbone
from edge_zofc.signals import StopSignals
from edge_zofc.storage import checkpoint
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.journal import Journal, Kind, Record
from edge_zofc.storage.run_folder import EventLog, RunFolder
from edge_zofc.storage.settings import Placement

log = logging.getLogger("edge_zofc")

Evaluate = Literal["all", "new", "last"]
"""What is measured at a task's end: all tasks, the new one, or all at the end of the last one."""
NO_GRADIENT = (
    "The bundle has no graph for exact gradients that this version reads; export it with --gradient, "
    "or use --estimator spsa."
)
SNAPSHOT_SECONDS = 30.0
"""A power cut repeats at most this much work, plus one step."""


@dataclass(frozen=True)
class TaskSize:
    """One task of a stream: new and old classes together, pictures to learn from and to test with."""

    classes: int
    train_images: int
    test_images: int


@dataclass
class Trainer:
    """One run, opened for learning: its parts and what steers them."""

    run: RunFolder
    bundle: Bundle
    stream: Stream
    options: Options
    state: RunState
    backbone: Backbone
    journal: Journal
    events: EventLog
    usage: PeakSampler
    signals: StopSignals = field(default_factory=StopSignals)
    max_steps: int | None = None
    budget_bytes: int = 0
    evaluate: Evaluate = "all"
    on_forwards: Callable[[Trainer, int], None] = lambda trainer, count: None
    on_step: Callable[[Trainer, float], None] = lambda trainer, loss: None
    on_task_end: Callable[[Trainer], None] = lambda trainer: None

    prototypes: Prototypes | None = None
    """What steers the adapter while a task is trained by episodes."""
    sized: tuple[Stream, dict[str, TaskSize]] | None = None
    """A stream and the sizes of its tasks by name, once they were counted (``work.py``)."""

    def __post_init__(self) -> None:
        self.frozen_theta = self.bundle.initial_adapter()
        self._saved_at = self._clock = time.monotonic()
        self._interval_seconds = 0.0
        self.pixels = PixelStore(self.run.features, self.bundle.manifest.image)
        self.train_pixels = ""

    @property
    def pictures(self) -> TaskPictures:
        """How this run reads its pictures."""
        return TaskPictures(
            self.run,
            self.stream,
            self.bundle.manifest.image,
            self.options,
            self.state,
            self.events,
            self.signals.check,
            self.count_forwards,
            self.pixels,
            self.train_pixels,
        )

    def reads_again(self, task: Task) -> bool:
        """Whether a train picture of ``task`` is decoded to the same pixels more than once."""
        is_seen_again = self.options.augment == "none" or self.options.head == "lda"
        progress = self.state.progress
        index = len(progress.tasks) - (progress.phase != "idle")
        return is_seen_again and self.options.moves_in(index, len(task.class_ids))

    @property
    def tests_again(self) -> bool:
        """Whether test pictures are decoded at the end of later tasks too."""
        return self.options.moves and self.options.loss == "head" and self.evaluate == "all"

    @property
    def store(self) -> FeatureStore:
        """The kept features of pictures."""
        return FeatureStore(self.run.features, self.backbone.feature_size)

    def open_backbone(self, placement: Placement) -> None:
        """Another session in place of the one that was closed."""
        self.backbone = Backbone(self.bundle, placement, self.backbone.providers)

    def begin_steps(self) -> None:
        """Let the session go back where steps need exact gradients.

        Raises InputError if the bundle has no graph for them.
        """
        if self.options.estimator == "exact":
            if not self.bundle.manifest.goes_back:
                raise InputError(NO_GRADIENT)
            self.backbone.go_back(True)

    def pending_tasks(self) -> list[Task]:
        """Tasks that this run has not finished: the one that is half learnt, then the stream's others in order.

        Raises InputError as ``unfinished_task``.
        """
        finished = {task.name for task in self.state.finished_tasks}
        pending = [task for task in self.stream.tasks if task.name not in finished]
        first = self.unfinished_task()
        return pending if first is None else [first, *(task for task in pending if task is not first)]

    def unfinished_task(self) -> Task | None:
        """The task that is half learnt, or None. Raises InputError if the stream no longer has it."""
        if self.state.progress.phase == "idle":
            return None
        name = self.state.current_task.name
        for task in self.stream.tasks:
            if task.name == name:
                return task
        back = len(self.state.progress.tasks) - 2
        more = f", or go back with 'edge-zofc rollback {self.run.path} --to-task {back}'" if back >= 0 else ""
        raise InputError(
            f"The run is in the middle of task {name}, which is no longer in {self.stream.root}; "
            f"put its folder back{more}."
        )

    def distinct_adapters(self) -> list[np.ndarray]:
        """theta, and the initial adapter where it is another one."""
        theta = self.state.adapter.theta
        return [theta] if np.array_equal(theta, self.frozen_theta) else [theta, self.frozen_theta]

    def count_forwards(self, count: int) -> None:
        """Tell that so many image-forwards were done."""
        self.on_forwards(self, count)

    def save(self, task_end: int | None = None) -> None:
        """Write a checkpoint; ``task_end`` marks the one that a rollback to this task needs."""
        progress = self.state.progress
        now = time.monotonic()
        progress.seconds += now - self._clock
        self._clock = self._saved_at = now
        peak = self.usage.peak()
        progress.peak_rss_bytes = max(progress.peak_rss_bytes, peak.rss_bytes)
        progress.peak_anonymous_bytes = larger(progress.peak_anonymous_bytes, peak.anonymous_bytes)
        progress.peak_file_bytes = larger(progress.peak_file_bytes, peak.file_bytes)
        progress.journal_records = self.journal.records
        found = self.state.to_snapshot()
        if task_end is not None:
            # First this one: after a cut in between, the task is finished again and both are written.
            save_end(self.run.state, task_end, found)
        checkpoint.save(self.run.state, found)

    def keep_end_readable(self) -> None:
        """Write the newest task's end as a whole if one that it needs was deleted: ``undo_task`` may want it."""
        last = len(self.state.progress.tasks) - 1
        if last >= 0 and self.state.progress.phase == "idle" and not is_readable(self.run.state, last):
            checkpoint.save_task(self.run.state, last, self.state.to_snapshot())

    def save_when_due(self) -> None:
        """Write a checkpoint after the first step of a process, then in intervals that double up to SNAPSHOT_SECONDS.

        So a device that is cut every few seconds advances, and one that runs for months does not wear its disk.
        """
        if time.monotonic() - self._saved_at > min(self._interval_seconds, SNAPSHOT_SECONDS):
            self.save()
            self._interval_seconds = max(1.0, 2 * self._interval_seconds)

    def note(self, text: str) -> None:
        """Tell the user and the event log something that is not an error."""
        log.info(text)
        self.events.write("note", text=text)

    def record(self, kind: Kind) -> None:
        """Append a journal record that is not a step; it is on the disk when this returns."""
        progress = self.state.progress
        self.journal.append(Record(kind, len(progress.tasks) - 1, progress.step))

    def record_step(self, step: int, applied: np.ndarray, rate: float) -> None:
        """Append the record of a step; it is on the disk when this returns.

        ``applied``: coefficients float32 [Q], or a gradient float32 [P] where it is exact.
        """
        task = len(self.state.progress.tasks) - 1
        if self.options.estimator == "exact":
            record = Record(Kind.STEP, task, step, rate, gradient=applied)
        else:
            record = Record(Kind.STEP, task, step, rate, tuple(float(value) for value in applied))
        self.journal.append(record)

    def count_step(self, loss: float, norm: float, seconds: float) -> None:
        """Add a step that was done to the task's numbers and to the event log."""
        task, progress = self.state.current_task, self.state.progress
        task.steps += 1
        task.seconds += seconds
        task.last_loss = loss
        task.first_loss = loss if task.first_loss is None else task.first_loss
        losses = task.first_losses if len(task.first_losses) < WINDOW else task.recent_losses
        losses.append(loss)
        del losses[:-WINDOW]
        now = self.usage.now()
        self.events.write(
            "step",
            task=len(progress.tasks) - 1,
            epoch=progress.epoch,
            step=progress.step,
            loss=loss,
            gradient_norm=norm,
            seconds=round(seconds, 4),
            rss_mib=mib(now.rss_bytes),
            anonymous_mib=mib(now.anonymous_bytes),
            file_mib=mib(now.file_bytes),
        )
        self.on_step(self, loss)

    def check_band(self, at_end: bool = False) -> None:
        """Raise DivergedError if the current task's loss is far above its start."""
        task = self.state.current_task
        reason = out_of_band(task.first_losses, task.recent_losses, self.options.batch_size, at_end)
        if reason is not None:
            raise DivergedError(f"Step {self.state.progress.step - 1}: {reason}.")

    def undo_task(self, before: int) -> None:
        """Return to the end of task number ``before`` (-1: the start), in the journal, on the disk and in memory.

        Nothing is deleted: the steps stay in the journal, followed by a record that they no longer count.
        """
        head_backend = self.state.progress.head_backend
        if before >= 0:
            self.state.restore(load_end(self.run.state, before))
        else:
            self.state.restart(self.frozen_theta)
        self.state.progress.head_backend = head_backend
        self.journal.append(Record(Kind.ROLLBACK, before, self.state.progress.step))
        self.save()
