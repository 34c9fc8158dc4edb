"""What each class of each task gave to a closed-form head, kept so that a class can be forgotten to the bit.

``R/classes/TTT-<fingerprint>-CCCCC.<under>.safetensors`` (the file of ``storage/checkpoint.py``) holds for the class
with id C in task number T

    features   float32 [n, D], where n is at most D + 1
    sums       float64 [D], counts int64 [1] and moment float64 [packed], where there are more

so that a class takes at most 4 D (D + 1) bytes: 6.3 MiB at D 1280. ``under`` is ``start`` for the adapter's start, and
``moved`` for an adapter that had left it. Where an adapter may be put back, both are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edge_zofc.algorithm import symmetric
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.engine.feature_store import FeatureStore, PictureSet
from edge_zofc.engine.progress import TaskProgress
from edge_zofc.engine.trainer import Trainer
from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.storage import checkpoint
from edge_zofc.storage.checkpoint import Snapshot
from edge_zofc.storage.reading import check_folder, is_there
from edge_zofc.storage.run_folder import CLASSES
from edge_zofc.storage.writing import make_folder

AT_ONCE_BYTES = 4 << 20
"""Features that are held while parts are written."""
_KEY = re.compile(r"[0-9]{3,9}-[0-9a-f]{16}-[0-9]{5,9}")


def part_key(task: int, progress: TaskProgress, class_id: int) -> str:
    """The name of what class ``class_id`` gave in task number ``task``."""
    return f"{task:03d}-{progress.fingerprint[:16]}-{class_id:05d}"


def keys_of(tasks: Sequence[TaskProgress], class_ids: Sequence[int]) -> list[str]:
    """The keys of all that these classes gave in the finished ``tasks``."""
    wanted = set(class_ids)
    return [part_key(n, task, i) for n, task in enumerate(tasks) for i in task.class_ids if i in wanted]


def class_of(key: str) -> int:
    """The class id in a key. Raises DamagedFileError if it is none."""
    if not _KEY.fullmatch(key):
        raise DamagedFileError(f"{key[:80]} is no part of a class; put back a good copy of the run.")
    return int(key.rpartition("-")[2])


def bytes_of(pictures: int, feature_size: int) -> int:
    """How many bytes a class of so many pictures takes, without the file's header."""
    return 4 * feature_size * min(pictures, feature_size + 1)


def keep_parts(trainer: Trainer, pictures: PictureSet, labels: np.ndarray, adapters: Sequence[np.ndarray]) -> None:
    """Keep what each class of the present task gave, under each of ``adapters`` float32 [P].

    ``labels`` int64 [n] of its ``pictures``, whose features lie in the store. On the disk when this returns.
    """
    progress, run = trainer.state.progress, trainer.run.path
    check_folder(run / CLASSES)
    make_folder(run / CLASSES)
    for adapter in adapters:
        role = "start" if np.array_equal(adapter, trainer.frozen_theta) else "moved"
        for class_id, arrays in _parts(trainer.store, pictures, adapter, labels):
            key = part_key(len(progress.tasks) - 1, trainer.state.current_task, class_id)
            checkpoint.write(_path(run, key, role), Snapshot(arrays, {}))


def load_part(run: Path, key: str, moved: bool, feature_size: int) -> Statistics:
    """What a class gave in a task, as class 0 of 1, under the adapter as it is now; ``moved``: has it left its start.

    Raises InputError if that was not kept, DamagedFileError if it is damaged.
    """
    arrays, path = _load(run, key, moved)
    found = Statistics.empty(1, feature_size)
    try:
        if "features" in arrays:
            found.add(arrays["features"].reshape(-1, feature_size), np.zeros(len(arrays["features"]), np.int64))
            return found
        sums, counts = arrays["sums"].reshape(1, feature_size), arrays["counts"].reshape(1)
        return Statistics(sums, counts, arrays["moment"].reshape(found.moment.shape))
    except (KeyError, ValueError) as error:
        raise DamagedFileError(f"{path} is no part of a class; put back a good copy.") from error


def load_features(run: Path, key: str, moved: bool) -> np.ndarray:
    """The features float32 [n, D] that a class gave in a task; none where it had too many. Raises as ``load_part``."""
    arrays, path = _load(run, key, moved)
    found = arrays.get("features", np.zeros((0, 1), np.float32))
    if found.ndim != 2 or found.dtype != np.float32:
        raise DamagedFileError(f"{path} is no part of a class; put back a good copy.")
    return found


def _load(run: Path, key: str, moved: bool) -> tuple[dict[str, np.ndarray], Path]:
    class_of(key)
    places = [_path(run, key, role) for role in (("moved", "start") if moved else ("start",))]
    path = next((place for place in places if is_there(place)), None)
    if path is None:
        raise InputError(
            f"What the class gave in task {int(key.partition('-')[0])} was not kept ({places[0]} is missing), as by an "
            "earlier version; go back before that task with 'edge-zofc rollback', or learn into a new run."
        )
    return checkpoint.load(path).arrays, path


def _path(run: Path, key: str, role: str) -> Path:
    return run / CLASSES / f"{key}.{role}.safetensors"


def _parts(
    store: FeatureStore, pictures: PictureSet, adapter: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Class id and arrays of each class; a few classes in one pass, as many as AT_ONCE_BYTES hold."""
    size = store.feature_size
    ids, counts = np.unique(labels, return_counts=True)
    small = [int(i) for i, n in zip(ids, counts, strict=True) if n <= size + 1]
    each = {int(i): 4 * size * int(n) for i, n in zip(ids, counts, strict=True)}
    while small:
        some, room = [small.pop(0)], AT_ONCE_BYTES
        room -= each[some[0]]
        while small and each[small[0]] <= room:
            room -= each[small[0]]
            some.append(small.pop(0))
        kept: dict[int, list[np.ndarray]] = {class_id: [] for class_id in some}
        for positions, features in store.rows(pictures, adapter):
            for class_id in some:
                kept[class_id].append(features[labels[positions] == class_id])
        for class_id, rows in kept.items():
            found = np.concatenate([np.zeros((0, size), np.float32), *rows])
            if len(found):
                yield class_id, {"features": found}
    for class_id in (int(i) for i, n in zip(ids, counts, strict=True) if n > size + 1):
        part = Statistics(np.zeros((1, size)), np.zeros(1, np.int64), symmetric.zeros(size))
        for positions, features in store.rows(pictures, adapter):
            chosen = features[labels[positions] == class_id]
            part.add(chosen, np.zeros(len(chosen), np.int64))
        yield class_id, {"sums": part.sums[0], "counts": part.counts, "moment": part.moment}
