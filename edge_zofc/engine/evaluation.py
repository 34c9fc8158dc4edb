"""Passes over pictures that do not train: class means, accuracies, and the class-mean floor beside them.

The floor is SimpleCIL (arXiv 2303.07338): the mean frozen feature of each class as its row, cosine, no training.
It is what a learner has to beat, so it is measured on the same pictures in the same pass.

What may surprise: the frozen features of test pictures are kept on disk (``R/frozen/``), because they are the
same at every stage; the second evaluation of a task costs the floor no forward pass. A cache file that is missing,
or whose last four bytes are not the CRC-32 of the others, is computed again. It is read, not memory-mapped: a mapped
file on a disk that fails ends the process without a word.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.heads import Collector, Head, Statistics, unit
from edge_zofc.data.stream import Sample
from edge_zofc.errors import DamagedFileError, EdgeZofcError, ImageError, explained
from edge_zofc.inference.backbone import Backbone
from edge_zofc.inference.features import Checkpoint, readable_features
from edge_zofc.inference.transforms import load_test
from edge_zofc.storage.bundle import ImageSpec
from edge_zofc.storage.reading import open_plain
from edge_zofc.storage.writing import make_folder, write_atomic

Skipped = Callable[[Path, ImageError], None]

_CRC_BYTES = 4
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class PictureReader:
    """How a pass reads pictures: the bundle's test transform, and whom to tell of an unreadable one."""

    spec: ImageSpec
    normalise: bool
    skipped: Skipped
    checkpoint: Checkpoint


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

    def add(self, other: Tally) -> None:
        """Add another tally of the same classes."""
        self.correct += other.correct
        self.floor_correct += other.floor_correct
        self.total += other.total
        self.forward_passes += other.forward_passes
        self.floor_forward_passes += other.floor_forward_passes


def feature_statistics(
    backbone: Backbone,
    adapters: list[np.ndarray],
    samples: list[Sample],
    classes: int,
    reader: PictureReader,
    scatter: bool = False,
) -> tuple[list[Statistics], list[int]]:
    """Statistics of the features under each adapter, and the positions of unreadable pictures.

    ``classes`` is one more than the largest class id in ``samples``. With ``scatter`` the first adapter's statistics
    have their scatter, which only a closed-form head needs; the others are for class means.
    """
    collectors = [
        Collector(classes, backbone.feature_size, scatter and number == 0) for number in range(len(adapters))
    ]
    unreadable: list[int] = []

    def load(index: int, out: np.ndarray) -> None:
        load_test(samples[index].path, reader.spec, normalise=reader.normalise, out=out)

    def skipped(index: int, error: ImageError) -> None:
        unreadable.append(index)
        reader.skipped(samples[index].path, error)

    parts = readable_features(backbone, adapters, len(samples), load, skipped, reader.checkpoint)
    for indices, features in parts:
        labels = np.array([samples[index].class_id for index in indices])
        for collector, rows in zip(collectors, features, strict=True):
            collector.add(rows, labels)
    return [collector.statistics() for collector in collectors], unreadable


def evaluate_task(
    backbone: Backbone,
    head: Head,
    theta: np.ndarray,
    floor: Head,
    frozen_theta: np.ndarray,
    samples: list[Sample],
    cache: Path,
    reader: PictureReader,
) -> Tally:
    """Count right answers of the learner and of the floor on one task's test pictures, over all classes seen.

    ``cache`` is the file that keeps the frozen features; it is written when it is not there.
    """
    classes = len(head.rows)
    tally = Tally.empty(classes)
    cached = _rows_in_cache(cache, backbone.feature_size)
    same = bool(np.array_equal(theta, frozen_theta))
    adapters = [theta] if same or cached is not None else [theta, frozen_theta]

    def load(index: int, out: np.ndarray) -> None:
        load_test(samples[index].path, reader.spec, normalise=reader.normalise, out=out)

    def skipped(index: int, error: ImageError) -> None:
        reader.skipped(samples[index].path, error)

    def count_and_give_frozen_rows() -> Iterator[bytes]:
        parts = readable_features(backbone, adapters, len(samples), load, skipped, reader.checkpoint)
        for indices, features in parts:
            labels = np.array([samples[index].class_id for index in indices])
            tally.total += np.bincount(labels, minlength=classes)
            tally.correct += _right(head, features[0], labels, classes)
            tally.forward_passes += len(labels)
            yield np.column_stack([features[-1], labels.astype(np.float32)]).tobytes()

    if cached is None:
        make_folder(cache.parent)
        write_atomic(cache, _with_crc(count_and_give_frozen_rows()))
        cached = _rows_in_cache(cache, backbone.feature_size)
        tally.floor_forward_passes += 0 if same else tally.forward_passes
    else:
        for _ in count_and_give_frozen_rows():
            pass
    if cached is None:  # no picture of this task could be read
        return tally
    for rows in _cached_rows(cache, cached, backbone.feature_size):
        tally.floor_correct += _right(floor, rows[:, :-1], rows[:, -1].astype(np.int64), classes)
    return tally


def floor_head(class_sums: np.ndarray, class_counts: np.ndarray) -> Head:
    """The class-mean classifier from sums float64 [C, D] and counts int64 [C]."""
    return Head(mean_rows(class_sums, class_counts), np.ones(1, np.float32))


def mean_rows(class_sums: np.ndarray, class_counts: np.ndarray) -> np.ndarray:
    """Unit-length class means float32 [C, D]; a class without pictures gets zeros (cosine 0 to everything)."""
    means = class_sums / np.maximum(class_counts, 1)[:, None]
    return unit(means).astype(np.float32)


def _right(head: Head, features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    guesses = head.logits(features).argmax(axis=-1)
    return np.bincount(labels[guesses == labels], minlength=classes)


def _with_crc(pieces: Iterator[bytes]) -> Iterator[bytes]:
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
        yield piece
    yield crc.to_bytes(_CRC_BYTES, "little")


def _rows_in_cache(path: Path, feature_size: int) -> int | None:
    """How many rows a cache holds; None if it is missing, empty or not whole."""
    if not os.path.lexists(path):
        return None
    try:
        with open_plain(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            count, rest = divmod(size_bytes - _CRC_BYTES, _row_bytes(feature_size))
            if count < 1 or rest:
                return None
            crc = 0
            for rows in _cached_rows(path, count, feature_size):
                crc = zlib.crc32(rows.data.cast("B"), crc)
            file.seek(-_CRC_BYTES, os.SEEK_END)
            return count if file.read(_CRC_BYTES) == crc.to_bytes(_CRC_BYTES, "little") else None
    except (EdgeZofcError, OSError):
        return None


def _cached_rows(path: Path, count: int, feature_size: int) -> Iterator[np.ndarray]:
    """float32 [n, D + 1], some at a time: the frozen features and, exact below 2^24, the class id.

    Raises DamagedFileError if the file cannot be read, or no longer has ``count`` rows.
    """
    with open_plain(path) as file:
        for start in range(0, count, _ROWS_AT_ONCE):
            due = min(_ROWS_AT_ONCE, count - start) * _row_bytes(feature_size)
            with explained(path, "read"):
                raw = file.read(due)
            if len(raw) != due:
                raise DamagedFileError(f"{path} became shorter while it was read; remove it and try again.")
            yield np.frombuffer(raw, np.float32).reshape(-1, feature_size + 1)


def _row_bytes(feature_size: int) -> int:
    return 4 * (feature_size + 1)
