"""A run that is open for being shown pictures: what it answers, and what a person does to it.

Readers need no lock. The first change takes the lesson's lock, which ``learn`` does not have, and keeps it until
``close``. One thread uses it at a time. A change is on the disk when the call returns, and the next answer knows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.heads import Head
from edge_zofc.algorithm.likeness import Likeness, unknown_limit
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.engine import lesson
from edge_zofc.engine.class_parts import keys_of
from edge_zofc.engine.feature_store import FeatureStore, PictureSet
from edge_zofc.engine.lesson import Knowledge, LessonPicture, LessonView, view_of
from edge_zofc.engine.lesson_tasks import finish_closing, next_task
from edge_zofc.engine.state import RunState
from edge_zofc.errors import ImageError, InputError, quoted
from edge_zofc.inference.backbone import Backbone
from edge_zofc.inference.decode import read_file
from edge_zofc.inference.transforms import crop_test, decode_test, to_input
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.lesson_log import Base, Entry, LessonFolder, LessonLog, counting, remove_unknown
from edge_zofc.storage.lock import RunLock
from edge_zofc.storage.names import class_name
from edge_zofc.storage.run_folder import RunFolder
from edge_zofc.storage.settings import Settings
from edge_zofc.storage.writing import make_folder

log = logging.getLogger("edge_zofc")

UNDO_DEPTH = 20
"""So many of the last changes can be taken back; what was forgotten before leaves the disk."""
_SHOWN = PictureSet("lesson", ())


class TaughtRun:
    """The run in ``run`` at its newest checkpoint, with what was shown since. Raises as ``RunFolder.latest``."""

    def __init__(self, run: RunFolder, bundle: Bundle, settings: Settings, threads: int = 1) -> None:
        self.run, self.bundle, self.settings, self.threads = run, bundle, settings, threads
        self.folder = LessonFolder(run.path)
        self.tell: Callable[[str], None] = log.warning
        self._log: LessonLog | None = None
        self._lock: RunLock | None = None
        self._backbone: Backbone | None = None
        self._load()

    def _load(self) -> None:
        found = self.run.latest()
        self.checkpoint = None if found is None else found.path
        self.state = RunState.of(self.bundle, self.settings.options, None if found is None else found.snapshot)
        self.theta = self.state.adapter.theta
        self.finished = [task.name for task in self.state.finished_tasks]
        start = self.bundle.initial_adapter()
        self._moved = not np.array_equal(self.theta, start)
        self._store = FeatureStore(self.folder.features, self.state.head.rows.shape[1])
        self.features: dict[int, np.ndarray] = {}
        base, entries = self._logged()
        self._look(view_of(self.folder, base, entries, self.finished))

    def _logged(self) -> tuple[Base, list[Entry]]:
        if self._log is not None:
            return self._log.base, self._log.entries
        return self.folder.read()[:2]

    def _look(self, view: LessonView) -> None:
        """Build what is known from the checkpoint and the lesson."""
        self.view = view
        self._compute()
        self.knowledge: Knowledge | None = None
        if self.state.statistics is not None:
            self.knowledge = lesson.learnt_knowledge(self.run.path, self.state, view, self._moved)
            lesson.add_lesson(self.knowledge, view, self.features, self.tell)
        self._changed()

    def _changed(self) -> None:
        for name in ("head", "likeness", "kept_back", "limit"):
            self.__dict__.pop(name, None)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that can be answered, [C]."""
        if self.knowledge is not None and self.view.changes:
            return tuple(self.knowledge.names)
        return tuple(self.state.progress.class_names)

    @cached_property
    def head(self) -> Head:
        """Rows [C, D] for ``class_names``; the checkpoint's own where nothing was shown."""
        return self.knowledge.head() if self.knowledge is not None and self.view.changes else self.state.head

    @property
    def statistics(self) -> Statistics:
        """Sums and counts by class for ``class_names``; for a cosine head those of the adapter's start."""
        if self.knowledge is not None and self.view.changes:
            return self.knowledge.statistics
        known, found = len(self.class_names), self.state.statistics
        if found is None:
            return Statistics(self.state.class_sums, self.state.class_counts, np.zeros(0))
        return found.plus(Statistics.empty(known, found.sums.shape[1]))

    @cached_property
    def likeness(self) -> Likeness:
        """To the classes of ``class_names``."""
        return Likeness(self.statistics)

    @cached_property
    def kept_back(self) -> tuple[list[str], np.ndarray]:
        """Names [n] and features float32 [n, D] of the pictures that were kept back and can be read."""
        chosen = [p for p in self.view.pictures.values() if p.test and p.serial in self.features]
        none = np.zeros((0, self._store.feature_size), np.float32)
        rows = np.stack([self.features[p.serial] for p in chosen]) if chosen else none
        return [picture.name for picture in chosen], rows

    @cached_property
    def limit(self) -> float:
        """The likeness below which a picture is unknown."""
        rows = self.kept_back[1]
        return unknown_limit(self.likeness.to_classes(rows).max(axis=-1).tolist() if len(rows) else [])

    def features_of(self, picture: bytes | np.ndarray, name: str) -> np.ndarray:
        """Features float32 [D] of a picture file's bytes or of RGB pixels uint8 [H, W, 3]; ``name`` is for an error.

        Raises ImageError for a picture that cannot be read, MemoryError if the graph runs out of memory.
        """
        spec, backbone = self.bundle.manifest.image, self.backbone
        is_file = isinstance(picture, bytes)
        pixels = decode_test(Path(name), spec, picture).pixels if is_file else crop_test(np.asarray(picture), spec)
        to_input(pixels, spec, self.settings.options.normalise, backbone.image_buffer[0])
        return backbone.features(1, self.theta[None])[0, 0].copy()

    @property
    def backbone(self) -> Backbone:
        """The session, of one picture and one adapter; opened when it is needed first."""
        if self._backbone is None:
            one = {"micro_batch": 1, "parallel_queries": 1, "threads": self.threads}
            self._backbone = Backbone(self.bundle, self.settings.execution.model_copy(update=one))
        return self._backbone

    def _compute(self) -> None:
        """Features of the lesson's pictures, those of the cache read and those that it lacks computed."""
        for positions, rows in self._store.rows(_SHOWN, self.theta):
            self.features |= {
                int(n): row for n, row in zip(positions, rows, strict=True) if int(n) in self.view.pictures
            }
        missing = [picture for serial, picture in self.view.pictures.items() if serial not in self.features]
        found = lesson.read_features(missing, lambda path: self.features_of(read_file(path), str(path)), self.tell)
        self._keep_features(found)

    def _keep_features(self, found: dict[int, np.ndarray]) -> None:
        self.features |= found
        if found and self._log is not None:  # a reader writes nothing
            make_folder(self.folder.features)
            numbers = np.array(list(found), np.float32)[:, None]
            self._store.append(_SHOWN, self.theta, np.hstack([numbers, np.stack(list(found.values()))]))

    def refresh(self) -> bool:
        """Look at what ``learn`` and others did since; returns whether the run has a newer checkpoint."""
        found = self.run.latest()
        is_newer = (None if found is None else found.path) != self.checkpoint
        if is_newer:
            self._load()
        return is_newer

    def _writing(self) -> LessonLog:
        """The log, open for appending, under the lock. Raises RunLockedError while another process teaches."""
        if self._log is None:
            if self.state.statistics is None:
                raise InputError(
                    f"The run in {self.run.path} has a cosine head, which is trained and not solved; a run that is to "
                    "be shown pictures is begun with --head lda."
                )
            make_folder(self.folder.path)
            self._lock = RunLock(self.folder.path)
            try:
                self._log = LessonLog(self.folder)
                finish_closing(self.folder, self._log.base, self.finished)
            except BaseException:
                self.close()
                raise
            self._look(view_of(self.folder, self._log.base, self._log.entries, self.finished))
            self._tidy()
        return self._log

    def teach(self, pictures: Sequence[bytes], name: str, test: bool = False) -> tuple[list[int], list[str]]:
        """Show picture files of ``name``; returns the numbers of those kept and why others could not be read.

        ``test``: they are kept back. Raises InputError for a name that cannot be one, DoesNotFitError for a full disk.
        """
        name, writer = class_name(name), self._writing()
        found, skipped, files = dict[int, np.ndarray](), list[str](), list[str]()
        serial = self.view.next_serial
        for number, data in enumerate(pictures, 1):
            try:
                features = self.features_of(data, f"picture {number}")
            except ImageError as error:
                skipped.append(str(error))
                continue
            found[serial] = features
            files.append(writer.keep(serial, data))
            serial += 1
        if files:
            self._do(Entry(kind="teach", name=name, files=tuple(files), test=test), found)
        return list(found), skipped

    def _do(self, entry: Entry, found: dict[int, np.ndarray] | None = None) -> None:
        """Write an entry down and take it over; ``found``: features of its pictures."""
        writer = self._writing()
        writer.append(entry)
        self._keep_features(found or {})
        view = view_of(self.folder, writer.base, writer.entries, self.finished)
        if entry.kind == "teach" and self.knowledge is not None and found:
            if not entry.test:
                self.knowledge.add(entry.name, np.stack(list(found.values())))
            self.view = view
            self._changed()
        else:
            self._look(view)
            self._tidy()

    def own_classes(self, name: str) -> list[str]:
        """The run's own names of the classes that are shown as ``name``."""
        return [own for own in self.state.progress.class_names if self.view.shown(own) == name]

    def _check_known(self, name: str) -> None:
        pictures = self.view.pictures.values()
        if name not in self.class_names and all(picture.name != name for picture in pictures):
            known = ", ".join(map(quoted, self.class_names[:8])) or "none yet"
            raise InputError(f"There is no class {quoted(name)}; the classes are: {known}.")

    def forget(self, name: str) -> None:
        """Make ``name`` no class any more; answers are then those of a run that never saw it.

        Raises InputError where there is no such class, or a closed lesson with it waits to be learnt, and as
        ``load_part``.
        """
        self._writing()
        self._check_known(name)
        waiting = next(
            (picture.task for picture in self.view.pictures.values() if picture.name == name and picture.task), ""
        )
        if waiting:
            raise InputError(
                f"The lesson {waiting} with {quoted(name)} is closed and not learnt yet; let 'edge-zofc learn' learn it "
                "first, then forget the class."
            )
        own = self.own_classes(name)
        ids = [self.state.progress.class_names.index(each) for each in own]
        keys = [key for key in keys_of(self.state.finished_tasks, ids) if key not in self.view.forgotten]
        for key in keys:  # before it is written down: an earlier version kept no parts
            lesson.load_part(self.run.path, key, self._moved, self._store.feature_size)
        self._do(Entry(kind="forget", name=name, parts=tuple(keys)))

    def rename(self, old: str, new: str) -> None:
        """Call ``old`` ``new``; where ``new`` is a class already, both become one. Raises InputError."""
        self._writing()
        self._check_known(old)
        new = class_name(new)
        if new == old:
            raise InputError(f"{quoted(old)} is called that already; give it another name.")
        self._do(Entry(kind="rename", name=old, to=new, classes=tuple(self.own_classes(old))))

    def move(self, serials: Sequence[int], name: str) -> None:
        """Say that pictures of the open lesson show ``name``. Raises InputError for other pictures."""
        self._writing()
        self._do(Entry(kind="move", to=class_name(name), serials=self._open(serials)))

    def remove(self, serials: Sequence[int]) -> None:
        """Take pictures of the open lesson away. Raises InputError for other pictures."""
        self._writing()
        self._do(Entry(kind="remove", serials=self._open(serials)))

    def _open(self, serials: Sequence[int]) -> tuple[int, ...]:
        there = {picture.serial for picture in self.view.open_pictures}
        for serial in serials:
            if serial not in there:
                raise InputError(
                    f"There is no picture {quoted(serial)} in the open lesson; look at its pictures again."
                )
        if not serials:
            raise InputError("No picture is chosen; choose one at least.")
        return tuple(dict.fromkeys(serials))

    def undo(self) -> Entry:
        """Take the last change back, and return it. Raises InputError where there is none."""
        last = counting(self._writing().entries)[-UNDO_DEPTH:]
        if not last:
            raise InputError("There is nothing to take back in this lesson.")
        self._do(Entry(kind="undo"))
        return last[-1]

    def close_lesson(self) -> str:
        """Make the open lesson a task of ``tasks/``, for ``learn``; returns the task's name. It cannot be undone.

        Raises InputError where there is nothing to learn from.
        """
        writer = self._writing()
        closed, aliases = next_task(self.folder, self.view, self.state.progress.class_names, self.finished)
        base = Base(
            next_serial=self.view.next_serial,
            aliases=aliases,
            forgotten=tuple(sorted(self.view.forgotten)),
            closed=(*self.view.waiting, closed),
        )
        writer.begin(base)
        finish_closing(self.folder, base, self.finished)
        self._look(view_of(self.folder, base, [], self.finished))
        self._tidy()
        return closed.task

    def _tidy(self) -> None:
        """Remove the files of pictures that no undo can bring back."""
        writer = self._writing()
        entries = counting(writer.entries)
        kept = {picture.path.name for picture in self.view.open_pictures}
        for count in range(max(0, len(entries) - UNDO_DEPTH), len(entries)):
            before = view_of(self.folder, writer.base, entries[:count], self.finished)
            kept |= {picture.path.name for picture in before.open_pictures}
        remove_unknown(self.folder, kept)

    def pictures(self) -> list[LessonPicture]:
        """Those of the open lesson."""
        return self.view.open_pictures

    def close(self) -> None:
        """Give files, lock and session back."""
        for part in (self._log, self._backbone):
            if part is not None:
                part.close()
        if self._lock is not None:
            self._lock.release()
        self._log = self._backbone = self._lock = None
