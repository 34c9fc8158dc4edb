"""What the loop stands on: an opened run that saves itself, tells what happens and loads its pictures.

What may surprise: a picture that could be read when its task began may be gone later. Its batch goes on without it;
only where more than a tenth are gone is it the disk, and the run stops as it was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.divergence import WINDOW, out_of_band
from edge_zofc.algorithm.options import Options
from edge_zofc.algorithm.spsa import Query
from edge_zofc.data.stream import Sample, Stream, Task
from edge_zofc.device.system import PeakSampler, larger, mib
from edge_zofc.engine.evaluation import PictureReader
from edge_zofc.engine.state import RunState
from edge_zofc.errors import DivergedError, ImageError, InputError, Stopped, TaskRefusedError
from edge_zofc.inference.backbone import Backbone
from edge_zofc.inference.features import LoadPicture, query_features
from edge_zofc.inference.transforms import load_test, load_train
from edge_zofc.storage import checkpoint
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.journal import Journal, Kind, Record
from edge_zofc.storage.run_folder import STATE, EventLog

log = logging.getLogger("edge_zofc")

SNAPSHOT_SECONDS = 30.0
"""A power cut repeats at most this much work, plus one step."""
MAX_SKIPPED_FRACTION = 0.1
MAX_TOLD_SKIPPED = 1000

Picked = list[tuple[int, Sample]]
"""Pictures of a batch with their positions in the task's training list."""


@dataclass
class Session:
    """One run, opened for learning: its parts and what steers them."""

    bundle: Bundle
    stream: Stream
    folder: Path
    options: Options
    state: RunState
    backbone: Backbone
    journal: Journal
    events: EventLog
    usage: PeakSampler
    max_steps: int | None = None
    on_step: Callable[[Session, float], None] = lambda session, loss: None
    on_task_end: Callable[[Session], None] = lambda session: None
    stop_signal: str | None = None

    def __post_init__(self) -> None:
        self.frozen_theta = self.bundle.initial_adapter()
        self._saved_at = self._clock = time.monotonic()

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
        way_back = len(self.state.progress.tasks) - 2
        more = (
            f", or go back with 'edge-zofc rollback {self.folder} --to-task {way_back}'"
            if way_back >= 0
            else ""
        )
        raise InputError(
            f"The run is in the middle of task {name}, which is no longer in {self.stream.root}; "
            f"put its folder back{more}."
        )

    def distinct_adapters(self) -> list[np.ndarray]:
        """theta, and the initial adapter where it is another one."""
        theta = self.state.adapter.theta
        return [theta] if np.array_equal(theta, self.frozen_theta) else [theta, self.frozen_theta]

    # --- saving and telling -----------------------------------------------------------------------------

    def save(self, task_end: int | None = None) -> None:
        """Write a snapshot; ``task_end`` marks the one that a rollback to this task needs."""
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
            checkpoint.save_task(self.folder / STATE, task_end, found)
        checkpoint.save(self.folder / STATE, found)

    def save_when_due(self) -> None:
        """Write a snapshot if the last one is older than SNAPSHOT_SECONDS."""
        if time.monotonic() - self._saved_at > SNAPSHOT_SECONDS:
            self.save()

    def note(self, text: str) -> None:
        """Tell the user and the event log something that is not an error."""
        log.info(text)
        self.events.write("note", text=text)

    def record(
        self, kind: Kind, applied: np.ndarray | None = None, rate: float = 0.0, step: int | None = None
    ) -> None:
        """Append a journal record (of the present ``step`` unless told); it is on the disk when this returns."""
        values = () if applied is None else tuple(float(value) for value in applied)
        progress = self.state.progress
        number = progress.step if step is None else step
        self.journal.append(Record(kind, len(progress.tasks) - 1, number, rate, values))

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

    # --- diverging --------------------------------------------------------------------------------------

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
            self.state.restore(checkpoint.load_task(self.folder / STATE, before))
        else:
            self.state.restart(self.frozen_theta)
        self.state.progress.head_backend = head_backend
        self.journal.append(Record(Kind.ROLLBACK, before, self.state.progress.step))
        self.save()

    def checkpoint(self) -> None:
        """Raise Stopped if a signal came."""
        if self.stop_signal is not None:
            raise Stopped(self.stop_signal)

    # --- pictures ---------------------------------------------------------------------------------------

    def batch_features(
        self, step: int, wanted: tuple[Query, ...], picked: Picked
    ) -> tuple[np.ndarray, Picked] | None:
        """Features float32 [len(wanted), n, D] of a batch's n readable pictures, and those; None if none is left."""
        while picked:
            try:
                return self._features(step, wanted, picked), picked
            except _Unreadable as lost:
                self.leave_out(lost.position, lost.sample, lost.error)
                picked = [entry for entry in picked if entry[0] != lost.position]
        return None

    def _features(self, step: int, wanted: tuple[Query, ...], picked: Picked) -> np.ndarray:
        load = self.loader(picked)

        def load_or_lose(index: int, out: np.ndarray) -> None:
            try:
                load(index, out)
            except ImageError as error:
                raise _Unreadable(*picked[index], error) from error

        return query_features(
            self.backbone, self.state.adapter, step, wanted, len(picked), load_or_lose, self.checkpoint
        )

    def loader(self, picked: Picked) -> LoadPicture:
        """Fills a place with one of the ``picked`` pictures under the training transform of the present epoch."""
        options, spec = self.options, self.bundle.manifest.image
        task_index, epoch = len(self.state.progress.tasks) - 1, self.state.progress.epoch

        def load(index: int, out: np.ndarray) -> None:
            position, sample = picked[index]
            if options.augment == "crop":
                key = (options.seed, task_index, epoch, position)
                load_train(sample.path, spec, key, normalise=options.normalise, out=out)
            else:
                load_test(sample.path, spec, normalise=options.normalise, out=out)

        return load

    def leave_out(self, position: int, sample: Sample, error: ImageError) -> None:
        """Go on without a picture that could be read when the task began, so that it vanished since.

        Raises InputError as ``check_skipped``.
        """
        self._tell_skipped(sample.path, error)
        task = self.state.current_task
        task.unreadable.append(position)
        task.skipped_images += 1
        self.check_skipped(task.name, task.skipped_images, task.train_images)

    def picked(self, samples: list[Sample], order: np.ndarray) -> Picked:
        """The batch's pictures that could be read so far."""
        unreadable = set(self.state.current_task.unreadable)
        return [(int(i), samples[i]) for i in order if int(i) not in unreadable]

    def reader(
        self, name: str, count: int, skipped_paths: list[Path] | None = None, quiet: bool = False
    ) -> PictureReader:
        """The test transform for the ``count`` pictures of task ``name``.

        An unreadable one is told, unless ``quiet``, and added to ``skipped_paths``. Where far too many are, this gives
        up as ``check_skipped`` does before all 100,000 of them are listed.
        """
        lost = 0

        def skipped(path: Path, error: ImageError) -> None:
            nonlocal lost
            lost += 1
            if not quiet:
                self._tell_skipped(path, error)
                if lost > MAX_TOLD_SKIPPED:
                    self.check_skipped(name, lost, count)
            if skipped_paths is not None:
                skipped_paths.append(path)

        return PictureReader(self.bundle.manifest.image, self.options.normalise, skipped, self.checkpoint)

    def check_still_there(self, count: int) -> None:
        """Raise InputError if more than a tenth of the pictures that the current task began with are gone.

        ``count``: how many are there now. It is the disk that the stream lies on, most likely, and to end the task
        without its pictures would be to forget it.
        """
        task = self.state.current_task
        lost = task.train_images - count
        if lost > MAX_SKIPPED_FRACTION * task.train_images:
            raise InputError(
                f"{lost} of the {task.train_images} pictures that task {task.name} began with are gone or cannot be "
                f"read any more; put them back (is the disk of {self.stream.root} mounted?), then go on with --resume."
            )

    def check_skipped(self, name: str, skipped: int, count: int) -> None:
        """Raise TaskRefusedError if more than a tenth of a task's pictures cannot be read."""
        if skipped > MAX_SKIPPED_FRACTION * count:
            raise TaskRefusedError(
                f"{skipped} of {count} pictures of task {name} cannot be read, more than "
                f"{MAX_SKIPPED_FRACTION:.0%}; see {self.folder / 'events.jsonl'} for each, repair or remove them.",
                name,
            )

    def _tell_skipped(self, path: Path, error: ImageError) -> None:
        log.warning("Left out: %s", error)
        self.events.write("image_skipped", path=str(path), reason=str(error))


class _Unreadable(Exception):  # noqa: N818 - carries a picture, is no error of the run
    def __init__(self, position: int, sample: Sample, error: ImageError) -> None:
        super().__init__(str(error))
        self.position, self.sample, self.error = position, sample, error
