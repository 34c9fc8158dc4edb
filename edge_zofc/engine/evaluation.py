"""Passes over pictures that do not train: class statistics, accuracies, and the class-mean baseline beside them.

The baseline is SimpleCIL (arXiv 2303.07338): the mean frozen feature of each class as its row, cosine, no training.
It is what a learner has to beat, so it is measured on the same pictures in the same pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.heads import Head, unit
from edge_zofc.algorithm.naming import named, solved_head
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.data.stream import Sample, Task, list_samples
from edge_zofc.engine.feature_store import FeatureStore, PictureSet, adapter_key
from edge_zofc.engine.gate import frozen_statistics, held_out_set
from edge_zofc.engine.pictures import PictureReader
from edge_zofc.engine.trainer import Trainer
from edge_zofc.errors import ImageError


@dataclass
class Tally:
    """Right answers and pictures seen by class id (int64 [C] each), and what the learner named wrongly.

    ``wrong`` int64 [m, 3]: position in ``samples``, class, and the class that it was named as. ``frozen_correct``: of
    the closed-form head under the adapter's start, with the pictures that only one of the two named rightly.
    """

    correct: np.ndarray
    floor_correct: np.ndarray
    frozen_correct: np.ndarray
    total: np.ndarray
    wrong: np.ndarray
    samples: Sequence[Sample]
    only_frozen: int = 0
    only_moved: int = 0

    @classmethod
    def empty(cls, classes: int, samples: Sequence[Sample]) -> Tally:
        """Zeros for ``classes`` classes."""
        correct, floor_correct, frozen_correct, total = np.zeros((4, classes), np.int64)
        return cls(correct, floor_correct, frozen_correct, total, np.zeros((0, 3), np.int64), samples)


def class_statistics(
    store: FeatureStore, pictures: PictureSet, adapter: np.ndarray, labels: np.ndarray, classes: int, moment: bool
) -> Statistics:
    """Statistics of the kept features of ``pictures`` under ``adapter`` float32 [P].

    ``labels`` int64 [n] are the class ids by position, ``classes`` one more than the largest. With ``moment`` they have
    the second moment that a closed-form head needs; without, they are for class means.
    """
    found = Statistics.empty(classes, store.feature_size, moment)
    for positions, features in store.rows(pictures, adapter):
        found.add(features, labels[positions])
    return found


def train_features(
    trainer: Trainer, task: Task, samples: list[Sample], adapters: Sequence[np.ndarray], again: bool = False
) -> PictureSet:
    """A task's train pictures, their features under each adapter in the store; what is unreadable is told once.

    ``again``: those of a new task were looked at before.
    """
    is_new = trainer.state.progress.phase == "idle"
    number = len(trainer.state.progress.tasks) - (not is_new)
    pictures = picture_set(f"{number:03d}-train", samples, trainer.reads_again(task))
    reader = trainer.pictures.reader(task.name, len(samples), quiet=again or not is_new)
    trainer.store.ensure(trainer.backbone, [pictures], adapters, reader)
    return pictures


def evaluate_learned(trainer: Trainer, store: FeatureStore) -> list[Tally | None]:
    """A tally for each task learnt so far; None where it is not asked for, or its test pictures are gone or changed.

    The features that are missing are computed in one pass over the pictures of all tasks.
    """
    progress, adapters = trainer.state.progress, trainer.distinct_adapters()
    by_name = {task.name: task for task in trainer.stream.tasks}
    samples = {
        index: list_samples(trainer.stream, by_name[progress.tasks[index].name], "test")
        for index in _asked_for(trainer)
        if progress.tasks[index].name in by_name
    }
    sets = {index: picture_set(f"{index:03d}-test", found, trainer.tests_again) for index, found in samples.items()}
    newest = sets.get(len(progress.tasks) - 1)
    store.ensure(trainer.backbone, list(sets.values()), adapters, _telling_of(trainer, newest))
    statistics = frozen_statistics(trainer) if sets else None
    frozen = None if statistics is None else solved_head(statistics)
    tallies = {index: _tally(trainer, store, sets[index], samples[index], frozen) for index in sets}
    if newest is not None:
        lost = len(store.kept(newest, adapters[0]).unreadable)
        trainer.pictures.check_skipped(progress.tasks[-1].name, lost, len(newest.paths))
    held = [held_out_set(trainer, index) for index in range(len(progress.tasks))] if len(adapters) > 1 else []
    kept = {store.name(found, adapter) for found in [*sets.values(), *held] for adapter in adapters}
    store.forget_all_but(kept | {found.pixel_file for found in sets.values()})
    trainer.pixels.look_again()
    measured = {index: _measured(trainer, index, tallies.get(index)) for index in _asked_for(trainer)}
    progress.total += [0] * (len(progress.tasks) - len(progress.total))
    progress.evaluated_under = adapter_key(adapters[0])
    return [measured.get(index) for index in range(len(progress.tasks))]


def _asked_for(trainer: Trainer) -> range:
    """The numbers of the tasks that ``--evaluate`` wants measured now."""
    count = len(trainer.state.progress.tasks)
    if trainer.evaluate == "last" and len(trainer.pending_tasks()) > 1:
        return range(0)
    return range(count - 1, count) if trainer.evaluate == "new" else range(count)


def _telling_of(trainer: Trainer, newest: PictureSet | None) -> PictureReader:
    """Reads test pictures; unreadable ones are told for the newest task alone, as those of others have been."""
    paths = frozenset(() if newest is None else newest.paths)
    told = trainer.pictures.reader(trainer.state.current_task.name, len(paths))

    def skipped(index: int, path: Path, error: ImageError) -> None:
        if path in paths:
            told.skipped(index, path, error)

    return replace(told, skipped=skipped)


def _tally(
    trainer: Trainer, store: FeatureStore, pictures: PictureSet, samples: Sequence[Sample], frozen: Head | None
) -> Tally:
    """Right answers on one task's test pictures, over all classes seen: of the learner, of the class means, and of the
    closed-form head under the adapter's start (``frozen``; None: the adapter is there).
    """
    state, labels = trainer.state, labels_of(samples)
    means = class_mean_head(state.class_sums, state.class_counts)
    tally = Tally.empty(len(state.head.rows), samples)
    adapters = trainer.distinct_adapters()
    right = np.zeros(len(samples), bool)
    for positions, features in store.rows(pictures, adapters[0]):
        known, guesses = labels[positions], named(state.head, features)
        right[positions] = guesses == known
        tally.total += np.bincount(known, minlength=len(tally.total))
        tally.correct += np.bincount(known[guesses == known], minlength=len(tally.total))
        rows = np.column_stack([positions, known, guesses])[guesses != known]
        tally.wrong = np.concatenate([tally.wrong, rows])
    for positions, features in store.rows(pictures, adapters[-1]):
        known = labels[positions]
        tally.floor_correct += count_right(means, features, known)
        without = right[positions] if frozen is None else named(frozen, features) == known
        tally.frozen_correct += np.bincount(known[without], minlength=len(tally.total))
        tally.only_frozen += int((without & ~right[positions]).sum())
        tally.only_moved += int((right[positions] & ~without).sum())
    return tally


def _measured(trainer: Trainer, index: int, tally: Tally | None) -> Tally | None:
    """The tally of task number ``index`` if it belongs into the accuracy matrix; its passes are counted."""
    progress = trainer.state.progress
    learnt = progress.tasks[index]
    if tally is None:
        trainer.note(f"task {learnt.name} is no longer in the stream: its accuracy is not measured again.")
        return None
    count, adapters = int(tally.total.sum()), trainer.distinct_adapters()
    is_new = all(row[index] is None for row in progress.learner.correct[index:])
    if is_new:
        progress.total += [0] * (index + 1 - len(progress.total))
        progress.total[index] = learnt.test_images = count
        progress.floor_forward_passes += count * (len(adapters) - 1)
    if is_new or progress.evaluated_under != adapter_key(adapters[0]):
        progress.evaluation_forward_passes += count
    if count == progress.total[index]:
        return tally
    # Right answers out of another number of pictures do not belong into the same column.
    trainer.note(f"the test pictures of task {learnt.name} changed: its accuracy is not measured again.")
    return None


def picture_set(name: str, samples: Sequence[Sample], keeps_pixels: bool) -> PictureSet:
    """The samples' pictures, under a name that changes with their paths, sizes and times."""
    digest = hashlib.sha256()
    for sample in samples:
        with suppress(OSError):  # a picture that is gone is told of when it is read
            status = sample.path.stat()
            digest.update(
                f"{sample.path.parent.name}/{sample.path.name} {status.st_size} {status.st_mtime_ns}\n".encode(
                    "utf-8", "surrogateescape"
                )
            )
    return PictureSet(f"{name}-{digest.hexdigest()[:16]}", tuple(sample.path for sample in samples), keeps_pixels)


def labels_of(samples: Sequence[Sample]) -> np.ndarray:
    """Class ids int64 [n] of the samples."""
    return np.array([sample.class_id for sample in samples], np.int64)


def count_right(head: Head, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Right answers by class, int64 [C], on features float32 [n, D] with class ids ``labels`` int64 [n]."""
    return np.bincount(labels[named(head, features) == labels], minlength=len(head.rows))


def class_mean_head(class_sums: np.ndarray, class_counts: np.ndarray) -> Head:
    """The class-mean classifier from sums float64 [C, D] and counts int64 [C]."""
    return Head(mean_rows(class_sums, class_counts), np.ones(1, np.float32))


def mean_rows(class_sums: np.ndarray, class_counts: np.ndarray) -> np.ndarray:
    """Unit-length class means float32 [C, D]; a class without pictures gets zeros (cosine 0 to everything)."""
    means = class_sums / np.maximum(class_counts, 1)[:, None]
    return unit(means).astype(np.float32)
