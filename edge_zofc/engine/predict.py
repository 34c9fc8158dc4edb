"""Using what a run has learnt: name pictures, measure accuracy on a stream.

What may surprise: a run is opened read-only and without its lock, from its newest snapshot, so a camera can
go on naming pictures while another process learns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.heads import Head
from edge_zofc.algorithm.metrics import mean_per_class_accuracy
from edge_zofc.data.stream import Sample, list_samples, read_stream
from edge_zofc.device.memory_limit import give_freed_memory_back
from edge_zofc.engine.state import RunState
from edge_zofc.errors import ImageError, InputError
from edge_zofc.inference.backbone import Backbone, BackboneOptions
from edge_zofc.inference.features import readable_features
from edge_zofc.inference.transforms import load_test
from edge_zofc.storage import checkpoint
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.run_folder import STATE, Settings, read_settings


@dataclass(frozen=True)
class Learned:
    """A run opened for use: theta float32 [P] (``adapter``), head rows [C, D], class names [C]."""

    bundle: Bundle
    settings: Settings
    adapter: np.ndarray
    head: Head
    class_names: tuple[str, ...]

    @property
    def normalise(self) -> bool:
        """Whether pictures are normalised with the backbone's mean and standard deviation."""
        return self.settings.run_options().normalise


@dataclass(frozen=True)
class Guess:
    """One class for one picture; ``probability`` is the head's softmax over all classes."""

    class_name: str
    probability: float


@dataclass(frozen=True)
class TaskAccuracy:
    """Right answers on one task's test pictures; None where it has none that can be judged."""

    name: str
    correct: int
    total: int
    accuracy: float | None


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of a run on a stream's test pictures, over every class the run has seen."""

    tasks: tuple[TaskAccuracy, ...]
    accuracy: float | None
    mean_per_class_accuracy: float | None
    skipped_images: int
    unknown_classes: tuple[str, ...]


def run_bundle(settings: Settings, folder: Path | None) -> Bundle:
    """The bundle of a run, from ``folder`` or from where it was. Raises InputError if it is another one."""
    where = folder or Path(settings.bundle_folder)
    bundle = read_bundle(where)
    if bundle.identity != settings.bundle_identity:
        raise InputError(
            f"The run was learnt with another bundle than {where} (its bundle.json has SHA-256 "
            f"{settings.bundle_identity[:12]}..., this one {bundle.identity[:12]}...); "
            "name the right one with --bundle."
        )
    return bundle


def open_learned(run: Path, bundle_folder: Path | None = None) -> Learned:
    """Open a run's newest snapshot. Raises InputError if nothing was learnt yet."""
    settings = read_settings(run)
    bundle = run_bundle(settings, bundle_folder)
    state = RunState.of(bundle, settings.run_options())
    found = checkpoint.load_latest(run / STATE)
    if found is not None:
        state.restore(found.snapshot)
    if not state.progress.class_names:
        raise InputError(
            f"The run in {run} has learnt no class yet; go on with 'edge-zofc learn --run {run}'."
        )
    return Learned(bundle, settings, state.adapter.theta, state.head, tuple(state.progress.class_names))


def open_backbone(learned: Learned, threads: int, micro_batch: int | None = None) -> Backbone:
    """A session with the settings of the run's own, one adapter at a time, as thrifty as the run's."""
    execution = learned.settings.execution
    if not execution.arena:
        give_freed_memory_back()
    options = BackboneOptions(
        micro_batch=micro_batch or execution.micro_batch,
        threads=threads,
        prepacking=execution.prepacking,
        arena=execution.arena,
    )
    return Backbone(learned.bundle, options)


def predict(
    learned: Learned, backbone: Backbone, pictures: Sequence[Path], top: int
) -> list[list[Guess] | ImageError]:
    """The ``top`` most probable classes of each picture, best first, or why it could not be read."""
    results: list[list[Guess] | ImageError] = [[] for _ in pictures]
    spec = learned.bundle.manifest.image

    def load(index: int, out: np.ndarray) -> None:
        load_test(pictures[index], spec, normalise=learned.normalise, out=out)

    def skipped(index: int, error: ImageError) -> None:
        results[index] = error

    parts = readable_features(backbone, [learned.adapter], len(pictures), load, skipped, lambda: None)
    for indices, features in parts:
        for index, row in zip(indices, learned.head.probabilities(features[0]), strict=True):
            order = np.argsort(-row, kind="stable")[:top]
            results[index] = [Guess(learned.class_names[i], float(row[i])) for i in order]
    return results


def evaluate(
    learned: Learned, backbone: Backbone, stream_folder: Path, tell: Callable[[str], None]
) -> Evaluation:
    """Accuracy on each task of a stream; pictures of classes that the run has not seen are left out, and said so."""
    stream = read_stream(stream_folder, learned.class_names)
    classes = len(learned.class_names)
    correct, total = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    tasks, skipped = [], 0
    unknown: set[int] = set()
    for task in stream.tasks:
        listed = list_samples(stream, task, "test")
        samples = [sample for sample in listed if sample.class_id < classes]
        unknown |= {sample.class_id for sample in listed if sample.class_id >= classes}
        right, seen, lost = _count(learned, backbone, samples, tell)
        skipped += lost
        correct += right
        total += seen
        tasks.append(_task_accuracy(task.name, int(right.sum()), int(seen.sum())))
    whole = _task_accuracy("", int(correct.sum()), int(total.sum()))
    by_class = mean_per_class_accuracy([int(n) for n in correct], [int(n) for n in total])
    names = tuple(stream.class_names[index] for index in sorted(unknown))
    return Evaluation(tuple(tasks), whole.accuracy, by_class, skipped, names)


def _count(
    learned: Learned, backbone: Backbone, samples: list[Sample], tell: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray, int]:
    classes, lost = len(learned.class_names), 0
    right, seen = np.zeros(classes, np.int64), np.zeros(classes, np.int64)

    def load(index: int, out: np.ndarray) -> None:
        load_test(samples[index].path, learned.bundle.manifest.image, normalise=learned.normalise, out=out)

    def skipped(index: int, error: ImageError) -> None:
        nonlocal lost
        lost += 1
        tell(f"Left out: {error}")

    parts = readable_features(backbone, [learned.adapter], len(samples), load, skipped, lambda: None)
    for indices, features in parts:
        labels = np.array([samples[index].class_id for index in indices])
        guesses = learned.head.logits(features[0]).argmax(axis=-1)
        seen += np.bincount(labels, minlength=classes)
        right += np.bincount(labels[guesses == labels], minlength=classes)
    return right, seen, lost


def _task_accuracy(name: str, correct: int, total: int) -> TaskAccuracy:
    return TaskAccuracy(name, correct, total, correct / total if total else None)
