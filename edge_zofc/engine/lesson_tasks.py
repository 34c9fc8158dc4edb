"""A closed lesson as a task of ``RUN/lesson/tasks/``, a stream that ``learn`` reads like any other.

The log says first that a lesson is closed. The folder is made then, from what lies in ``pictures/``, and made again
after a cut in between.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from edge_zofc.engine.lesson import READY, TEST, TRAIN, LessonView
from edge_zofc.errors import DamagedFileError, InputError, explained, quoted
from edge_zofc.storage.lesson_log import Base, ClosedLesson, KeptPicture, LessonFolder
from edge_zofc.storage.reading import is_there
from edge_zofc.storage.writing import make_folder, replace_folder

_NAME = re.compile(r"([0-9]{3,6})_lesson")


def next_task(
    folder: LessonFolder, view: LessonView, own_names: Sequence[str], finished: Sequence[str]
) -> tuple[ClosedLesson, dict[str, str]]:
    """What the open lesson becomes as a task, and the aliases that go with its folders. Nothing is written.

    ``own_names``: the run's own names of classes. Raises InputError where there is nothing to learn from.
    """
    pictures = view.open_pictures
    folders, aliases = _folders(view, own_names)
    if all(picture.test for picture in pictures):
        raise InputError("The lesson has no picture to learn from; show some first.")
    learnable = {picture.name for picture in pictures if not picture.test}
    kept = [
        # A class with nothing but kept back pictures would not be known: they are learnt from.
        KeptPicture(file=p.path.name, folder=folders[p.name], test=p.test and p.name in learnable, burst=p.burst)
        for p in pictures
    ]
    there = [entry.name for entry in folder.tasks.iterdir()] if folder.tasks.is_dir() else []
    known = [*there, *finished, *(lesson.task for lesson in view.waiting)]
    numbers = [int(match[1]) for name in known if (match := _NAME.fullmatch(name))]
    return ClosedLesson(task=f"{max(numbers, default=0) + 1:03d}_lesson", pictures=tuple(kept)), aliases


def _folders(view: LessonView, own_names: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Shown name -> the run's own name of it, and own name -> shown name where they differ."""
    aliases, found = dict(view.aliases), dict[str, str]()
    taken = {*own_names, *(kept.folder for lesson in view.waiting for kept in lesson.pictures)}
    for name in dict.fromkeys(picture.name for picture in view.open_pictures):
        own = next((each for each in sorted(taken) if view.shown(each) == name), name)
        if own == name and name in taken and view.shown(name) != name:
            number = 2
            while f"{name} {number}" in taken:
                number += 1
            own = f"{name} {number}"
            aliases[own] = name
        taken.add(own)
        found[name] = own
    return found, aliases


def finish_closing(folder: LessonFolder, base: Base, finished: Sequence[str]) -> None:
    """Make the folders of closed lessons that are not there; remove those of lessons that were learnt long ago not."""
    for lesson in base.closed:
        target = folder.tasks / lesson.task
        if lesson.task in finished or is_there(target):
            continue
        make_folder(folder.tasks)
        made = folder.tasks / f".{lesson.task}"
        with explained(made, "made"):
            shutil.rmtree(made, ignore_errors=True)
            for kept in lesson.pictures:
                _copy(
                    folder.pictures / kept.file, made / (TEST if kept.test else TRAIN) / _safe(kept.folder) / kept.file
                )
            (made / READY).write_bytes(b"")
        replace_folder(made, target)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # file systems without links
        shutil.copyfile(source, target)


def _safe(name: str) -> str:
    """A folder's name that leads nowhere else. Raises DamagedFileError."""
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise DamagedFileError(f"{quoted(name)} in the lesson's log is no name of a folder; put back a good copy.")
    return name
