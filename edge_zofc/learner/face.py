"""``Learner``: one object over a run, its lesson and ``learn``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from edge_zofc.device.memory_limit import enforce
from edge_zofc.engine.answers import Answer, ClassInfo, KeptBack, answer_of, classes_of, kept_back_of
from edge_zofc.engine.begin import begin_run, plan_of_teaching
from edge_zofc.engine.fleet_run import FleetRun
from edge_zofc.engine.predict import run_bundle
from edge_zofc.engine.taught_run import TaughtRun
from edge_zofc.engine.teaching import Teaching
from edge_zofc.errors import ImageError, InputError, quoted
from edge_zofc.inference.decode import read_file
from edge_zofc.learner.child import Progress, learn_in_child
from edge_zofc.learner.pictures import Picture, Pictures, as_file, as_input, as_list
from edge_zofc.report.summary import write_report
from edge_zofc.storage.bundle import read_bundle
from edge_zofc.storage.fleet_folder import FleetFolder
from edge_zofc.storage.lesson_log import Entry
from edge_zofc.storage.result import RunResult, read_result
from edge_zofc.storage.run_folder import EVENTS, RunFolder


@dataclass(frozen=True)
class Taught:
    """What ``teach`` kept: the numbers of the pictures, and a sentence for each that could not be read."""

    name: str
    serials: tuple[int, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class ShownPicture:
    """A picture of the open lesson. ``part``: "train", or "test" where it is kept back. ``burst``: the number of the
    first picture of its burst.
    """

    serial: int
    name: str
    part: str
    burst: int


class Learner:
    """A run that one may ask and teach. Open it with ``open`` or ``create``, and close it, best by ``with``.

    One thread uses it at a time. Asking needs no lock. The first change takes the lock that ``edge-zofc teach`` takes
    too, and keeps it until ``close``. ``learn`` may go on in another process meanwhile: see ``refresh``. Every error is
    an ``edge_zofc.errors.EdgeZofcError``.
    """

    def __init__(self, run: TaughtRun) -> None:
        self._run = run

    @classmethod
    def open(
        cls, run: str | Path, *, bundle: str | Path | None = None, threads: int = 1, limit_memory: bool = False
    ) -> Learner:
        """The run in the folder ``run``; ``bundle``: where its bundle is now, if it moved. A fleet answers only.

        ``limit_memory`` holds this whole process to what such a process needs (``device/teaching_plan.py``).
        Raises InputError if there is no run, DamagedFileError if a file of it is damaged.
        """
        folder, fleet = RunFolder(Path(run)), FleetFolder(Path(run))
        settings = fleet.about().settings() if fleet.is_fleet() else folder.settings()
        found = run_bundle(fleet if fleet.is_fleet() else folder, settings, None if bundle is None else Path(bundle))
        if limit_memory:
            enforce(plan_of_teaching(found.manifest.sizes, settings.execution, threads))
        if fleet.is_fleet():
            return cls(FleetRun(fleet, found, settings, threads))
        return cls(Teaching(folder, found, settings, threads))

    @classmethod
    def create(
        cls, bundle: str | Path, run: str | Path, *, profile: str = "auto", memory_budget: str | None = None,
        threads: int = 1, **options: Any,
    ) -> Learner:  # fmt: skip
        """A new run in the folder ``run``, which knows nothing yet.

        ``profile``, ``memory_budget`` (such as "512MiB") and ``options`` (such as ``adapter="off"``) are those of
        ``edge-zofc learn``, and hold for every later ``learn``.

        Raises InputError if a run is there already, DoesNotFitError if learning does not fit the budget.
        """
        folder, found = RunFolder(Path(run)), read_bundle(Path(bundle))
        settings = begin_run(folder, found, profile, memory_budget, options)
        return cls(Teaching(folder, found, settings, threads))

    @overload
    def predict(self, picture: Picture) -> Answer: ...
    @overload
    def predict(self, picture: Pictures) -> list[Answer]: ...
    def predict(self, picture: Picture | Pictures) -> Answer | list[Answer]:
        """What a picture shows, or each of several; a forward pass a picture.

        Raises ImageError for one that cannot be read, InputError while no class is known.
        """
        answers = [self._answer(each, f"picture {number}") for number, each in enumerate(as_list(picture), 1)]
        is_one = isinstance(picture, (np.ndarray, Image.Image, bytes, str, Path)) and getattr(picture, "ndim", 3) != 4
        return answers[0] if is_one else answers

    @property
    def _teaching(self) -> Teaching:
        if not isinstance(self._run, Teaching):
            raise InputError(
                f"The fleet in {self.run} is put together from shares; teach the run of a device, then share that."
            )
        return self._run

    def _answer(self, picture: Picture, name: str) -> Answer:
        what, name = as_input(picture, name)
        return answer_of(self._run, self._run.features_of(what, name))

    def teach(self, pictures: Picture | Pictures, name: str, *, test: bool = False, burst: int = 0) -> Taught:
        """Show pictures of ``name``, a new class or one that is known; the next ``predict`` knows them.

        They are on the disk when this returns, in ``RUN/lesson/pictures``. ``test=True`` keeps them back: they are
        never learnt from, and say how good the answers are. Keep back whole series of pictures, not single ones out
        of a series. The pictures of a call are a burst; ``burst``, the number of the first picture of an earlier call,
        lets them be part of that one. Pictures of one burst resemble each other and are no measure of one another, and
        one ``undo`` takes them back.

        Raises InputError where none can be read or the name cannot be one, DoesNotFitError for a full disk.
        """
        files, skipped = list[bytes](), list[str]()
        for number, picture in enumerate(as_list(pictures), 1):
            try:
                files.append(as_file(picture, f"picture {number}"))
            except ImageError as error:
                skipped.append(str(error))
        serials, damaged = self._teaching.teach(files, name, test, burst)
        skipped += damaged
        if not serials:
            raise InputError(skipped[0] if skipped else f"No picture of {quoted(name)} was given.")
        return Taught(name, tuple(serials), tuple(skipped))

    def forget(self, name: str) -> None:
        """Make ``name`` no class any more: the head is then, to the bit, that of a run that never saw it.

        An adapter that moved with it stays as it is. Raises InputError where there is no such class.
        """
        self._teaching.forget(name)

    def rename(self, old: str, new: str) -> None:
        """Call ``old`` ``new``; where ``new`` is a class already, both become one. Raises InputError."""
        self._teaching.rename(old, new)

    def move(self, serials: Sequence[int], name: str) -> None:
        """Say that pictures of the open lesson show ``name``. Raises InputError for a number that is not in it."""
        self._teaching.move(serials, name)

    def remove(self, serials: Sequence[int]) -> None:
        """Take pictures of the open lesson away. Raises InputError for a number that is not in it."""
        self._teaching.remove(serials)

    def undo(self) -> str:
        """Take the last change of the open lesson back, and say what it was. Raises InputError where there is none."""
        return _sentence(self._teaching.undo())

    def learn(
        self, stream: str | Path | None = None, on_progress: Callable[[Progress], None] | None = None, **device: str
    ) -> RunResult:
        """Learn a stream's new tasks; without one the open lesson becomes a task and is learnt.

        It runs in a process of its own, under the memory budget of the run, so that its limit does not hold for this
        process. ``device`` are ``profile`` and ``memory_budget`` as in ``create``. Raises the error that
        ``edge-zofc learn`` ends with.
        """
        if stream is None:
            if self.pictures:
                self.close_lesson()
            stream = self.lesson_stream
        words = [sys.executable, "-m", "edge_zofc", "learn", "--json", "--run", str(self.run), "--stream", str(stream)]
        names = {"profile": "--device-profile", "memory_budget": "--memory-budget"}
        for name, value in device.items():
            if name not in names:
                raise InputError(f"learn takes {' and '.join(names)}, not {quoted(name)}.")
            words += [names[name], value]
        learn_in_child(words, self.run / EVENTS, on_progress)
        self.refresh()
        return read_result(self.run)

    def close_lesson(self) -> str:
        """Make the open lesson a task of ``lesson_stream`` and return its name; it cannot be taken back.

        Raises InputError where there is nothing to learn from.
        """
        return self._teaching.close_lesson()

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self._run.run.path

    @property
    def lesson_stream(self) -> Path:
        """The stream that closed lessons are tasks of, for ``learn``."""
        return self._run.folder.tasks

    def report(self, out: str | Path | None = None) -> Path:
        """Write the run's page and return its place. Raises InputError before anything was learnt by ``learn``."""
        return write_report(self.run, None if out is None else Path(out), None, True)

    def refresh(self) -> bool:
        """Take over what another process has learnt or taught since; returns whether there was anything."""
        return self._run.refresh()

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """All classes that can be answered, with what is known of them."""
        return classes_of(self._run)

    @property
    def pictures(self) -> tuple[ShownPicture, ...]:
        """The pictures of the open lesson."""
        found = self._teaching.pictures()
        return tuple(ShownPicture(p.serial, p.name, "test" if p.test else "train", p.burst) for p in found)

    def picture_bytes(self, serial: int) -> bytes:
        """The file of a picture of the open lesson. Raises InputError for another number."""
        for picture in self._teaching.pictures():
            if picture.serial == serial:
                return read_file(picture.path)
        raise InputError(f"There is no picture {quoted(serial)} in the open lesson.")

    @property
    def kept_back(self) -> KeptBack:
        """How many of the pictures that were kept back are named rightly."""
        return kept_back_of(self._run)

    def close(self) -> None:
        """Give files, lock and memory back."""
        self._run.close()

    def __enter__(self) -> Learner:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _sentence(entry: Entry) -> str:
    """What an entry did, for the one who takes it back."""
    name, to, count = entry.name, entry.to, max(len(entry.files), len(entry.serials))
    many = f"{count} picture{'' if count == 1 else 's'}"
    return {
        "teach": f"{many} of {name} taken back",
        "forget": f"{name} is known again",
        "rename": f"{to} is called {name} again",
        "move": f"{many} no longer moved to {to}",
        "remove": f"{many} put back",
        "undo": "",
    }[entry.kind]
