"""What a run knows with what a person showed it since: the newest checkpoint, less what was forgotten, plus a lesson.

The pictures are the truth (``storage/lesson_log.py``). Nothing here changes the run: its journal, its checkpoints and
what ``learn`` does stay as they are. From the statistics of the checkpoint's finished tasks those of forgotten classes
are taken (``class_parts.py``), those of the lesson's pictures are added, and all are grouped by the name that is shown.
It is exact: the head that is solved from them has the bits of one that never saw what was forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.heads import Head, solve
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.engine.class_parts import class_of, keys_of, load_part
from edge_zofc.engine.state import RunState
from edge_zofc.errors import ImageError
from edge_zofc.storage.lesson_log import Base, ClosedLesson, Entry, LessonFolder, counting, serial_of

TRAIN, TEST, READY = "train", "test", "READY"


@dataclass(frozen=True)
class LessonPicture:
    """A picture that counts: its number, its file, the class that it shows, whether it is kept back, its burst (the
    number of the burst's first picture) and the closed lesson that it is part of ("": the open one).
    """

    serial: int
    path: Path
    name: str
    test: bool
    burst: int
    task: str = ""


@dataclass
class LessonView:
    """What a lesson's log comes to, for a run that has finished certain tasks."""

    pictures: dict[int, LessonPicture] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    next_serial: int = 1
    waiting: tuple[ClosedLesson, ...] = ()
    """Closed lessons that the run has not learnt yet."""

    @property
    def changes(self) -> bool:
        """Whether the run knows anything else than its checkpoint says."""
        return bool(self.pictures or self.aliases or self.forgotten)

    @property
    def open_pictures(self) -> list[LessonPicture]:
        """Those of the open lesson, in order."""
        return [picture for picture in self.pictures.values() if not picture.task]

    def shown(self, class_name: str) -> str:
        """What one of the run's own classes is called now."""
        return self.aliases.get(class_name, class_name)


def view_of(folder: LessonFolder, base: Base, entries: Sequence[Entry], finished: Iterable[str]) -> LessonView:
    """What a log comes to; ``finished``: names of the tasks that the run has learnt."""
    done = set(finished)
    waiting = tuple(lesson for lesson in base.closed if lesson.task not in done)
    view = LessonView({}, dict(base.aliases), set(base.forgotten), base.next_serial, waiting)
    for lesson in waiting:
        _add_closed(view, folder, lesson)
    for entry in entries:  # a number is not given twice, be it taken back
        if entry.files:
            view.next_serial = max(view.next_serial, serial_of(entry.files[-1]) + 1)
    for entry in counting(entries):
        _apply(view, folder, entry)
    return view


def read_view(folder: LessonFolder, finished: Iterable[str]) -> LessonView:
    """The view of a lesson on the disk, without its lock. Raises as ``LessonFolder.read``."""
    base, entries, _ = folder.read()
    return view_of(folder, base, entries, finished)


def _add_closed(view: LessonView, folder: LessonFolder, lesson: ClosedLesson) -> None:
    for kept in lesson.pictures:
        path = folder.tasks / lesson.task / (TEST if kept.test else TRAIN) / kept.folder / kept.file
        serial = serial_of(kept.file)
        where = path if path.exists() else folder.pictures / kept.file  # the folder may not be made yet
        view.pictures[serial] = LessonPicture(
            serial, where, view.shown(kept.folder), kept.test, kept.burst, lesson.task
        )


def _apply(view: LessonView, folder: LessonFolder, entry: Entry) -> None:
    if entry.kind == "teach":
        burst = entry.burst or (serial_of(entry.files[0]) if entry.files else 0)
        for name in entry.files:
            path, serial = folder.pictures / name, serial_of(name)
            view.pictures[serial] = LessonPicture(serial, path, entry.name, entry.test, burst)
    elif entry.kind == "forget":
        view.forgotten |= set(entry.parts)
        view.pictures = {n: picture for n, picture in view.pictures.items() if picture.name != entry.name}
    elif entry.kind == "rename":
        view.aliases |= dict.fromkeys(entry.classes, entry.to)
        chosen = [n for n, picture in view.pictures.items() if picture.name == entry.name]
        _name(view, chosen, entry.to)
    elif entry.kind == "move":
        _name(view, entry.serials, entry.to)
    elif entry.kind == "remove":
        for serial in entry.serials:
            view.pictures.pop(serial, None)


def _name(view: LessonView, serials: Iterable[int], name: str) -> None:
    for serial in serials:
        old = view.pictures.get(serial)
        if old is not None:
            view.pictures[serial] = replace(old, name=name)


@dataclass
class Knowledge:
    """Names of classes as they are shown, and the statistics that the head is solved from; grows as one teaches."""

    names: list[str]
    statistics: Statistics
    learnt: dict[str, int]
    """Pictures of finished tasks, by name."""

    def add(self, name: str, features: np.ndarray) -> None:
        """Count in features float32 [n, D] of pictures of ``name``, a class known already or a new one."""
        if name not in self.names:
            self.names.append(name)
            self.statistics.sums = _grown(self.statistics.sums, len(self.names))
            self.statistics.counts = _grown(self.statistics.counts, len(self.names))
        label = self.names.index(name)
        self.statistics.add(features, np.full(len(features), label, np.int64))

    def head(self) -> Head:
        """Solved anew; one without a class where nothing is known."""
        head = Head.empty(self.statistics.sums.shape[1])
        head.biases = np.zeros(0, np.float32)
        if self.names:
            head.rows, head.biases = solve(self.statistics)
        return head


def _grown(table: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([table, np.zeros((rows - len(table), *table.shape[1:]), table.dtype)])


def learnt_knowledge(run: Path, state: RunState, view: LessonView, moved: bool) -> Knowledge:
    """What the run's finished tasks left, less what was forgotten, by shown names; classes without pictures left out.

    ``state`` of a run with a closed-form head, which is left as it was. Raises as ``load_part``.
    """
    size, found = state.head.rows.shape[1], state.statistics or Statistics.empty(0, state.head.rows.shape[1])
    sums, counts, moment = found.sums.copy(), found.counts.copy(), found.moment.copy()
    known = set(keys_of(state.finished_tasks, range(len(counts))))
    for key in sorted(view.forgotten & known):
        part = load_part(run, key, moved, size)
        sums[class_of(key)] -= part.sums[0]
        counts[class_of(key)] -= part.counts[0]
        moment -= part.moment
    knowledge = Knowledge([], Statistics(np.zeros((0, size)), np.zeros(0, np.int64), moment), {})
    shown = [view.shown(name) for name in state.progress.class_names[: len(counts)]]
    # A run that never saw a class has no place for it, and so has this one.
    names = list(dict.fromkeys(name for name, count in zip(shown, counts, strict=True) if count))
    knowledge.names = names
    by_name = Statistics.empty(len(names), size, moment=False)
    for name, row, count in zip(shown, sums, counts, strict=True):
        if count:
            by_name.sums[names.index(name)] += row
            by_name.counts[names.index(name)] += count
    knowledge.statistics.sums, knowledge.statistics.counts = by_name.sums, by_name.counts
    knowledge.learnt = dict(zip(names, map(int, by_name.counts), strict=True))
    return knowledge


def add_lesson(
    knowledge: Knowledge, view: LessonView, features: dict[int, np.ndarray], tell: Callable[[str], None]
) -> None:
    """Count the lesson's pictures in, those that are kept back left out. ``features``: float32 [D] by number.

    ``tell`` hears of each picture that cannot be read.
    """
    for serial, picture in view.pictures.items():
        if picture.test:
            continue
        if serial in features:
            knowledge.add(picture.name, features[serial][None])
        else:
            tell(f"Left out: picture {serial} of {picture.name} cannot be read.")


def read_features(
    pictures: Iterable[LessonPicture], one: Callable[[Path], np.ndarray], tell: Callable[[str], None]
) -> dict[int, np.ndarray]:
    """Features float32 [D] by number, from ``one`` picture file after the other; an unreadable one is told."""
    found = {}
    for picture in pictures:
        try:
            found[picture.serial] = one(picture.path)
        except ImageError as error:
            tell(f"Left out: {error}")
    return found
