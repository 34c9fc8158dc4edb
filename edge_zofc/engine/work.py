"""How much a run has to compute, in image-forwards (pictures x adapters through the graph), and how long that takes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.options import Options
from edge_zofc.algorithm.spsa import queries
from edge_zofc.data.stream import PARTS, Stream, Task, list_samples
from edge_zofc.engine.pictures import PictureReader
from edge_zofc.engine.pixel_store import Picture
from edge_zofc.engine.progress import RunProgress
from edge_zofc.engine.trainer import TaskSize, Trainer
from edge_zofc.engine.tuned_start import chooses, is_open
from edge_zofc.errors import ImageError
from edge_zofc.inference.backbone import Backbone
from edge_zofc.inference.transforms import load_test
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.result import LearnCost
from edge_zofc.storage.settings import Placement

log = logging.getLogger("edge_zofc")

GRADIENT_FORWARDS = 4
"""What a picture's way back to the adapter counts as, in image-forwards: three to five times as long as one."""
TIMED_PICTURES = 64
TIMED_FORWARDS = 10
"""Runs of the graph that a prediction of time is made from."""


def survey(stream: Stream, tasks: Sequence[Task]) -> tuple[tuple[TaskSize, ...], list[Path]]:
    """The size of each of these tasks, and some train pictures of each, spread evenly; folders are listed once."""
    sizes, spread = [], list[Path]()
    for task in tasks:
        train, test = (list_samples(stream, task, part) for part in PARTS)
        sizes.append(TaskSize(len(task.class_ids), len(train), len(test)))
        spread += [sample.path for sample in train[:: max(1, len(train) // TIMED_PICTURES)]]
    return tuple(sizes), spread


def task_sizes(stream: Stream, tasks: Sequence[Task]) -> tuple[TaskSize, ...]:
    """The size of each of these tasks."""
    return survey(stream, tasks)[0]


def step_forwards(options: Options) -> int:
    """Image-forwards of one picture in the steps of all epochs, or in one step by episodes."""
    if options.estimator == "exact":
        return (1 + GRADIENT_FORWARDS) * (1 if options.loss == "episodic" else options.epochs)
    has_base = options.query_form == "one-sided" or options.optimizer == "conserve"
    each = len(queries(options.query_form, options.queries)) + (2 if options.optimizer == "conserve" else 0)
    if options.loss == "episodic":
        return each + 1
    with_base = options.epochs if has_base else options.head_epochs if options.head == "cosine" else 0
    return options.epochs * each + with_base


def training_forwards(options: Options, index: int, size: TaskSize) -> int:
    """Image-forwards of the steps of task number ``index``, at most."""
    if not options.moves_in(index, size.classes):
        return 0
    pictures = size.train_images
    if options.loss == "episodic":
        pictures = options.steps_of(pictures) * options.batch_size
    return pictures * step_forwards(options)


def task_forwards(options: Options, index: int, size: TaskSize, tested_before: int, has_moved: bool) -> int:
    """Image-forwards of task number ``index``, at most: its beginning, steps, refresh and evaluation.

    ``tested_before`` are the test pictures of the earlier tasks; ``has_moved`` whether theta left its initial values.
    """
    steps = training_forwards(options, index, size)
    moves = has_moved or steps > 0
    begin = size.train_images * (2 if has_moved else 1)
    refresh = size.train_images if options.head == "lda" and steps else 0
    evaluation = size.test_images * (2 if moves else 1) + (tested_before if steps else 0)
    return begin + steps + refresh + evaluation


def run_forwards(
    options: Options, sizes: Sequence[TaskSize], learnt: int = 0, tested_before: int = 0, has_moved: bool = False
) -> list[int]:
    """Image-forwards of each task of a run, in order; ``learnt`` tasks lie before the first."""
    found = []
    for index, size in enumerate(sizes, learnt):
        found.append(task_forwards(options, index, size, tested_before, has_moved))
        tested_before += size.test_images
        has_moved = has_moved or training_forwards(options, index, size) > 0
    return found


def forwards_left(trainer: Trainer) -> int:
    """Image-forwards that the pending tasks still take, at most. The stream is listed once."""
    state, options = trainer.state, trainer.options
    progress, pending = state.progress, trainer.pending_tasks()
    if progress.tasks and progress.tasks[0].is_roomy:
        options = replace(options, adapter="off")
    if trainer.sized is None or trainer.sized[0] is not trainer.stream:
        tasks = trainer.stream.tasks
        named = zip(tasks, task_sizes(trainer.stream, tasks), strict=True)
        trainer.sized = trainer.stream, {task.name: size for task, size in named}
    sizes = [trainer.sized[1][task.name] for task in pending]
    learnt, tested = len(state.finished_tasks), sum(task.test_images for task in state.finished_tasks)
    left = sum(run_forwards(options, sizes, learnt, tested, len(trainer.distinct_adapters()) > 1))
    if sizes and is_open(trainer):
        left += sizes[0].train_images
    if progress.phase == "idle" or not sizes:
        return left
    whole = training_forwards(options, learnt, sizes[0])
    done = 1.0 if progress.phase == "trained" else _share_done(options, progress, sizes[0])
    return left - sizes[0].train_images - int(done * whole)


def _share_done(options: Options, progress: RunProgress, size: TaskSize) -> float:
    """Of the steps of the task at work."""
    if options.loss == "episodic":
        return progress.batch / max(options.steps_of(size.train_images), 1)
    done = progress.epoch * size.train_images + progress.batch * options.batch_size
    return done / max(options.epochs * size.train_images, 1)


@dataclass
class Forecast:
    """What a ``learn`` will take, told as it begins, and what it has taken so far.

    ``image_forwards`` at most. ``seconds`` is None until ten runs of the graph have been timed, so that nothing is
    computed for its sake; the first run of a session is slower and does not count.
    """

    image_forwards: int
    seconds: float | None = None
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    _runs: int = 0
    _timed_from: tuple[float, int] = (0.0, 0)

    def count(self, image_forwards: int) -> None:
        """So many image-forwards were done in one go."""
        self.done += image_forwards
        self._runs += 1
        if self._runs == 1:
            self._timed_from = time.monotonic(), self.done
        elif self._runs == TIMED_FORWARDS + 1:
            each = (time.monotonic() - self._timed_from[0]) / max(self.done - self._timed_from[1], 1)
            self.seconds = self.image_forwards * each
            log.info("predicted: at most %.1f minutes, %.1f ms an image-forward", self.seconds / 60, 1000 * each)

    def cost(self) -> LearnCost:
        """For ``result.json``."""
        return LearnCost(
            predicted_image_forwards=self.image_forwards,
            predicted_seconds=self.seconds,
            image_forwards=self.done,
            seconds=time.monotonic() - self.began,
        )


@dataclass(frozen=True)
class TimePlan:
    """How long learning a stream takes: image-forwards and gradient passes, at most, and seconds here (None: no picture
    can be read).
    """

    image_forwards: int
    gradient_passes: int
    seconds_a_forward: float | None
    seconds_a_gradient: float | None
    seconds: float | None


@dataclass(frozen=True)
class Paces:
    """Seconds of one image-forward and of one gradient pass here, decoding included; None where it is not known."""

    forward: float | None
    gradient: float | None


def predict_time(options: Options, sizes: Sequence[TaskSize], paces: Paces, bundle: Bundle) -> TimePlan:
    """The time of a new run over tasks of these ``sizes`` (from ``survey``), at the ``paces`` of ``measure_paces``."""
    units, gradients = sum(run_forwards(options, sizes)), 0
    if sizes and chooses(options, bundle):
        units += sizes[0].train_images
    if options.estimator == "exact":
        steps = sum(training_forwards(options, index, size) for index, size in enumerate(sizes))
        gradients = steps // (1 + GRADIENT_FORWARDS)
    forwards, seconds = units - GRADIENT_FORWARDS * gradients, None
    if paces.forward is not None and (paces.gradient is not None or not gradients):
        seconds = forwards * paces.forward + gradients * (paces.gradient or 0.0)
    return TimePlan(forwards, gradients, paces.forward, paces.gradient if gradients else None, seconds)


def measure_paces(bundle: Bundle, placement: Placement, some: Sequence[Path], exact: bool) -> Paces:
    """From a few runs of the graphs on ``some`` pictures of a stream (from ``survey``); ``exact``: of both graphs."""
    paths = some[:: max(1, len(some) // TIMED_PICTURES)]
    gradient = seconds_a_gradient(bundle, placement, paths) if exact else None
    return Paces(seconds_a_forward(bundle, placement, paths), gradient)


def seconds_a_forward(bundle: Bundle, placement: Placement, paths: Sequence[Path]) -> float | None:
    """Seconds of one image-forward here, decoding included: ten runs of the graph on ``paths``, repeated if need be.

    None where no picture can be read.
    """
    backbone = Backbone(bundle, placement)
    adapters = [bundle.initial_adapter()] * placement.parallel_queries
    reader = PictureReader(bundle.manifest.image, True, lambda index, path, error: None)
    wanted = (TIMED_FORWARDS + 1) * placement.micro_batch if paths else 0
    parts = reader.features(backbone, adapters, [Picture(paths[index % len(paths)]) for index in range(wanted)])
    if next(parts, None) is None:  # the first run of a session is slower
        return None
    started = time.perf_counter()
    done = sum(len(indices) for indices, _ in parts)
    return (time.perf_counter() - started) / (done * len(adapters)) if done else None


def seconds_a_gradient(bundle: Bundle, placement: Placement, paths: Sequence[Path]) -> float | None:
    """Seconds of one gradient pass here, decoding included; None where no picture can be read."""
    backbone, theta = Backbone(bundle, placement, goes_back=True), bundle.initial_adapter()
    towards, done, started = np.ones(bundle.manifest.feature_size, np.float32), -1, 0.0
    for path in paths:
        try:
            load_test(path, bundle.manifest.image, normalise=True, out=backbone.gradient_image[0])
        except ImageError:
            continue
        backbone.gradient(theta, towards)
        done += 1
        if done == 0:  # the first run of a session is slower
            started = time.perf_counter()
        elif done == TIMED_FORWARDS:
            break
    return (time.perf_counter() - started) / done if done > 0 else None
