"""ZO-FC on a stream of tasks: zeroth order on the adapter, first order on the head (arXiv 2510.21019).

    for each task:
        begin     class means of the new pictures; new head rows; a new optimiser
        train     for each batch: features under theta and under every perturbed theta (forward passes only),
                  one head step, losses under the *updated* head, one adapter step, one journal record
        finish    accuracy over every class seen, beside the class-mean floor; snapshot; result.json

What may surprise: a step changes nothing before all of its features are there. A signal, a full memory or an
unreadable picture in the middle of it is therefore answered by forgetting the step, and the state that is
saved is always that of a step's end.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_zofc import journal, snapshot
from edge_zofc.backbone import Backbone, BackboneOptions
from edge_zofc.bundle import Bundle
from edge_zofc.errors import DivergedError, DoesNotFitError, ImageError, InputError
from edge_zofc.evaluate import PictureReader, Tally, evaluate_task, feature_sums, floor_head, mean_rows
from edge_zofc.forward import query_features
from edge_zofc.head import cosine_rate
from edge_zofc.images import load_train
from edge_zofc.presets import Options
from edge_zofc.run_folder import FROZEN, STATE, EventLog
from edge_zofc.spsa import BASE, Query, clip, coefficients, queries
from edge_zofc.state import RunState, TaskProgress
from edge_zofc.stream import Sample, Stream, Task, batches, fingerprint, list_samples
from edge_zofc.usage import PeakSampler

log = logging.getLogger("edge_zofc")

SNAPSHOT_SECONDS = 30.0
"""A power cut repeats at most this much work, plus one step."""
MAX_SKIPPED_FRACTION = 0.1


class Stopped(Exception):  # noqa: N818 - not an error: the run was asked to stop and has saved its state
    """Raised between two runs of the graph when a signal or ``max_steps`` asks the run to stop."""


@dataclass
class Learner:
    """One run being learnt: its parts, opened, and what steers them. ``result.py`` turns it into numbers."""

    bundle: Bundle
    stream: Stream
    folder: Path
    options: Options
    state: RunState
    backbone: Backbone
    journal: journal.Journal
    events: EventLog
    usage: PeakSampler
    max_steps: int | None = None
    on_step: Callable[[Learner, float], None] = lambda learner, loss: None
    on_task_end: Callable[[Learner], None] = lambda learner: None
    stop_signal: str | None = None

    def __post_init__(self) -> None:
        self._frozen_theta = self.bundle.initial_adapter()
        self._saved_at = time.monotonic()
        self._clock = time.monotonic()

    def pending_tasks(self) -> list[Task]:
        """Tasks of the stream that this run has not finished, the one being learnt first."""
        finished = {task.name for task in self.state.finished_tasks}
        return [task for task in self.stream.tasks if task.name not in finished]

    def learn(self) -> None:
        """Learn every pending task. Raises Stopped, with the state saved, when asked to stop."""
        try:
            for task in self.pending_tasks():
                if self.state.progress.phase == "idle":
                    self._with_room(lambda task=task: self._begin(task))  # type: ignore[misc]
                if self.state.progress.phase == "training":
                    self._train(task)
                self._with_room(lambda task=task: self._finish(task))  # type: ignore[misc]
        except Stopped as stop:
            self.save()
            self.events.write("stopped", signal=str(stop))
            raise

    # --- one task ---------------------------------------------------------------------------------------

    def _begin(self, task: Task) -> None:
        """Class means of the task's pictures, rows for its new classes, a new optimiser."""
        state, samples = self.state, list_samples(self.stream, task, "train")
        first_new, classes = len(state.progress.class_names), max(task.class_ids) + 1
        classes = max(classes, first_new)
        adapters = self._distinct_adapters()
        sums, counts, unreadable = feature_sums(self.backbone, adapters, samples, classes, self._reader())
        state.progress.floor_forward_passes += len(samples) * (len(adapters) - 1)
        state.progress.forward_passes += len(samples)
        self._check_skipped(task.name, len(unreadable), len(samples))
        means = mean_rows(sums[0], counts)
        random = self.options.head_init == "random"
        rows = self._random_rows(first_new, classes) if random else means[first_new:]
        state.add_classes(list(self.stream.class_names[first_new:classes]), rows)
        if len(task.class_ids) == 1:
            self._set_single_row(task.class_ids[0], first_new, means, counts)
        state.class_sums += sums[-1]
        state.class_counts += counts
        state.progress.tasks.append(
            TaskProgress(
                name=task.name,
                class_ids=list(task.class_ids),
                train_images=len(samples) - len(unreadable),
                skipped_images=len(unreadable),
                fingerprint=fingerprint(self.stream, task),
                unreadable=unreadable,
            )
        )
        state.progress.epoch = state.progress.batch = 0
        state.progress.phase = "trained" if len(task.class_ids) == 1 else "training"
        state.adapter.reset_velocity()
        state.begin_optimiser()
        self._record("task_start", np.zeros(0), 0.0)
        self.events.write(
            "task_started",
            task=len(state.progress.tasks) - 1,
            name=task.name,
            classes=[self.stream.class_names[i] for i in task.class_ids],
            train_images=len(samples) - len(unreadable),
        )
        self.save()

    def _train(self, task: Task) -> None:
        """All remaining epochs of the current task."""
        progress, options = self.state.progress, self.options
        samples = list_samples(self.stream, task, "train")
        task_index = len(progress.tasks) - 1
        while progress.epoch < options.epochs:
            order = batches(len(samples), options.batch_size, options.seed, task_index, progress.epoch)
            while progress.batch < len(order):
                if self.max_steps is not None and progress.step >= self.max_steps:
                    raise Stopped(f"max-steps {self.max_steps} reached")
                step = self._picked(samples, order[progress.batch])
                if step:
                    self._with_room(lambda step=step: self._step(step))  # type: ignore[misc]
                progress.batch += 1
                if time.monotonic() - self._saved_at > SNAPSHOT_SECONDS:
                    self.save()
            progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.phase = "trained"
        self.save()

    def _step(self, picked: list[tuple[int, Sample]]) -> None:
        """One batch: features, head step, losses under the new head, adapter step."""
        options, state = self.options, self.state
        progress, optimiser = state.progress, state.optimiser
        assert optimiser is not None  # noqa: S101 - set with the phase "training"
        started, step = time.monotonic(), progress.step
        trains_head = progress.epoch < options.head_epochs
        base = (BASE,) if trains_head or options.query_form == "one-sided" else ()
        wanted = base + queries(options.query_form, options.queries)

        found = self._batch_features(step, wanted, picked)  # [K, B, D]
        if found is None:
            return
        features, kept = found
        self._check_finite(features, float("nan"))
        labels = np.searchsorted(optimiser.class_ids, [sample.class_id for _, sample in kept])
        if trains_head:
            rate = cosine_rate(options.head_lr, progress.epoch, options.head_epochs)
            optimiser.step(features[0], labels, rate)
        losses = state.head.losses(features, labels, optimiser.class_ids)
        loss = float(losses[0] if base else losses.mean())
        self._check_finite(losses, loss)
        raw = coefficients(options.query_form, losses[len(base) :], loss if base else None, state.adapter.eps)
        applied, norm = clip(state.adapter, step, raw, options.clip_norm or None)
        self._record("step", applied, options.adapter_lr)
        state.adapter.apply(step, applied, options.adapter_lr)

        progress.step += 1
        progress.forward_passes += len(wanted) * len(kept)
        self._count_step(loss, norm, time.monotonic() - started)

    def _finish(self, task: Task) -> None:
        """Evaluate all tasks learnt so far, close the task, save, write the result."""
        progress = self.state.progress
        by_task = self._evaluate()
        total = sum((tally.total for tally in by_task if tally is not None), start=np.zeros(1, np.int64))
        for counts, name in ((progress.learner, "correct"), (progress.floor, "floor_correct")):
            counts.correct.append([None if t is None else int(getattr(t, name).sum()) for t in by_task])
            merged = sum((getattr(t, name) for t in by_task if t is not None), start=np.zeros(1, np.int64))
            counts.correct_by_class = [int(n) for n in merged]
        progress.total_by_class = [int(n) for n in total]
        progress.phase = "idle"
        self.state.optimiser = None
        self._record("task_end", np.zeros(0), 0.0)
        self.events.write(
            "evaluated",
            task=len(progress.tasks) - 1,
            correct=progress.learner.correct[-1],
            total=progress.total,
        )
        self.save(task_end=len(progress.tasks) - 1)
        self.on_task_end(self)

    def _evaluate(self) -> list[Tally | None]:
        """A tally for each task learnt so far; None where its pictures are no longer in the stream."""
        progress, by_name = self.state.progress, {task.name: task for task in self.stream.tasks}
        floor = floor_head(self.state.class_sums, self.state.class_counts)
        tallies: list[Tally | None] = []
        for index, learnt in enumerate(progress.tasks):
            task = by_name.get(learnt.name)
            samples = [] if task is None else list_samples(self.stream, task, "test")
            if task is None:
                self.note(
                    f"task {learnt.name} is no longer in the stream: its accuracy is not measured again."
                )
                tallies.append(None)
                continue
            skipped: list[Path] = []
            cache = self.folder / FROZEN / f"{index:03d}-{fingerprint(self.stream, task)[:16]}.f32"
            tally = evaluate_task(
                self.backbone, self.state.head, self.state.adapter.theta, floor, self._frozen_theta,
                samples, cache, self._reader(skipped if index == len(progress.tasks) - 1 else None),
            )  # fmt: skip
            self._check_skipped(learnt.name, len(skipped), len(samples))
            tallies.append(tally)
        for index, measured in enumerate(tallies):
            if measured is None:
                continue
            progress.evaluation_forward_passes += measured.forward_passes
            progress.floor_forward_passes += measured.floor_forward_passes
            count = int(measured.total.sum())
            if index == len(progress.total):
                progress.total.append(count)
                progress.tasks[index].test_images = count
            elif count != progress.total[index]:
                # Right answers out of another number of pictures do not belong into the same column.
                self.note(
                    f"the test pictures of task {progress.tasks[index].name} changed: not measured again."
                )
                tallies[index] = None
        return tallies

    # --- helpers ----------------------------------------------------------------------------------------

    def save(self, task_end: int | None = None) -> None:
        """Write a snapshot; ``task_end`` marks the one that a rollback to this task needs."""
        progress = self.state.progress
        now = time.monotonic()
        progress.seconds += now - self._clock
        self._clock = self._saved_at = now
        peak = self.usage.peak()
        progress.peak_rss_bytes = max(progress.peak_rss_bytes, peak.rss_bytes)
        progress.peak_anonymous_bytes = _larger(progress.peak_anonymous_bytes, peak.anonymous_bytes)
        progress.peak_file_bytes = _larger(progress.peak_file_bytes, peak.file_bytes)
        progress.journal_records = self.journal.records
        found = self.state.to_snapshot()
        if task_end is not None:
            # First this one: after a cut in between, the task is finished again and both are written.
            snapshot.save_task(self.folder / STATE, task_end, found)
        snapshot.save(self.folder / STATE, found)

    def note(self, text: str) -> None:
        """Tell the user and the event log something that is not an error."""
        log.info(text)
        self.events.write("note", text=text)

    def _record(self, kind: str, applied: np.ndarray, rate: float) -> None:
        task, step = len(self.state.progress.tasks) - 1, self.state.progress.step
        values = tuple(float(value) for value in applied)
        self.journal.append(journal.Record(journal.Kind[kind.upper()], task, step, rate, values))

    def _count_step(self, loss: float, norm: float, seconds: float) -> None:
        task = self.state.current_task
        task.steps += 1
        task.seconds += seconds
        task.last_loss = loss
        if task.first_loss is None:
            task.first_loss = loss
        now = self.usage.now()
        self.events.write(
            "step",
            task=len(self.state.progress.tasks) - 1,
            epoch=self.state.progress.epoch,
            step=self.state.progress.step,
            loss=loss,
            gradient_norm=norm,
            seconds=round(seconds, 4),
            rss_mib=_mib(now.rss_bytes),
            anonymous_mib=_mib(now.anonymous_bytes),
            file_mib=_mib(now.file_bytes),
        )
        self.on_step(self, loss)

    def _batch_features(
        self, step: int, wanted: tuple[Query, ...], picked: list[tuple[int, Sample]]
    ) -> tuple[np.ndarray, list[tuple[int, Sample]]] | None:
        """Features of the batch's readable pictures; None if none can be read any more."""
        progress, options, spec = self.state.progress, self.options, self.bundle.manifest.image
        task_index = len(progress.tasks) - 1

        def load(index: int, out: np.ndarray) -> None:
            position, sample = picked[index]
            key = (options.seed, task_index, progress.epoch, position)
            try:
                load_train(sample.path, spec, key, normalise=options.normalise, out=out)
            except ImageError as error:
                raise _Unreadable(position, sample, error) from error

        while picked:
            try:
                features = query_features(
                    self.backbone, self.state.adapter, step, wanted, len(picked), load, self._checkpoint
                )
                return features, picked
            except _Unreadable as lost:
                # It could be read when the task began, so it vanished since: the batch goes on without it.
                self._tell_skipped(lost.sample.path, lost.error)
                task = self.state.current_task
                task.unreadable.append(lost.position)
                task.skipped_images += 1
                self._check_skipped(task.name, task.skipped_images, task.train_images)
                picked = [entry for entry in picked if entry[0] != lost.position]
        return None

    def _check_finite(self, values: np.ndarray, loss: float) -> None:
        if not np.isfinite(values).all():
            raise DivergedError(
                f"The loss of step {self.state.progress.step} is {loss}; use a smaller --adapter-lr or --head-lr "
                f"(now {self.options.adapter_lr} and {self.options.head_lr})."
            )

    def _picked(self, samples: list[Sample], order: np.ndarray) -> list[tuple[int, Sample]]:
        unreadable = set(self.state.current_task.unreadable)
        return [(int(i), samples[i]) for i in order if int(i) not in unreadable]

    def _with_room(self, work: Callable[[], None]) -> None:
        """Do ``work``; when memory runs out, halve the micro-batch and do it again."""
        while True:
            try:
                return work()
            except MemoryError as error:
                old = self.backbone.options
                smaller = _smaller(old)
                if smaller is None:
                    self.save()
                    raise DoesNotFitError(
                        f"An allocation failed with one picture and one adapter at a time ({error}); the state is "
                        "saved: give a larger --memory-budget, or export with a smaller precision or image size."
                    ) from error
                self.events.write(
                    "micro_batch_halved",
                    **{"from": old.micro_batch, "to": smaller.micro_batch},
                    reason=str(error) or "out of memory",
                )
                log.warning("Memory ran out: going on with micro-batch %d.", smaller.micro_batch)
                self.backbone.close()
                self.backbone = Backbone(self.bundle, smaller)

    def _checkpoint(self) -> None:
        if self.stop_signal is not None:
            raise Stopped(self.stop_signal)

    def _reader(self, skipped_paths: list[Path] | None = None) -> PictureReader:
        """The test transform. Unreadable pictures are told (or, given a list, told and collected) once."""

        def skipped(path: Path, error: ImageError) -> None:
            self._tell_skipped(path, error)
            if skipped_paths is not None:
                skipped_paths.append(path)

        return PictureReader(self.bundle.manifest.image, self.options.normalise, skipped, self._checkpoint)

    def _tell_skipped(self, path: Path, error: ImageError) -> None:
        log.warning("Left out: %s", error)
        self.events.write("image_skipped", path=str(path), reason=str(error))

    def _check_skipped(self, name: str, skipped: int, count: int) -> None:
        if skipped > MAX_SKIPPED_FRACTION * count:
            raise InputError(
                f"{skipped} of {count} pictures of task {name} cannot be read, more than "
                f"{MAX_SKIPPED_FRACTION:.0%}; see {self.folder / 'events.jsonl'} for each, repair or remove them."
            )

    def _distinct_adapters(self) -> list[np.ndarray]:
        theta = self.state.adapter.theta
        same = np.array_equal(theta, self._frozen_theta)
        return [theta] if same else [theta, self._frozen_theta]

    def _random_rows(self, first: int, end: int) -> np.ndarray:
        """Rows U(-1/sqrt D, 1/sqrt D), as the paper draws them, from (seed, class id)."""
        size = self.bundle.manifest.feature_size
        rows = np.empty((end - first, size), np.float32)
        for class_id in range(first, end):
            words = np.random.Philox(key=[self.options.seed, 1 << 32 | class_id]).random_raw(size)
            rows[class_id - first] = ((words >> np.uint64(11)) * 2.0**-53 * 2 - 1) / math.sqrt(size)
        return rows

    def _set_single_row(self, class_id: int, first_new: int, means: np.ndarray, counts: np.ndarray) -> None:
        """A task with one class has a constant local loss: nothing to descend, its row is a class mean.

        For a class that was there before, the row moves towards the new pictures by their share.
        """
        if class_id >= first_new:
            self.state.head.rows[class_id] = means[class_id]
        else:
            old, new = int(self.state.class_counts[class_id]), int(counts[class_id])
            row = self.state.head.rows[class_id]
            length = np.linalg.norm(row)
            mixed = (old * row / max(length, 1e-12) + new * means[class_id]) / max(old + new, 1)
            self.state.head.rows[class_id] = mixed * length
        name = self.stream.class_names[class_id]
        self.note(
            f"The task has the single class {name}: its row is the class mean, the adapter is not trained."
        )


class _Unreadable(Exception):  # noqa: N818 - carries a picture, is no error of the run
    def __init__(self, position: int, sample: Sample, error: ImageError) -> None:
        super().__init__(str(error))
        self.position, self.sample, self.error = position, sample, error


def _smaller(options: BackboneOptions) -> BackboneOptions | None:
    """Half the adapters in flight once the micro-batch is 1, half the micro-batch before; None at 1 and 1."""
    if options.micro_batch > 1:
        return replace(options, micro_batch=options.micro_batch // 2)
    if options.parallel_adapters > 1:
        return replace(options, parallel_adapters=1)
    return None


def _larger(old: int | None, new: int | None) -> int | None:
    return new if old is None else old if new is None else max(old, new)


def _mib(count: int | None) -> float | None:
    return None if count is None else round(count / 2**20, 2)
