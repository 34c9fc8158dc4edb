"""Folders of pictures -> tasks in order, pictures in order, batches in an order that a resumed run repeats.

    STREAM/NNN_name/{train,test}/<class>/*.jpg|jpeg|png|webp     tasks by number, then by name
    STREAM/{train,test}/<class>/...                              a bare tree is one task

``test`` may be missing. A class may come back in a later task and keeps its id: ids are given in order of
first appearance (tasks in order, classes by name) after those already known. Whatever is left out (an empty
class folder, a foreign file, a folder of another name) stands in ``Stream.notes``.

What may surprise: a class's name is what its folder's looks like when shown, so that of one that is not UTF-8 has
backslashes; ``folders.py`` says what counts as a picture.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_zofc.errors import InputError, shown
from edge_zofc.folders import PARTS, SUFFIXES, LeftOut, Part, is_picture, loose_files, scan, subfolders

_TASK_NAME = re.compile(r"([0-9]+)_.+", re.DOTALL)
_LAYOUT = "NNN_name/train/<class>/*.jpg (and NNN_name/test/<class>/*.jpg)"
_PHILOX_TAG = int.from_bytes(b"batches\0", "big")
_MASK = 2**64 - 1


@dataclass(frozen=True)
class Sample:
    """One picture file and the id of its class."""

    path: Path
    class_id: int


@dataclass(frozen=True)
class Task:
    """One task; ``class_ids`` are its classes with at least one train or test picture, ascending."""

    index: int
    name: str
    folder: Path
    class_ids: tuple[int, ...]


@dataclass(frozen=True)
class Stream:
    """Tasks in the order of learning; ``class_names[id]``; ``notes`` say what was left out, a sentence each."""

    root: Path
    class_names: tuple[str, ...]
    tasks: tuple[Task, ...]
    notes: tuple[str, ...]


def read_stream(root: Path, known_classes: Sequence[str] = (), only: Collection[str] | None = None) -> Stream:
    """Find the tasks and classes below ``root``; every folder is listed once and no picture is opened.

    ``known_classes`` keep their ids 0, 1, ... even where the stream no longer holds them. ``only``: the task
    names to look at (None: all); other task folders may be half written.
    Raises InputError if there is no such folder, no task in it, or a task without a train picture.
    """
    ids = {name: number for number, name in enumerate(known_classes)}
    if len(ids) != len(known_classes):
        raise ValueError("known_classes holds a name twice")
    notes: list[str] = []
    tasks = []
    for index, folder in enumerate(_task_folders(root, notes)):
        where = shown(folder.name) if folder != root else shown(root.resolve().name)
        if only is not None and where not in only:
            continue
        found = _classes_of(folder, where, notes)
        if not any(train for train, _ in found.values()):
            raise InputError(
                f"Task {where} has no picture in {shown(folder / 'train')}/<class>/ "
                f"({', '.join(SUFFIXES)}); add some or take the folder away."
            )
        for name in sorted(found):
            ids.setdefault(name, len(ids))
        tasks.append(Task(index, where, folder, tuple(sorted(ids[name] for name in found))))
    return Stream(root, tuple(ids), tuple(tasks), tuple(notes))


def numbered_tasks(root: Path) -> dict[str, Path]:
    """Name -> folder of what is named NNN_name below ``root``, in order; empty or half-written ones too.

    Raises InputError if there is no such folder.
    """
    if not root.is_dir():
        raise InputError(f"There is no stream in {shown(root)}; a stream is a folder of {_LAYOUT}.")
    return {shown(folder.name): folder for folder in _numbered(subfolders(root))}


def _numbered(folders: list[Path]) -> list[Path]:
    matches = [(_TASK_NAME.fullmatch(folder.name), folder) for folder in folders]
    return [folder for *_, folder in sorted((int(m[1]), f.name, f) for m, f in matches if m)]


def list_samples(stream: Stream, task: Task, part: Part) -> list[Sample]:
    """The pictures of one part of one task, by class name and file name; [] where the part does not exist.

    Read from disk at each call. Classes that appeared after ``read_stream`` are left out. Raises InputError.
    """
    ids = {name: number for number, name in enumerate(stream.class_names)}
    return [
        Sample(folder / name, ids[shown(folder.name)])
        for folder in subfolders(task.folder / part)
        if shown(folder.name) in ids
        for name in sorted(entry.name for entry in scan(folder) if is_picture(entry))
    ]


def batches(count: int, batch_size: int, seed: int, task_index: int, epoch: int) -> list[np.ndarray]:
    """The order of an epoch: int64 index arrays that together are a permutation of 0 .. count - 1, all of
    ``batch_size`` entries but the last, which may be smaller.

    The order sorts ``count`` raw 64-bit words of Philox4x64-10 with key (seed, "batches") and counter
    (0, task_index, epoch, 0), integers taken modulo 2^64: the same with every version of numpy.
    """
    if batch_size < 1:
        raise InputError(f"The batch size is {batch_size}; it must be at least 1.")
    generator = np.random.Philox(
        key=np.array([seed & _MASK, _PHILOX_TAG], np.uint64),
        counter=np.array([0, task_index & _MASK, epoch & _MASK, 0], np.uint64),
    )
    # Two equal words are next to impossible; a stable sort has one answer even then.
    order = np.argsort(generator.random_raw(count), kind="stable")
    return [order[start : start + batch_size] for start in range(0, count, batch_size)]


def fingerprint(stream: Stream, task: Task) -> str:
    """SHA-256 (hex) over names and sizes in bytes of a task's pictures, relative to its folder, sorted.

    Cheap: no picture is read, so a change that keeps the size is not seen. A missing picture counts as size
    -1. Raises InputError if a folder cannot be listed.
    """
    digest = hashlib.sha256()
    for part in PARTS:
        for sample in list_samples(stream, task, part):
            size = -1
            with suppress(OSError):
                size = sample.path.stat().st_size
            digest.update(os.fsencode(sample.path.relative_to(task.folder)) + b"\0%d\n" % size)
    return digest.hexdigest()


def _task_folders(root: Path, notes: list[str]) -> list[Path]:
    if not root.is_dir():
        raise InputError(f"There is no stream in {shown(root)}; a stream is a folder of {_LAYOUT}.")
    folders = subfolders(root)
    matches = [(_TASK_NAME.fullmatch(folder.name), folder) for folder in folders]
    numbered = _numbered(folders)
    bare = not numbered and any(folder.name == "train" for folder in folders)
    if not numbered and not bare:
        raise InputError(f"There is no task in {shown(root)}; a stream is a folder of {_LAYOUT}.")
    others = LeftOut("Not used, for the name is not NNN_name")
    for match, folder in matches:
        # Of a bare tree, "val" is noted with the task itself.
        if not match and not (bare and folder.name in (*PARTS, "val")):
            others.add(folder.name)
    notes += others.note()
    return [root] if bare else numbered


def _classes_of(folder: Path, where: str, notes: list[str]) -> dict[str, tuple[int, int]]:
    """Name -> (train, test) pictures of the classes of a task that have any; what is left out is noted."""
    found: dict[str, list[int]] = {}
    foreign = LeftOut(f"{where}: not used, for it is no {', '.join(SUFFIXES)} file in a class folder")
    for column, part in enumerate(PARTS):
        for name in loose_files(folder / part):
            foreign.add(f"{part}/{name}")
        for class_folder in subfolders(folder / part):
            counts = found.setdefault(shown(class_folder.name), [0, 0])
            for entry in scan(class_folder):
                if is_picture(entry):
                    counts[column] += 1
                else:
                    foreign.add(f"{part}/{class_folder.name}/{entry.name}")
    empty = LeftOut(f"{where}: not used, for the class folder holds no picture")
    untaught = LeftOut(f"{where}: class with test pictures only")
    for name, (train, test) in sorted(found.items()):
        if not train:
            (untaught if test else empty).add(name)
    if (folder / "val").is_dir():
        notes.append(f"{where}: not used, for only train and test are: val.")
    notes += foreign.note() + empty.note() + untaught.note()
    return {name: (train, test) for name, (train, test) in found.items() if train or test}
