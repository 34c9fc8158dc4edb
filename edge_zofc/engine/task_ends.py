"""The state at each task's end, kept for rollbacks: what the task changed, so that T tasks do not take T^2 room.

``state/task-NNN.safetensors`` (``checkpoint.py``) holds a state in which these are left out:

    rows of classes     of ``class_sums``, ``feature_sums`` and the like only those of the task's classes, ``class_ids``
    rows, biases        of a closed-form head: they are solved from the statistics
    progress            names, tasks and accuracies of before the task

``follows`` in its metadata is the SHA-256 of the end before, which holds the rest. An end without it is whole: that of
the first task, one of an earlier version, and the next after an end was deleted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_zofc.algorithm.heads import solve
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.engine.state import RunState
from edge_zofc.errors import DamagedFileError, EdgeZofcError, InputError
from edge_zofc.storage import checkpoint
from edge_zofc.storage.checkpoint import FOLLOWS, Snapshot

_TABLES = ("rows", "class_sums", "class_counts", "feature_sums", "feature_counts")
"""Arrays with a row a class."""
_SOLVED = ("rows", "biases")
_COUNTS = ("learner", "floor", "frozen")
"""Right answers, with a row a task."""


def save_end(folder: Path, task: int, snapshot: Snapshot) -> None:
    """Write the state at the end of task number ``task``. Raises as ``checkpoint.save``.

    Only the end before is looked at, so that this costs the same after any number of tasks.
    """
    try:
        before = checkpoint.task_sha256(folder, task - 1) if task else ""
    except EdgeZofcError:
        before = ""
    checkpoint.save_task(folder, task, what_changed(snapshot, before) if before else snapshot)


def is_readable(folder: Path, task: int) -> bool:
    """Whether the end of task number ``task`` is there with those that it needs; only their heads are read."""
    try:
        while task >= 0 and checkpoint.is_part(folder, task):
            task -= 1
        return task >= 0
    except EdgeZofcError:
        return False


def load_end(folder: Path, task: int) -> Snapshot:
    """The whole state at the latest end of task number ``task``.

    Raises InputError if there is none, or if an end that it needs is gone or another one, else as ``checkpoint.load``.
    """
    ends, there = [checkpoint.load_task(folder, task)], checkpoint.tasks(folder)
    while FOLLOWS in ends[-1].metadata:
        number = task - len(ends)
        is_there = number in there
        if not is_there or checkpoint.task_sha256(folder, number) != ends[-1].metadata[FOLLOWS]:
            raise InputError(
                f"The end of task {task} in {folder} needs that of task {number}, which is "
                f"{'another one by now' if is_there else 'gone'}; choose another task."
            )
        ends.append(checkpoint.load_task(folder, number))
    whole = ends.pop()
    try:
        while ends:
            whole = _followed(whole, ends.pop())
        return _solved(whole)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DamagedFileError(f"An end of a task in {folder} is no state; put back a good copy.") from error


def what_changed(snapshot: Snapshot, before: str) -> Snapshot:
    """A state at a task's end without what the end before holds, whose file has the SHA-256 ``before``."""
    metadata = dict(snapshot.metadata)
    tasks: list[dict[str, Any]] = metadata["tasks"]
    known = 1 + max((number for task in tasks[:-1] for number in task["class_ids"]), default=-1)
    changed = np.union1d(tasks[-1]["class_ids"], np.arange(known, len(metadata["class_names"]))).astype(np.int64)
    is_solved = "biases" in snapshot.arrays
    arrays = {"class_ids": changed}
    for name, array in snapshot.arrays.items():
        if not (is_solved and name in _SOLVED):
            arrays[name] = array[changed] if name in _TABLES else array
    metadata |= {"tasks": tasks[-1:], "class_names": metadata["class_names"][known:], FOLLOWS: before}
    for name in _COUNTS:
        metadata[name] = {**metadata[name], "correct": metadata[name]["correct"][-1:]}
    return Snapshot(arrays, metadata, snapshot.packed)


def _followed(before: Snapshot, end: Snapshot) -> Snapshot:
    """The state at ``end``, which holds what changed since ``before``."""
    metadata = {name: value for name, value in end.metadata.items() if name != FOLLOWS}
    for name in ("tasks", "class_names"):
        metadata[name] = before.metadata[name] + metadata[name]
    # An end of an earlier version has no counts of the frozen head.
    for name in (name for name in _COUNTS if name in metadata):
        rows = before.metadata[name]["correct"] + metadata[name]["correct"]
        metadata[name] = {**metadata[name], "correct": rows}
    # Test pictures of an earlier task may have been counted at this end for the first time.
    for task, total in zip(metadata["tasks"], metadata["total"], strict=False):
        task["test_images"] = total
    arrays = {name: array for name, array in end.arrays.items() if name != "class_ids"}
    for name in _TABLES:
        if name in arrays:
            old = before.arrays[name]
            table = np.zeros((len(metadata["class_names"]), *old.shape[1:]), old.dtype)
            table[: len(old)] = old
            table[end.arrays["class_ids"]] = arrays[name]
            arrays[name] = table
    return Snapshot(arrays, metadata)


def _solved(whole: Snapshot) -> Snapshot:
    """With the rows of a closed-form head, if they were left out."""
    if "rows" in whole.arrays:
        return whole
    found = Statistics.of_whole(*(whole.arrays[name] for name in ("feature_sums", "feature_counts", "feature_moment")))
    rows, biases = solve(found)
    return Snapshot({**whole.arrays, "rows": rows, "biases": biases}, whole.metadata)


def end_bytes(state: RunState) -> int:
    """How large the file of an end is that follows another one."""
    return checkpoint.file_bytes(what_changed(state.to_snapshot(), "0" * 64))
