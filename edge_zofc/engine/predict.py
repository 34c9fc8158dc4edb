"""Using what a run has learnt: name pictures, measure accuracy on a stream.

A run is opened read-only and without its lock, from its newest checkpoint, so a camera can go on naming pictures while
another process learns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.heads import Head
from edge_zofc.algorithm.likeness import WITHOUT, Likeness
from edge_zofc.algorithm.metrics import mean_per_class_accuracy
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.data.folders import LeftOuts, all_pictures
from edge_zofc.data.stream import Sample, list_samples, read_stream
from edge_zofc.device.memory_limit import give_freed_memory_back
from edge_zofc.engine.evaluation import count_right, labels_of
from edge_zofc.engine.pictures import PictureReader
from edge_zofc.engine.pixel_store import Picture
from edge_zofc.engine.taught_run import TaughtRun
from edge_zofc.errors import ImageError, InputError, shown
from edge_zofc.inference.backbone import Backbone
from edge_zofc.storage.bundle import BUNDLE_FOLDER, Bundle, has_identity, read_bundle
from edge_zofc.storage.fleet_folder import FleetFolder, Merged
from edge_zofc.storage.manifest import MANIFEST
from edge_zofc.storage.reading import is_there
from edge_zofc.storage.run_folder import RunFolder
from edge_zofc.storage.settings import Settings


@dataclass(frozen=True)
class TrainedRun:
    """A run or a fleet opened for use: theta float32 [P] (``adapter``), head rows [C, D], class names [C]."""

    bundle: Bundle
    settings: Settings
    adapter: np.ndarray
    head: Head
    class_names: tuple[str, ...]
    statistics: Statistics
    """Sums and counts by class, which likeness is measured from."""
    limit: float | None
    """The likeness below which a picture is unknown; None where it was not asked for."""

    @property
    def normalise(self) -> bool:
        """Whether pictures are normalised with the backbone's mean and standard deviation."""
        return self.settings.options.normalise

    def reader(self, skipped: Callable[[int, Path, ImageError], None]) -> PictureReader:
        """How pictures are read for it; ``skipped`` is told of those that cannot be."""
        return PictureReader(self.bundle.manifest.image, self.normalise, skipped)


@dataclass(frozen=True)
class Guess:
    """One class for one picture. ``probability`` is the head's softmax over the known classes: no measure of whether
    the thing is any of them. ``likeness``: cosine to the class mean, -1 to 1.
    """

    class_name: str
    probability: float
    likeness: float


@dataclass(frozen=True)
class Named:
    """The most probable classes of a picture, best first, its likeness to the nearest class, and the limit below which
    it is none of them.
    """

    guesses: tuple[Guess, ...]
    likeness: float
    limit: float

    @property
    def unknown(self) -> bool:
        """Whether it is like no class."""
        return self.likeness < self.limit


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


def run_bundle(run: RunFolder | FleetFolder, settings: Settings, folder: Path | None) -> Bundle:
    """The bundle of a run or a fleet, from ``folder`` or from the first place that has it: beside the run, where it
    was, ./bundle.

    Raises InputError if it is nowhere or another one, else as ``read_bundle``.
    """
    kind = "fleet" if isinstance(run, FleetFolder) else "run"
    beside, kept = settings.bundle_places(run.path)
    places = (beside, kept, Path(BUNDLE_FOLDER))
    where = folder or next((place for place in places if has_identity(place, settings.bundle_identity)), kept)
    if folder is None and not is_there(where / MANIFEST):
        raise InputError(
            f"The bundle of the {kind} in {run.path} is neither beside it nor in {kept}; say where it is with --bundle."
        )
    bundle = read_bundle(where).with_identity(settings.bundle_identity)
    if bundle.identity != settings.bundle_identity:
        raise InputError(
            f"The {kind} was learnt with another bundle than {where} (its identity is "
            f"{settings.bundle_identity[:12]}..., this one {bundle.identity[:12]}...); "
            "name the right one with --bundle."
        )
    return bundle


def run_and_pictures(words: Sequence[Path], default_run: Path) -> tuple[Path, list[Path], list[str]]:
    """What ``predict [RUN] PICTURE|FOLDER...`` names: a run, the default one if none is named, and pictures.

    A folder stands for the pictures in it and below it; what is left out of it is in the notes, the third part.
    Raises InputError where there is neither a run nor a picture.
    """
    run, named = (words[0], words[1:]) if _is_learnt(words[0]) else (default_run, words)
    if not _is_learnt(run):
        raise InputError(f"There is no run in {shown(words[0])} or {run}; name one: edge-zofc predict RUN PICTURE.")
    if not named:
        raise InputError(f"No picture is named; write edge-zofc predict {shown(run)} PICTURE.")
    pictures, left = list[Path](), LeftOuts()
    for path in named:
        found = all_pictures(path, left) if path.is_dir() else [path]
        if not found:
            raise InputError(f"{shown(path)} is a folder without a picture; name pictures or a folder of them.")
        pictures += found
    return run, pictures, left.notes()


def _is_learnt(folder: Path) -> bool:
    return RunFolder(folder).is_run() or FleetFolder(folder).is_fleet()


def open_run(folder: Path, bundle_folder: Path | None = None, *, needs_limit: bool = False) -> TrainedRun:
    """Open a run's newest checkpoint, with what was shown since, or a fleet's shares as one.

    ``needs_limit``: measure the limit of likeness, from the features that the run keeps. Raises InputError if nothing
    is known yet.
    """
    if FleetFolder(folder).is_fleet():
        return _open_fleet(FleetFolder(folder), bundle_folder)
    run = RunFolder(folder)
    settings = run.settings()
    bundle = run_bundle(run, settings, bundle_folder)
    with closing(TaughtRun(run, bundle, settings)) as taught:
        if not taught.class_names:
            raise InputError(f"The run in {folder} knows no class yet; go on with 'edge-zofc learn --run {folder}'.")
        limit = taught.limit if needs_limit else None
        return TrainedRun(bundle, settings, taught.theta, taught.head, taught.class_names, taught.statistics, limit)


def _open_fleet(fleet: FleetFolder, bundle_folder: Path | None) -> TrainedRun:
    bundle = run_bundle(fleet, fleet.about().settings(), bundle_folder)
    return open_merged(fleet.in_force().merged(), bundle, fleet.adapter(bundle))


def open_merged(merged: Merged, bundle: Bundle, theta: np.ndarray) -> TrainedRun:
    """Shares as one head, for use with the adapter ``theta`` float32 [P]. Raises DamagedFileError if they have none."""
    settings, names = merged.about.settings(), merged.class_names
    # Whoever merged shares has no picture to measure a limit on.
    return TrainedRun(bundle, settings, theta, merged.head(), names, merged.statistics, WITHOUT)


def open_backbone(trained: TrainedRun, threads: int, micro_batch: int | None = None) -> Backbone:
    """A session with the placement of the run's own, one adapter at a time, as thrifty as the run's."""
    kept = trained.settings.execution
    if not kept.arena:
        give_freed_memory_back()
    changes = {"micro_batch": micro_batch or kept.micro_batch, "parallel_queries": 1, "threads": threads}
    return Backbone(trained.bundle, kept.model_copy(update=changes))


def predict(trained: TrainedRun, backbone: Backbone, pictures: Sequence[Path], top: int) -> list[Named | ImageError]:
    """The ``top`` most probable classes of each picture, or why it could not be read.

    Raises ValueError for a run that was opened without its limit.
    """
    limit = trained.limit
    if limit is None:
        raise ValueError("a run that names pictures is opened with needs_limit")
    results: list[Named | ImageError] = [ImageError("It was not looked at.") for _ in pictures]
    likeness = Likeness(trained.statistics)

    def skipped(index: int, path: Path, error: ImageError) -> None:
        results[index] = error

    for indices, features in trained.reader(skipped).features(
        backbone, [trained.adapter], list(map(Picture, pictures))
    ):
        rows = zip(trained.head.probabilities(features[0]), likeness.to_classes(features[0]), strict=True)
        for index, (row, alike) in zip(indices, rows, strict=True):
            order = np.argsort(-row, kind="stable")[:top]
            guesses = tuple(Guess(trained.class_names[i], float(row[i]), float(alike[i])) for i in order)
            results[index] = Named(guesses, float(alike.max()), limit)
    return results


def evaluate(trained: TrainedRun, backbone: Backbone, stream_folder: Path, tell: Callable[[str], None]) -> Evaluation:
    """Accuracy on each task of a stream; pictures of classes that the run has not seen are left out, and said so."""
    stream = read_stream(stream_folder, trained.class_names, needs_train=False)
    classes = len(trained.class_names)
    correct, total = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    tasks, skipped = [], 0
    unknown: set[int] = set()
    for task in stream.tasks:
        listed = list_samples(stream, task, "test")
        samples = [sample for sample in listed if sample.class_id < classes]
        unknown |= {sample.class_id for sample in listed if sample.class_id >= classes}
        right, seen = _count(trained, backbone, samples, tell)
        skipped += len(samples) - int(seen.sum())
        correct += right
        total += seen
        tasks.append(_task_accuracy(task.name, int(right.sum()), int(seen.sum())))
    whole = _task_accuracy("", int(correct.sum()), int(total.sum()))
    by_class = mean_per_class_accuracy([int(n) for n in correct], [int(n) for n in total])
    names = tuple(stream.class_names[index] for index in sorted(unknown))
    return Evaluation(tuple(tasks), whole.accuracy, by_class, skipped, names)


def _count(
    trained: TrainedRun, backbone: Backbone, samples: Sequence[Sample], tell: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Right answers and pictures seen, int64 [C] each."""
    classes = len(trained.class_names)
    right, seen = np.zeros(classes, np.int64), np.zeros(classes, np.int64)

    def skipped(index: int, path: Path, error: ImageError) -> None:
        tell(f"Left out: {error}")

    files, labels = [Picture(sample.path) for sample in samples], labels_of(samples)
    for indices, features in trained.reader(skipped).features(backbone, [trained.adapter], files):
        seen += np.bincount(labels[indices], minlength=classes)
        right += count_right(trained.head, features[0], labels[indices])
    return right, seen


def _task_accuracy(name: str, correct: int, total: int) -> TaskAccuracy:
    return TaskAccuracy(name, correct, total, correct / total if total else None)
