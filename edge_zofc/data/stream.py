"""Folders of pictures -> tasks in order, classes with ids, pictures in order.

    STREAM/NNN_name/{train,test}/<class>/*.jpg|jpeg|png|webp     tasks by number, then by name
    STREAM/{train,test}/<class>/...                              a bare tree is one task

``test`` may be missing. A class may come back in a later task and keeps its id. Ids are given in order of first
appearance (tasks in order, classes by name), after those already known. Whatever is left out (an empty class folder, a
foreign file, a folder of another name) stands in ``Stream.notes``.

Links are followed wherever they lead, because ``split.py`` makes streams of links. Only what ends in a regular file
counts as a picture, so a device or pipe is never opened. A name that is not UTF-8 is the class's name as ``shown``.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from edge_zofc.errors import InputError, shown

Part = Literal["train", "test"]
PARTS: tuple[Part, Part] = ("train", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class LeftOut:
    """Counts names and keeps the first few, so that a note on 100,000 files stays a sentence."""

    def __init__(self, why: str, names: Iterable[str] = ()) -> None:
        self.why, self.count, self.first = why, 0, list[str]()
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """Count a name that was left out."""
        self.count += 1
        if len(self.first) < 3:
            self.first.append(shown(name))

    def note(self) -> list[str]:
        """A sentence, or none where nothing was left out."""
        more = f" and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        return [f"{self.why}: {', '.join(self.first)}{more}."] if self.count else []


def scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The visible entries of a folder, none if it does not exist. Raises InputError if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{shown(folder)} cannot be listed ({error.strerror}).") from error


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, links to folders too, by name. Raises InputError."""
    return sorted(folder / entry.name for entry in scan(folder) if _leads_to(entry, "folder"))


def is_picture(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a regular file, or a link to one, that is named as a picture."""
    return entry.name.lower().endswith(SUFFIXES) and _leads_to(entry, "file")


def _leads_to(entry: os.DirEntry[str], kind: Literal["file", "folder"]) -> bool:
    """Whether an entry is, or is a link to, a regular file or a folder; a link that leads nowhere is neither."""
    try:
        return entry.is_file() if kind == "file" else entry.is_dir()
    except OSError:
        return False


_TASK_NAME = re.compile(r"[0-9]+_.+", re.DOTALL)
_LAYOUT = "NNN_name/train/<class>/*.jpg (and NNN_name/test/<class>/*.jpg)"


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

    @cached_property
    def ids(self) -> dict[str, int]:
        """Class name -> id."""
        return {name: number for number, name in enumerate(self.class_names)}


def read_stream(root: Path, known_classes: Sequence[str] = (), only: Collection[str] | None = None) -> Stream:
    """Find the tasks and classes below ``root``; every folder is listed once and no picture is opened.

    ``known_classes`` keep their ids 0, 1, ... even where the stream no longer holds them. ``only``: the task names to
    look at (None: all); other task folders may be half written.
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
    """Name -> folder of what is named NNN_name below ``root``, in order, half-written ones too. Raises InputError."""
    return {shown(folder.name): folder for folder in _tasks_and_others(root)[0]}


def _tasks_and_others(root: Path) -> tuple[list[Path], list[Path]]:
    """The folders below ``root`` that are named NNN_name, by number and then by name, and the others by name."""
    if not root.is_dir():
        raise InputError(f"There is no stream in {shown(root)}; a stream is a folder of {_LAYOUT}.")
    folders = subfolders(root)
    tasks = [folder for folder in folders if _TASK_NAME.fullmatch(folder.name)]
    tasks.sort(key=lambda folder: int(folder.name.partition("_")[0]))
    return tasks, [folder for folder in folders if not _TASK_NAME.fullmatch(folder.name)]


def list_samples(stream: Stream, task: Task, part: Part) -> list[Sample]:
    """The pictures of one part of one task, by class name and file name; [] where the part does not exist.

    Read from disk at each call. Classes that appeared after ``read_stream`` are left out. Raises InputError.
    """
    return [
        Sample(folder / name, stream.ids[shown(folder.name)])
        for folder in subfolders(task.folder / part)
        if shown(folder.name) in stream.ids
        for name in sorted(entry.name for entry in scan(folder) if is_picture(entry))
    ]


def fingerprint(stream: Stream, task: Task) -> str:
    """SHA-256 (hex) over names and sizes in bytes of a task's pictures, relative to its folder, sorted.

    No picture is read, so a change that keeps the size is not seen. A missing picture counts as size -1. Raises
    InputError if a folder cannot be listed.
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
    tasks, others = _tasks_and_others(root)
    names = [folder.name for folder in others]
    if not tasks and "train" in names:
        # "val" is noted with the task itself.
        tasks, names = [root], [name for name in names if name not in (*PARTS, "val")]
    if not tasks:
        raise InputError(f"There is no task in {shown(root)}; a stream is a folder of {_LAYOUT}.")
    notes += LeftOut("Not used, for the name is not NNN_name", names).note()
    return tasks


def _classes_of(folder: Path, where: str, notes: list[str]) -> dict[str, tuple[int, int]]:
    """Name -> (train, test) pictures of the classes of a task that have any; what is left out is noted."""
    found: dict[str, list[int]] = {}
    foreign = LeftOut(f"{where}: not used, for it is no {', '.join(SUFFIXES)} file in a class folder")
    for column, part in enumerate(PARTS):
        for entry in scan(folder / part):
            if not _leads_to(entry, "folder"):
                foreign.add(f"{part}/{entry.name}")
        for class_folder in subfolders(folder / part):
            counts = found.setdefault(shown(class_folder.name), [0, 0])
            for entry in scan(class_folder):
                if is_picture(entry):
                    counts[column] += 1
                else:
                    foreign.add(f"{part}/{class_folder.name}/{entry.name}")
    if (folder / "val").is_dir():
        notes.append(f"{where}: not used, for only train and test are: val.")
    empty = (name for name, counts in sorted(found.items()) if not any(counts))
    untaught = (name for name, (train, test) in sorted(found.items()) if test and not train)
    notes += foreign.note()
    notes += LeftOut(f"{where}: not used, for the class folder holds no picture", empty).note()
    notes += LeftOut(f"{where}: class with test pictures only", untaught).note()
    return {name: (train, test) for name, (train, test) in found.items() if train or test}
