"""How much a run has to compute, in image-forwards (pictures x adapters through the graph), and how long that takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_zofc.algorithm.options import Options
from edge_zofc.algorithm.spsa import queries
from edge_zofc.data.stream import PARTS, Stream, Task, list_samples
from edge_zofc.engine.pictures import PictureReader
from edge_zofc.engine.pixel_store import Picture
from edge_zofc.engine.trainer import Trainer
from edge_zofc.inference.backbone import Backbone
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.settings import Placement

TIMED_PICTURES = 64
TIMED_FORWARDS = 10
"""Runs of the graph that a prediction of time is made from."""


@dataclass(frozen=True)
class TaskSize:
    """One task of a stream: new and old classes together, pictures to learn from and to test with."""

    classes: int
    train_images: int
    test_images: int


def task_sizes(stream: Stream, tasks: Sequence[Task]) -> tuple[TaskSize, ...]:
    """The size of each of these tasks."""
    return tuple(
        TaskSize(len(task.class_ids), *(len(list_samples(stream, task, part)) for part in PARTS)) for task in tasks
    )


def step_forwards(options: Options) -> int:
    """Image-forwards of one picture in the steps of all epochs."""
    always = options.query_form == "one-sided" or options.optimizer == "conserve"
    with_base = options.epochs if always else options.head_epochs if options.head == "cosine" else 0
    second_look = 2 * options.epochs if options.optimizer == "conserve" else 0
    return options.epochs * len(queries(options.query_form, options.queries)) + with_base + second_look


def task_forwards(options: Options, size: TaskSize, tested_before: int, has_moved: bool) -> int:
    """Image-forwards of one task, at most: its beginning, steps, refresh and evaluation.

    ``tested_before`` are the test pictures of the earlier tasks; ``has_moved`` whether theta left its initial values.
    """
    steps = step_forwards(options) if size.classes > 1 else 0
    moves = has_moved or steps > 0
    begin = size.train_images * (2 if has_moved else 1)
    refresh = size.train_images if options.head == "lda" and steps else 0
    evaluation = size.test_images * (2 if moves else 1) + (tested_before if steps else 0)
    return begin + size.train_images * steps + refresh + evaluation


def run_forwards(
    options: Options, sizes: Sequence[TaskSize], tested_before: int = 0, has_moved: bool = False
) -> list[int]:
    """Image-forwards of each task of a run, in order."""
    found = []
    for size in sizes:
        found.append(task_forwards(options, size, tested_before, has_moved))
        tested_before += size.test_images
        has_moved = has_moved or (size.classes > 1 and step_forwards(options) > 0)
    return found


def forwards_left(trainer: Trainer, by_name: Mapping[str, TaskSize]) -> int:
    """Image-forwards that the pending tasks, whose sizes are given ``by_name``, still take, at most."""
    state, options = trainer.state, trainer.options
    progress, pending = state.progress, trainer.pending_tasks()
    sizes = [by_name[task.name] for task in pending]
    tested = sum(task.test_images for task in state.finished_tasks)
    left = sum(run_forwards(options, sizes, tested, len(trainer.distinct_adapters()) > 1))
    if progress.phase == "idle" or not sizes:
        return left
    done = progress.epoch * sizes[0].train_images + progress.batch * options.batch_size
    share = 1.0 if progress.phase == "trained" else done / max(options.epochs * sizes[0].train_images, 1)
    return left - sizes[0].train_images - int(share * sizes[0].train_images * step_forwards(options))


@dataclass(frozen=True)
class TimePlan:
    """How long learning a stream takes: image-forwards, at most, and seconds here (None: no picture can be read)."""

    image_forwards: int
    seconds_a_forward: float | None
    seconds: float | None


def predict_time(
    bundle: Bundle, options: Options, placement: Placement, stream: Stream, sizes: Sequence[TaskSize]
) -> TimePlan:
    """The time of a new run over the stream, whose tasks have ``sizes``, from a few forwards on its pictures.

    Raises InputError.
    """
    forwards = sum(run_forwards(options, sizes))
    samples = [sample for task in stream.tasks for sample in list_samples(stream, task, "train")]
    spread = samples[:: max(1, len(samples) // TIMED_PICTURES)]
    each = seconds_a_forward(bundle, placement, [sample.path for sample in spread])
    return TimePlan(forwards, each, None if each is None else forwards * each)


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
