"""Passes over pictures that do not train: class statistics, accuracies, and the class-mean baseline beside them.

The baseline is SimpleCIL (arXiv 2303.07338): the mean frozen feature of each class as its row, cosine, no training.
It is what a learner has to beat, so it is measured on the same pictures in the same pass.

The frozen features of test pictures are kept on disk (``R/frozen/``), because they are the same at every stage: the
second evaluation of a task costs the baseline no forward pass. A cache file that is missing, or whose last four bytes
are not the CRC-32 of the others, is computed again. It is read, not memory-mapped: a mapped file on a disk that fails
ends the process.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.heads import Collector, Head, Statistics, unit
from edge_zofc.data.stream import Sample, Task, fingerprint, list_samples
from edge_zofc.engine.pictures import PictureReader
from edge_zofc.engine.trainer import Trainer
from edge_zofc.errors import DamagedFileError, EdgeZofcError, explained
from edge_zofc.inference.backbone import Backbone
from edge_zofc.storage.reading import open_plain
from edge_zofc.storage.writing import make_folder, write_atomic

_CRC_BYTES = 4
_ROWS_AT_ONCE = 1024


@dataclass
class Tally:
    """Right answers and pictures seen by class id (int64 [C] each), and the passes that they took."""

    correct: np.ndarray
    floor_correct: np.ndarray
    total: np.ndarray
    forward_passes: int = 0
    floor_forward_passes: int = 0

    @classmethod
    def empty(cls, classes: int) -> Tally:
        """Zeros for ``classes`` classes."""
        return cls(np.zeros(classes, np.int64), np.zeros(classes, np.int64), np.zeros(classes, np.int64))


@dataclass(frozen=True)
class Learners:
    """The two that are evaluated: ``head`` on features under theta, ``floor`` on those under ``frozen_theta``."""

    head: Head
    theta: np.ndarray
    floor: Head
    frozen_theta: np.ndarray


def class_statistics(
    backbone: Backbone,
    adapters: Sequence[np.ndarray],
    samples: Sequence[Sample],
    classes: int,
    reader: PictureReader,
    scatter: bool = False,
) -> tuple[list[Statistics], list[int]]:
    """Statistics of the features under each adapter, and the positions of unreadable pictures.

    ``classes`` is one more than the largest class id in ``samples``. With ``scatter`` the first adapter's statistics
    have their scatter, which only a closed-form head needs; the others are for class means.
    """
    size = backbone.feature_size
    collectors = [Collector(classes, size, scatter and number == 0) for number in range(len(adapters))]
    readable: set[int] = set()
    for indices, features in reader.features(backbone, adapters, [sample.path for sample in samples]):
        readable |= set(indices.tolist())
        for collector, rows in zip(collectors, features, strict=True):
            collector.add(rows, labels_of(samples, indices))
    unreadable = [index for index in range(len(samples)) if index not in readable]
    return [collector.statistics() for collector in collectors], unreadable


def evaluate_learned(trainer: Trainer) -> list[Tally | None]:
    """A tally for each task learnt so far; None where its test pictures are gone or changed."""
    progress = trainer.state.progress
    by_name = {task.name: task for task in trainer.stream.tasks}
    tallies: list[Tally | None] = []
    for index, learnt in enumerate(progress.tasks):
        task = by_name.get(learnt.name)
        if task is None:
            trainer.note(f"task {learnt.name} is no longer in the stream: its accuracy is not measured again.")
            tallies.append(None)
            continue
        tally = _evaluate_learnt(trainer, index, task)
        progress.evaluation_forward_passes += tally.forward_passes
        progress.floor_forward_passes += tally.floor_forward_passes
        count = int(tally.total.sum())
        if index == len(progress.total):
            progress.total.append(count)
            learnt.test_images = count
        is_same = count == progress.total[index]
        if not is_same:
            # Right answers out of another number of pictures do not belong into the same column.
            trainer.note(f"the test pictures of task {learnt.name} changed: its accuracy is not measured again.")
        tallies.append(tally if is_same else None)
    return tallies


def _evaluate_learnt(trainer: Trainer, index: int, task: Task) -> Tally:
    """One task's tally; unreadable pictures are told when the task is evaluated for the first time."""
    state, is_new = trainer.state, index == len(trainer.state.progress.tasks) - 1
    samples = list_samples(trainer.stream, task, "test")
    # The rows in it carry class ids, so that they are part of its name.
    key = hashlib.sha256(f"{fingerprint(trainer.stream, task)} {task.class_ids}".encode()).hexdigest()
    cache = FeatureCache(trainer.run.frozen / f"{index:03d}-{key[:16]}.f32", trainer.backbone.feature_size)
    learners = Learners(
        state.head, state.adapter.theta, class_mean_head(state.class_sums, state.class_counts), trainer.frozen_theta
    )
    reader = trainer.pictures.reader(task.name, len(samples), quiet=not is_new)
    tally = evaluate_task(trainer.backbone, learners, samples, cache, reader)
    if is_new:
        trainer.pictures.check_skipped(task.name, len(samples) - int(tally.total.sum()), len(samples))
        # Counted as if the cache was written just now, which a run that was cut off since may have done before.
        tally.floor_forward_passes = tally.forward_passes if len(trainer.distinct_adapters()) > 1 else 0
    return tally


def evaluate_task(
    backbone: Backbone, learners: Learners, samples: Sequence[Sample], cache: FeatureCache, reader: PictureReader
) -> Tally:
    """Count right answers of the learner and of the baseline on one task's test pictures, over all classes seen.

    ``cache`` keeps the frozen features; it is written when it is not there.
    """
    tally = Tally.empty(len(learners.head.rows))
    count = cache.count()
    same = bool(np.array_equal(learners.theta, learners.frozen_theta))
    adapters = [learners.theta] if same or count else [learners.theta, learners.frozen_theta]
    frozen = _counted(tally, learners.head, samples, reader.features(backbone, adapters, [s.path for s in samples]))
    if count:
        for _ in frozen:
            pass
    else:
        # The passes are made while the cache is written, a micro-batch at a time.
        cache.write(frozen)
        count = cache.count()
        tally.floor_forward_passes += 0 if same else tally.forward_passes
    for rows in cache.rows(count):
        tally.floor_correct += count_right(learners.floor, rows[:, :-1], rows[:, -1].astype(np.int64))
    return tally


def _counted(
    tally: Tally, head: Head, samples: Sequence[Sample], parts: Iterable[tuple[np.ndarray, np.ndarray]]
) -> Iterator[np.ndarray]:
    """Count the learner's answers into ``tally`` and hand on the cache's rows, float32 [n, D + 1]."""
    for indices, features in parts:
        labels = labels_of(samples, indices)
        tally.total += np.bincount(labels, minlength=len(tally.total))
        tally.correct += count_right(head, features[0], labels)
        tally.forward_passes += len(labels)
        yield np.column_stack([features[-1], labels.astype(np.float32)])


def labels_of(samples: Sequence[Sample], indices: np.ndarray) -> np.ndarray:
    """Class ids int64 [n] of the samples at ``indices``."""
    return np.array([samples[index].class_id for index in indices])


def count_right(head: Head, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Right answers by class, int64 [C], on features float32 [n, D] with class ids ``labels`` int64 [n]."""
    guesses = head.logits(features).argmax(axis=-1)
    return np.bincount(labels[guesses == labels], minlength=len(head.rows))


def class_mean_head(class_sums: np.ndarray, class_counts: np.ndarray) -> Head:
    """The class-mean classifier from sums float64 [C, D] and counts int64 [C]."""
    return Head(mean_rows(class_sums, class_counts), np.ones(1, np.float32))


def mean_rows(class_sums: np.ndarray, class_counts: np.ndarray) -> np.ndarray:
    """Unit-length class means float32 [C, D]; a class without pictures gets zeros (cosine 0 to everything)."""
    means = class_sums / np.maximum(class_counts, 1)[:, None]
    return unit(means).astype(np.float32)


@dataclass(frozen=True)
class FeatureCache:
    """The file ``path`` of frozen features: rows float32 [D + 1], the last entry the class id, exact below 2^24."""

    path: Path
    feature_size: int

    @property
    def _row_bytes(self) -> int:
        return 4 * (self.feature_size + 1)

    def count(self) -> int:
        """How many rows it holds; 0 if it is missing, empty or not whole."""
        if not os.path.lexists(self.path):
            return 0
        try:
            with open_plain(self.path) as file:
                count, rest = divmod(os.fstat(file.fileno()).st_size - _CRC_BYTES, self._row_bytes)
                if count < 1 or rest:
                    return 0
                crc = 0
                for rows in self.rows(count):
                    crc = zlib.crc32(rows.data.cast("B"), crc)
                file.seek(-_CRC_BYTES, os.SEEK_END)
                return count if file.read(_CRC_BYTES) == crc.to_bytes(_CRC_BYTES, "little") else 0
        except (EdgeZofcError, OSError):
            return 0

    def rows(self, count: int) -> Iterator[np.ndarray]:
        """The first ``count`` rows, float32 [n, D + 1], some at a time.

        Raises DamagedFileError if the file cannot be read, or no longer has so many.
        """
        if not count:
            return
        with open_plain(self.path) as file:
            for start in range(0, count, _ROWS_AT_ONCE):
                due = min(_ROWS_AT_ONCE, count - start) * self._row_bytes
                with explained(self.path, "read"):
                    raw = file.read(due)
                if len(raw) != due:
                    raise DamagedFileError(f"{self.path} became shorter while it was read; remove it and try again.")
                yield np.frombuffer(raw, np.float32).reshape(-1, self.feature_size + 1)

    def write(self, rows: Iterable[np.ndarray]) -> None:
        """Replace the file by these rows, float32 [n, D + 1] each, atomically."""
        make_folder(self.path.parent)
        write_atomic(self.path, _with_crc(part.tobytes() for part in rows))


def _with_crc(pieces: Iterable[bytes]) -> Iterator[bytes]:
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
        yield piece
    yield crc.to_bytes(_CRC_BYTES, "little")
