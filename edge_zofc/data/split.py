"""A folder of pictures by class -> a class-incremental stream of links, in the literature's shuffled class order.

The stream's pictures are relative links, or copies. It is made beside ``out`` and renamed, so that it appears complete
or not at all.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_zofc.data.folders import PARTS, SUFFIXES, LeftOut, LeftOuts, case_notes, class_name, part_folder, scan
from edge_zofc.data.layouts import layout_hint, refuse_unsorted
from edge_zofc.data.stream import numbered_tasks
from edge_zofc.errors import DoesNotFitError, InputError, shown
from edge_zofc.storage.writing import replace_folder

CLASS_ORDER_FILE = "class_order.json"
BARE_TEST_EVERY = 4
"""Of a class folder without train and test, every 4th picture by name becomes a test picture."""


@dataclass(frozen=True)
class SplitSummary:
    """What ``split_image_folder`` wrote: counts, and a sentence for each thing that it left out."""

    tasks: int
    classes: int
    train_images: int
    test_images: int
    notes: tuple[str, ...] = ()


def split_image_folder(
    source: Path, out: Path, classes_per_task: int | Sequence[int], seed: int = 1993, copy: bool = False
) -> SplitSummary:
    """Make a class-incremental stream of relative links from {train,test}/<class>/ (or from bare <class>/).

    With ``copy`` it stands on its own: hard links where the file system can make them, copies elsewhere.

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
    pictures = pictures_by_class(source, notes)
    names = sorted(pictures)
    sizes = _task_sizes(len(names), classes_per_task)
    order = [names[number] for number in np.random.RandomState(seed).permutation(len(names))]
    record = {
        "classes": [class_name(name) for name in order],
        "classes_per_task": sizes,
        "seed": seed,
        "shuffle": "numpy.random.RandomState(seed).permutation over the classes sorted by name",
    }
    try:
        _write_split(out, order, sizes, pictures, json.dumps(record, indent=2) + "\n", copy)
    except OSError as error:
        links = "" if copy else ", on a file system with symbolic links (or give --copy)"
        kind = DoesNotFitError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else InputError
        raise kind(
            f"{shown(out)} cannot be written ({error.strerror}); choose a place that you may write to{links}."
        ) from error
    train, test = (sum(len(parts[k]) for parts in pictures.values()) for k in (0, 1))
    return SplitSummary(len(sizes), len(names), train, test, tuple(notes))


def pictures_by_class(source: Path, notes: list[str]) -> dict[str, tuple[list[Path], list[Path]]]:
    """Class folder name, in NFC -> its train and its test pictures, as real paths but for the last name.

    Of bare <class>/ every 4th picture is a test picture. ``notes`` gets a sentence for each thing that is left out.
    Raises InputError if there is no folder ``source``, or no train picture in it.
    """
    if not source.is_dir():
        raise InputError(f"There is no folder {shown(source)}; name one of {{train,test}}/<class>/*.jpg.")
    found: dict[str, tuple[list[Path], list[Path]]] = {}
    has_parts, left = (source / "train").is_dir(), LeftOuts()
    for column, base in enumerate([part_folder(source, part) for part in PARTS] if has_parts else [source]):
        start = f"{base.name}/" if has_parts else ""
        for folder in left.class_folders(base, start):
            names, _ = left.pictures(folder, f"{start}{folder.name}")
            real = Path(os.path.realpath(folder))
            paths = [real / name for name in names]
            both = found.setdefault(unicodedata.normalize("NFC", folder.name), ([], []))
            if has_parts:
                both[column].extend(paths)
            else:
                both[1].extend(paths[BARE_TEST_EVERY - 1 :: BARE_TEST_EVERY])
                both[0].extend(path for i, path in enumerate(paths) if (i + 1) % BARE_TEST_EVERY)
    untaught = LeftOut("Not used, for the class has no train picture")
    for name in sorted(found):
        if not found[name][0]:
            untaught.add(name)
    notes += untaught.note() + (_part_notes(source) if has_parts else []) + left.notes()
    taught = {name: both for name, both in found.items() if both[0]}
    if not taught and any((folder / "train").is_dir() for folder in numbered_tasks(source).values()):
        raise InputError(f"{shown(source)} is a stream already; give it to 'edge-zofc learn --stream {shown(source)}'.")
    if not taught:
        hint = layout_hint(source / "train" if has_parts else source) or "".join(f" {note}" for note in left.notes())
        raise InputError(
            f"There is no picture ({', '.join(SUFFIXES)}) in {shown(source)}; it must hold train/<class>/ "
            f"and test/<class>/, or class folders.{hint}"
        )
    refuse_unsorted(taught, source)
    notes += case_notes(sorted(taught))
    return taught


def _part_notes(source: Path) -> list[str]:
    """What lies beside train and test, and what is taken for test."""
    test, others = part_folder(source, "test").name, LeftOut("Not used, for only train and test are")
    for name in sorted(entry.name for entry in scan(source)):
        if name not in (*PARTS, test):
            others.add(name)
    return others.note() + ([f"{test} is used as test, for test holds no picture."] if test != "test" else [])


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
    copy: bool,
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
                        _fill(work / "stream" / inner, None if copy else final / inner, paths)
            start += size
        (work / "stream" / CLASS_ORDER_FILE).write_text(record, encoding="utf-8")
        replace_folder(work / "stream", out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fill(folder: Path, final: Path | None, paths: list[Path]) -> None:
    """Put links to ``paths`` into ``folder``, which will be moved to ``final``; copies without ``final``."""
    folder.mkdir(parents=True)
    back = {parent: os.path.relpath(parent, final) for parent in {path.parent for path in paths}} if final else {}
    for path in paths:
        place = _free_place(folder, path)
        if final:
            place.symlink_to(Path(back[path.parent], path.name))
        else:
            _copy(path, place)


def _free_place(folder: Path, path: Path) -> Path:
    """A path for ``path`` in ``folder``: two folders of one class (NFC and NFD) may have the same file name."""
    place, number = folder / path.name, 2
    while os.path.lexists(place):
        place, number = folder / f"{path.stem}-{number}{path.suffix}", number + 1
    return place


_NO_HARD_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


def _copy(path: Path, place: Path) -> None:
    real = path.resolve()
    if not os.access(real, os.R_OK):
        raise InputError(f"{shown(real)} cannot be read (permission denied); give this user the permission.")
    try:
        os.link(real, place)
    except OSError as error:
        if error.errno not in _NO_HARD_LINK:
            raise
        shutil.copyfile(real, place)
