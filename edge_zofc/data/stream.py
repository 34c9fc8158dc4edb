"""Folders of pictures -> tasks in order, classes with ids, pictures in order.

    STREAM/NNN_name/{train,test}/<class>/*.jpg ...     tasks by number, then by name
    STREAM/{train,test}/<class>/...                    a bare tree is one task

``test`` may be missing; then ``val``, ``valid`` or ``validation`` takes its place. A class may come back in a later
task and keeps its id: ids are given in order of first appearance (tasks in order, classes by name) after those already
known. Whatever is left out (an empty class folder, a foreign file, a folder of another name) stands in
``Stream.notes``.

Links may be in any place, because ``split.py`` makes streams of links. A broken one is a picture that cannot be read.
A name that is not UTF-8 is shown with backslashes, and is the class's name as shown. Names of tasks and classes are
compared in NFC, because a copy through another file system may change their form.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from edge_zofc.data.folders import (
    PARTS,
    VALIDATION,
    ClassIds,
    LeftOut,
    LeftOuts,
    Part,
    case_notes,
    class_folders,
    identity,
    is_broken,
    kind_of,
    named_picture,
    order,
    part_folder,
    scan,
    subfolders,
)
from edge_zofc.data.layouts import layout_hint, refuse_unsorted
from edge_zofc.errors import InputError, shown

__all__ = ["PARTS", "Part", "Sample", "Stream", "Task", "fingerprint", "list_samples", "numbered_tasks", "read_stream"]

OWN_FILES = frozenset(("class_order.json", "READY"))
"""Files beside tasks and parts that edge-zofc writes or waits for."""

_TASK_NAME = re.compile(r"([0-9]+)_.+", re.DOTALL)
_LAYOUT = "NNN_name/train/<class>/*.jpg (and NNN_name/test/<class>/*.jpg)"


@dataclass(frozen=True)
class Sample:
    """One picture file and the id of its class."""

    path: Path
    class_id: int


@dataclass(frozen=True)
class Task:
    """One task; ``class_ids`` are its classes with at least one train or test picture, ascending.

    ``found`` are the names of all classes that its folder held when it was read, those too that a learnt task does
    not have.
    """

    index: int
    name: str
    folder: Path
    class_ids: tuple[int, ...]
    found: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stream:
    """Tasks in the order of learning; ``class_names[id]``; ``notes`` say what was left out, a sentence each."""

    root: Path
    class_names: tuple[str, ...]
    tasks: tuple[Task, ...]
    notes: tuple[str, ...]

    @cached_property
    def ids(self) -> ClassIds:
        """Class names and their ids."""
        return ClassIds(self.class_names)

    def without(self, task_name: str, lost: Collection[int], known: int) -> Stream:
        """The stream in which a task does not have the classes ``lost``; ids from ``known`` on are given anew."""
        ids = ClassIds(self.class_names[:known])
        tasks = []
        for task in self.tasks:
            kept = [i for i in task.class_ids if task.name != task_name or i not in lost]
            names = sorted(self.class_names[i] for i in kept if i >= known)
            new = [ids.add(name) if (found := ids.find(name)) is None else found for name in names]
            tasks.append(replace(task, class_ids=tuple(sorted([i for i in kept if i < known] + new))))
        return Stream(self.root, tuple(ids.names), tuple(tasks), self.notes)


def read_stream(
    root: Path,
    known_classes: Sequence[str] = (),
    only: Collection[str] | None = None,
    learnt: Mapping[str, Collection[int]] | None = None,
    needs_train: bool = True,
) -> Stream:
    """Find the tasks and classes below ``root``; every folder is listed once and no picture is opened.

    ``known_classes`` keep their ids 0, 1, ... even where the stream no longer holds them. ``only``: the task
    names to look at (None: all); other task folders may be half written. ``learnt``: task name -> class ids of the
    tasks that need no train picture any more; they bring no other class.
    Raises InputError if there is no such folder, no task in it, or (with ``needs_train``) another task without a train
    picture.
    """
    ids, learnt = ClassIds(known_classes), learnt or {}
    notes: list[str] = []
    tasks: list[Task] = []
    for index, folder in enumerate(_task_folders(root, notes, needs_train)):
        where = identity(folder.name if folder != root else root.resolve().name)
        if only is not None and where not in only:
            continue
        _refuse_twin(root, where, tasks)
        found = _classes_of(folder, where, ids, notes)
        if needs_train and where not in learnt and not any(train for train, _ in found.values()):
            raise InputError(
                f"Task {where} has no picture in {shown(folder / 'train')}/<class>/; add some or take the folder away."
                + layout_hint(folder)
            )
        known = {name: ids.find(name) for name in sorted(found)}
        if where not in learnt:
            if needs_train and None in known.values():
                refuse_unsorted(known, folder)
            known = {name: ids.add(name) if number is None else number for name, number in known.items()}
        allowed = learnt.get(where, range(len(ids.names)))
        class_ids = {number for number in known.values() if number is not None and number in allowed}
        tasks.append(Task(index, where, folder, tuple(sorted(class_ids)), tuple(known)))
    return Stream(root, tuple(ids.names), tuple(tasks), tuple(notes + case_notes(ids.names)))


def _refuse_twin(root: Path, name: str, tasks: Iterable[Task]) -> None:
    if any(task.name == name for task in tasks):
        raise InputError(
            f"{shown(root)} has two folders for the task {name}, their names in two Unicode forms of the same "
            "letters; put them together or rename one."
        )


def numbered_tasks(root: Path) -> dict[str, Path]:
    """Name -> folder of what is named NNN_name below ``root``, in order; empty or half-written ones too.

    Raises InputError if there is no such folder.
    """
    if not root.is_dir():
        raise InputError(f"There is no stream in {shown(root)}; a stream is a folder of {_LAYOUT}.")
    return {identity(folder.name): folder for folder in _numbered(subfolders(root))}


def _numbered(folders: list[Path]) -> list[Path]:
    matches = [(_TASK_NAME.fullmatch(folder.name), folder) for folder in folders]
    return [folder for *_, folder in sorted((int(m[1]), order(f.name), f) for m, f in matches if m)]


def list_samples(stream: Stream, task: Task, part: Part) -> list[Sample]:
    """The pictures of one part of one task, by class name and file name; [] where the part does not exist.

    Broken links are among them: they are unreadable pictures. Read from disk at each call. Classes that the task did
    not have when it was read are left out. Raises InputError.
    """
    ids = set(task.class_ids)
    return [
        Sample(folder / name, number)
        for folder in class_folders(part_folder(task.folder, part))
        if (number := stream.ids.find(folder.name)) is not None and number in ids
        for name in _picture_names(folder)
    ]


def fingerprint(stream: Stream, task: Task) -> str:
    """SHA-256 (hex) over names (in NFC) and sizes in bytes of a task's pictures, relative to its folder, sorted.

    Cheap: no picture is read, so a change that keeps the size is not seen. A missing picture counts as size
    -1. Raises InputError if a folder cannot be listed.
    """
    digest, seen = hashlib.sha256(), set(task.found)
    for part in PARTS:
        for folder in class_folders(part_folder(task.folder, part)):
            for name in _picture_names(folder) if stream.ids.name(folder.name) in seen else ():
                size = -1
                with suppress(OSError):
                    size = (folder / name).stat().st_size
                place = unicodedata.normalize("NFC", str((folder / name).relative_to(task.folder)))
                digest.update(os.fsencode(place) + b"\0%d\n" % size)
    return digest.hexdigest()


def _picture_names(folder: Path) -> list[str]:
    return sorted((entry.name for entry in scan(folder) if named_picture(entry)), key=order)


def _task_folders(root: Path, notes: list[str], needs_train: bool) -> list[Path]:
    if not root.is_dir():
        raise InputError(f"There is no stream in {shown(root)}; a stream is a folder of {_LAYOUT}.")
    folders = subfolders(root)
    numbered = _numbered(folders)
    parts = ("train",) if needs_train else (*PARTS, *VALIDATION)
    bare = not numbered and any(folder.name in parts for folder in folders)
    if not numbered and not bare:
        raise InputError(f"There is no task in {shown(root)}; a stream is a folder of {_LAYOUT}.{layout_hint(root)}")
    if bare:
        return [root]  # what else lies in it is noted with the task itself
    others = LeftOut("Not used, for the name is not NNN_name")
    for folder in folders:
        if not _TASK_NAME.fullmatch(folder.name):
            others.add(folder.name)
    broken, loose = LeftOut("Not used, for it is a broken link"), LeftOut("Not used, for it lies beside the tasks")
    for entry in scan(root):
        if kind_of(entry) != "folder" and entry.name not in OWN_FILES:
            (broken if is_broken(entry) else loose).add(entry.name)
    notes += others.note() + broken.note() + loose.note()
    return numbered


def _classes_of(folder: Path, where: str, ids: ClassIds, notes: list[str]) -> dict[str, tuple[int, int]]:
    """Name -> (train, test) pictures of the classes of a task that have any; what is left out is noted."""
    found: dict[str, list[int]] = {}
    left = LeftOuts(where, "counted as unreadable, for it is a broken link")
    for column, part in enumerate(PARTS):
        place = part_folder(folder, part)
        for class_folder in left.class_folders(place, f"{place.name}/"):
            counts = found.setdefault(ids.name(class_folder.name), [0, 0])
            counts[column] += sum(map(len, left.pictures(class_folder, f"{place.name}/{class_folder.name}")))
    empty = LeftOut(f"{where}: not used, for the class folder holds no picture")
    untaught = LeftOut(f"{where}: class with test pictures only")
    for name, (train, test) in sorted(found.items()):
        if not train:
            (untaught if test else empty).add(name)
    notes += _part_notes(folder, where) + left.notes() + empty.note() + untaught.note()
    return {name: (train, test) for name, (train, test) in found.items() if train or test}


def _part_notes(folder: Path, where: str) -> list[str]:
    """What a task's folder holds beside train and test, and what is taken for test."""
    test, others = part_folder(folder, "test").name, LeftOut(f"{where}: not used, for only train and test are")
    for entry in sorted(scan(folder), key=lambda entry: entry.name):
        if entry.name not in (*PARTS, test) and entry.name not in OWN_FILES:
            others.add(entry.name)
    taken = [f"{where}: {test} is used as test, for test holds no picture."] if test != "test" else []
    return taken + others.note()
