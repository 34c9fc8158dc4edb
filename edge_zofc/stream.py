"""Folders of pictures -> tasks in order, pictures in order, batches in an order that a resumed run repeats.

    STREAM/NNN_name/{train,test}/<class>/*.jpg|jpeg|png|webp     tasks by number, then by name
    STREAM/{train,test}/<class>/...                              a bare tree is one task

``test`` may be missing. A class may come back in a later task and keeps its id: ids are given in order of
first appearance (tasks in order, classes by name) after those already known. Whatever is left out (an empty
class folder, a foreign file, a folder of another name) stands in ``Stream.notes``.

What may surprise: links are followed wherever they lead, because ``split_image_folder`` makes streams of
links; but only what ends in a regular file counts as a picture, so a device or pipe is never opened.
Names that are not UTF-8 are shown with backslashes, in class names too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edge_zofc.errors import InputError, shown

Part = Literal["train", "test"]
PARTS: tuple[Part, Part] = ("train", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
CLASS_ORDER_FILE = "class_order.json"
BARE_TEST_EVERY = 4
"""Of a class folder without train and test, every 4th picture by name becomes a test picture."""

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


@dataclass(frozen=True)
class SplitSummary:
    """What ``split_image_folder`` wrote: counts, and a sentence for each thing that it left out."""

    tasks: int
    classes: int
    train_images: int
    test_images: int
    notes: tuple[str, ...] = ()


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
    return {shown(folder.name): folder for folder in _numbered(_subfolders(root))}


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
        for folder in _subfolders(task.folder / part)
        if shown(folder.name) in ids
        for name in sorted(entry.name for entry in _scan(folder) if _is_picture(entry))
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


def split_image_folder(
    source: Path, out: Path, classes_per_task: int | Sequence[int], seed: int = 1993
) -> SplitSummary:
    """Make a class-incremental stream of relative links from {train,test}/<class>/ (or from bare <class>/).

    Classes, sorted by name, are shuffled by ``numpy.random.RandomState(seed).permutation``, the generator of
    the PILOT benchmarks, which numpy keeps frozen; the order stands in ``out/class_order.json``. With one
    number the last task takes what remains; a list must cover all classes. ``out`` appears complete or not at
    all and must not exist before. Classes without a train picture are left out and noted.
    Raises InputError.
    """
    if os.path.lexists(out):
        raise InputError(f"{shown(out)} exists already; name a new folder or take it away.")
    if not 0 <= seed < 2**32:
        raise InputError(f"The seed is {seed}; it must lie in 0 to {2**32 - 1}.")
    notes: list[str] = []
    pictures = _pictures_by_class(source, notes)
    names = sorted(pictures)
    sizes = _task_sizes(len(names), classes_per_task)
    order = [names[number] for number in np.random.RandomState(seed).permutation(len(names))]
    record = {
        "classes": [shown(name) for name in order],
        "classes_per_task": sizes,
        "seed": seed,
        "shuffle": "numpy.random.RandomState(seed).permutation over the classes sorted by name",
    }
    try:
        _write_split(out, order, sizes, pictures, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise InputError(
            f"{shown(out)} cannot be written ({error.strerror}); choose a place that you may write to, on a "
            "file system with symbolic links."
        ) from error
    train, test = (sum(len(parts[k]) for parts in pictures.values()) for k in (0, 1))
    return SplitSummary(len(sizes), len(names), train, test, tuple(notes))


class _LeftOut:
    """Counts names and keeps the first few, so that a note on 100,000 files stays a sentence."""

    def __init__(self, why: str) -> None:
        self.why, self.count, self.first = why, 0, list[str]()

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.first) < 3:
            self.first.append(shown(name))

    def note(self) -> list[str]:
        more = f" and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        return [f"{self.why}: {', '.join(self.first)}{more}."] if self.count else []


def _task_folders(root: Path, notes: list[str]) -> list[Path]:
    if not root.is_dir():
        raise InputError(f"There is no stream in {shown(root)}; a stream is a folder of {_LAYOUT}.")
    folders = _subfolders(root)
    matches = [(_TASK_NAME.fullmatch(folder.name), folder) for folder in folders]
    numbered = _numbered(folders)
    bare = not numbered and any(folder.name == "train" for folder in folders)
    if not numbered and not bare:
        raise InputError(f"There is no task in {shown(root)}; a stream is a folder of {_LAYOUT}.")
    others = _LeftOut("Not used, for the name is not NNN_name")
    for match, folder in matches:
        # Of a bare tree, "val" is noted with the task itself.
        if not match and not (bare and folder.name in (*PARTS, "val")):
            others.add(folder.name)
    notes += others.note()
    return [root] if bare else numbered


def _classes_of(folder: Path, where: str, notes: list[str]) -> dict[str, tuple[int, int]]:
    """Name -> (train, test) pictures of the classes of a task that have any; what is left out is noted."""
    found: dict[str, list[int]] = {}
    foreign = _LeftOut(f"{where}: not used, for it is no {', '.join(SUFFIXES)} file in a class folder")
    for column, part in enumerate(PARTS):
        for name in _loose_files(folder / part):
            foreign.add(f"{part}/{name}")
        for class_folder in _subfolders(folder / part):
            counts = found.setdefault(shown(class_folder.name), [0, 0])
            for entry in _scan(class_folder):
                if _is_picture(entry):
                    counts[column] += 1
                else:
                    foreign.add(f"{part}/{class_folder.name}/{entry.name}")
    empty = _LeftOut(f"{where}: not used, for the class folder holds no picture")
    untaught = _LeftOut(f"{where}: class with test pictures only")
    for name, (train, test) in sorted(found.items()):
        if not train:
            (untaught if test else empty).add(name)
    if (folder / "val").is_dir():
        notes.append(f"{where}: not used, for only train and test are: val.")
    notes += foreign.note() + empty.note() + untaught.note()
    return {name: (train, test) for name, (train, test) in found.items() if train or test}


def _pictures_by_class(source: Path, notes: list[str]) -> dict[str, tuple[list[Path], list[Path]]]:
    """Class folder name -> its train and its test pictures, as real paths but for the last name."""
    if not source.is_dir():
        raise InputError(f"There is no folder {shown(source)}; name one of {{train,test}}/<class>/*.jpg.")
    found: dict[str, tuple[list[Path], list[Path]]] = {}
    has_parts = (source / "train").is_dir()
    for column, base in enumerate([source / part for part in PARTS] if has_parts else [source]):
        for folder in _subfolders(base):
            names = sorted(entry.name for entry in _scan(folder) if _is_picture(entry))
            real = Path(os.path.realpath(folder))
            paths = [real / name for name in names]
            both = found.setdefault(folder.name, ([], []))
            if has_parts:
                both[column].extend(paths)
            else:
                both[1].extend(paths[BARE_TEST_EVERY - 1 :: BARE_TEST_EVERY])
                both[0].extend(path for i, path in enumerate(paths) if (i + 1) % BARE_TEST_EVERY)
    untaught = _LeftOut("Not used, for the class has no train picture")
    for name in sorted(found):
        if not found[name][0]:
            untaught.add(name)
    notes += untaught.note()
    if has_parts and (source / "val").is_dir():
        notes.append("Not used, for only train and test are: val.")
    taught = {name: both for name, both in found.items() if both[0]}
    if not taught:
        raise InputError(
            f"There is no picture ({', '.join(SUFFIXES)}) in {shown(source)}; it must hold train/<class>/ "
            "and test/<class>/, or class folders."
        )
    return taught


def _task_sizes(classes: int, per_task: int | Sequence[int]) -> list[int]:
    if isinstance(per_task, int):
        if per_task < 1:
            raise InputError(f"{per_task} classes per task is too few; give at least 1.")
        return [min(per_task, classes - start) for start in range(0, classes, per_task)]
    if min(per_task, default=0) < 1 or sum(per_task) != classes:
        raise InputError(
            f"The classes per task {list(per_task)} add up to {sum(per_task)} and there are {classes} classes; "
            "give counts of at least 1 that cover them all."
        )
    return list(per_task)


def _write_split(
    out: Path,
    order: list[str],
    sizes: list[int],
    pictures: dict[str, tuple[list[Path], list[Path]]],
    record: str,
) -> None:
    # Links are relative to where they will lie after the rename, with every link on the way resolved.
    final = Path(os.path.realpath(out.parent)) / out.name
    work = Path(tempfile.mkdtemp(prefix=f".{out.name[:100]}.", dir=out.parent))
    try:
        start, digits = 0, max(3, len(str(len(sizes))))
        for number, size in enumerate(sizes, start=1):
            for name in order[start : start + size]:
                for part, paths in zip(PARTS, pictures[name], strict=True):
                    if paths:
                        inner = Path(f"{number:0{digits}d}_task", part, name)
                        _link(work / "stream" / inner, final / inner, paths)
            start += size
        (work / "stream" / CLASS_ORDER_FILE).write_text(record, encoding="utf-8")
        (work / "stream").rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _link(folder: Path, final: Path, paths: list[Path]) -> None:
    folder.mkdir(parents=True)
    back = os.path.relpath(paths[0].parent, final)
    for path in paths:
        (folder / path.name).symlink_to(Path(back, path.name))


def _scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The visible entries of a folder, none if it does not exist. Raises InputError if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{shown(folder)} cannot be listed ({error.strerror}).") from error


def _subfolders(folder: Path) -> list[Path]:
    return sorted(folder / entry.name for entry in _scan(folder) if _leads_to(entry, "folder"))


def _loose_files(folder: Path) -> Iterator[str]:
    return (entry.name for entry in _scan(folder) if not _leads_to(entry, "folder"))


def _is_picture(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(SUFFIXES) and _leads_to(entry, "file")


def _leads_to(entry: os.DirEntry[str], kind: Literal["file", "folder"]) -> bool:
    """Whether an entry is, or is a link to, a regular file or a folder; a link that leads nowhere is neither."""
    try:
        return entry.is_file() if kind == "file" else entry.is_dir()
    except OSError:
        return False
