"""A run that is open for being shown pictures: what a person does to it.

The first change takes the lesson's lock, which ``learn`` does not have, and keeps it until ``close``. One thread uses
it at a time. A change is on the disk when the call returns, and the next answer knows it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_zofc.engine.class_parts import keys_of, load_part
from edge_zofc.engine.feature_store import FeatureStore
from edge_zofc.engine.lesson import LessonPicture, view_of
from edge_zofc.engine.lesson_tasks import finish_closing, next_task
from edge_zofc.engine.taught_run import SHOWN, TaughtRun
from edge_zofc.errors import ImageError, InputError, quoted
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.lesson_log import Base, Entry, LessonLog, gestures, remove_unknown, settled
from edge_zofc.storage.lock import RunLock
from edge_zofc.storage.names import class_name
from edge_zofc.storage.run_folder import RunFolder
from edge_zofc.storage.settings import Settings
from edge_zofc.storage.writing import make_folder


class Teaching(TaughtRun):
    """``TaughtRun`` with a lesson that one may change."""

    def __init__(self, run: RunFolder, bundle: Bundle, settings: Settings, threads: int = 1) -> None:
        self._log: LessonLog | None = None
        self._lock: RunLock | None = None
        super().__init__(run, bundle, settings, threads)

    def _logged(self) -> tuple[Base, list[Entry]]:
        return super()._logged() if self._log is None else (self._log.base, self._log.entries)

    def _log_mark(self) -> tuple[int, ...]:
        # Under the lock nobody else writes the log.
        return super()._log_mark() if self._log is None else self._seen_log

    def _keep_features(self, found: dict[int, np.ndarray]) -> None:
        super()._keep_features(found)
        if found and self._log is not None:
            make_folder(self.folder.features)
            numbers = np.array(list(found), np.float32)[:, None]
            self._store.append(SHOWN, self.theta, np.hstack([numbers, np.stack(list(found.values()))]))

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

    def teach(
        self, pictures: Sequence[bytes], name: str, test: bool = False, burst: int = 0
    ) -> tuple[list[int], list[str]]:
        """Show picture files of ``name``; returns the numbers of those kept and why others could not be read.

        ``test``: they are kept back. ``burst``: the number of the first picture of the burst that goes on, 0 for a new
        one. Raises InputError for a name that cannot be one or such a number, DoesNotFitError for a full disk.
        """
        name, writer = class_name(name), self._writing()
        if not 0 <= burst < self.view.next_serial:
            raise InputError(f"There is no burst {quoted(burst)} to go on with; leave it out to begin one.")
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
            self._do(Entry(kind="teach", name=name, files=tuple(files), test=test, burst=burst), found)
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
        waiting = next((p.task for p in self.view.pictures.values() if p.name == name and p.task), "")
        if waiting:
            raise InputError(
                f"The lesson {waiting} with {quoted(name)} is closed and not learnt yet; let 'edge-zofc learn' learn "
                "it first, then forget the class."
            )
        own = self.own_classes(name)
        ids = [self.state.progress.class_names.index(each) for each in own]
        keys = [key for key in keys_of(self.state.finished_tasks, ids) if key not in self.view.forgotten]
        for key in keys:  # before it is written down: an earlier version kept no parts
            load_part(self.run.path, key, self._moved, self._store.feature_size)
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
        """Take the last change back, a whole burst, and return it. Raises InputError where there is none."""
        entries = self._writing().entries
        done = gestures(entries)
        if len(done) <= settled(entries):
            raise InputError("There is nothing to take back in this lesson.")
        self._do(Entry(kind="undo"))
        files = tuple(file for entry in done[-1] for file in entry.files)
        return done[-1][0].model_copy(update={"files": files})

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
            lines=writer.base.lines + len(writer.entries),
        )
        writer.begin(base)
        finish_closing(self.folder, base, self.finished)
        self._look(view_of(self.folder, base, [], self.finished))
        self._tidy()
        return closed.task

    def _tidy(self) -> None:
        """Remove the files of pictures that no undo can bring back."""
        writer = self._writing()
        done = gestures(writer.entries)
        kept = {picture.path.name for picture in self.view.open_pictures}
        for count in range(settled(writer.entries), len(done)):
            entries = [entry for gesture in done[:count] for entry in gesture]
            before = view_of(self.folder, writer.base, entries, self.finished)
            kept |= {picture.path.name for picture in before.open_pictures}
        if remove_unknown(self.folder, kept):
            self._store.forget_all_but(set())
            self._store = FeatureStore(self.folder.features, self._store.feature_size)
            self._keep_features({n: row for n, row in self.features.items() if n in self.view.pictures})

    def pictures(self) -> list[LessonPicture]:
        """Those of the open lesson."""
        return self.view.open_pictures

    def close(self) -> None:
        """Give files, lock and session back."""
        if self._log is not None:
            self._log.close()
        if self._lock is not None:
            self._lock.release()
        self._log = self._lock = None
        super().close()
