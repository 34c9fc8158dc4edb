"""A folder of pictures by class -> a class-incremental stream of links, in the literature's shuffled class order."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_zofc.data.stream import PARTS, SUFFIXES, LeftOut, is_picture, scan, subfolders
from edge_zofc.errors import InputError, shown
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
    source: Path, out: Path, classes_per_task: int | Sequence[int], seed: int = 1993
) -> SplitSummary:
    """Make a class-incremental stream of relative links from {train,test}/<class>/ (or from bare <class>/).

    Classes, sorted by name, are shuffled by ``numpy.random.RandomState(seed).permutation``, the generator of the PILOT
    benchmarks, which numpy keeps frozen. The order stands in ``out/class_order.json``. With one number the last task
    takes what remains; a list must cover all classes. ``out`` appears complete or not at all. Raises InputError, also
    where ``out`` exists.
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


def _pictures_by_class(source: Path, notes: list[str]) -> dict[str, tuple[list[Path], list[Path]]]:
    """Class folder name -> its train and its test pictures, as real paths but for the last name."""
    if not source.is_dir():
        raise InputError(f"There is no folder {shown(source)}; name one of {{train,test}}/<class>/*.jpg.")
    found: dict[str, tuple[list[Path], list[Path]]] = {}
    has_parts = (source / "train").is_dir()
    for base in [source / part for part in PARTS] if has_parts else [source]:
        for folder in subfolders(base):
            real = Path(os.path.realpath(folder))
            both = found.setdefault(folder.name, ([], []))
            names = sorted(entry.name for entry in scan(folder) if is_picture(entry))
            for number, name in enumerate(names, start=1):
                is_test = base.name == "test" if has_parts else number % BARE_TEST_EVERY == 0
                both[is_test].append(real / name)
    untaught = (name for name in sorted(found) if not found[name][0])
    notes += LeftOut("Not used, for the class has no train picture", untaught).note()
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
    out: Path, order: list[str], sizes: list[int], pictures: dict[str, tuple[list[Path], list[Path]]], record: str
) -> None:
    # Links are relative to where they will lie after the rename, with every link on the way resolved.
    final = Path(os.path.realpath(out.parent)) / out.name
    work = Path(tempfile.mkdtemp(prefix=f".{out.name[:100]}.", dir=out.parent))
    made, digits = work / "stream", max(3, len(str(len(sizes))))
    tasks = [f"{number:0{digits}d}_task" for number, size in enumerate(sizes, start=1) for _ in range(size)]
    try:
        for task, name in zip(tasks, order, strict=True):
            for part, paths in zip(PARTS, pictures[name], strict=True):
                if paths:
                    folder = Path(task, part, name)
                    (made / folder).mkdir(parents=True)
                    back = os.path.relpath(paths[0].parent, final / folder)
                    for path in paths:
                        (made / folder / path.name).symlink_to(Path(back, path.name))
        (made / CLASS_ORDER_FILE).write_text(record, encoding="utf-8")
        replace_folder(made, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
