"""The one thread that owns the learner: it names the camera's newest picture and carries out what the page asks for.

Nothing else may touch the learner. The page's server hands gestures over by ``ask`` and reads ``state``, which never
changes but is replaced as a whole.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

from edge_zofc.device.system import usage
from edge_zofc.errors import DoesNotFitError, EdgeZofcError
from edge_zofc.learner import Answer, ClassInfo, Guess, KeptBack, Learner, Shown
from edge_zofc.live.gestures import Gestures

PICTURE_SECONDS = 0.2
"""From one named picture to the next."""
REST_SECONDS = 0.02
"""Left for gestures after each picture where the graph is slower than that."""
REFRESH_SECONDS = 2.0
AGREE, OF = 3, 5
"""The caption changes when so many of the newest answers agree."""
MAX_WAITING = 64
"""Gestures that wait; one more is refused."""
SHOWN_GUESSES = 3

T = TypeVar("T")


class Camera(Protocol):
    """What the seer wants of a camera; any thread may ask it. ``is_browser``: its pictures come from the page."""

    is_browser: bool

    def newest(self) -> tuple[int, bytes] | None:
        """Number, from 1, and JPEG bytes of the newest picture; None before the first."""

    def sentence(self) -> str:
        """What the camera is doing, for the page; empty where all is well."""


class Watched(Protocol):
    """What the seer wants of the child that learns."""

    def tend(self) -> None:
        """Start it where it should run and does not."""

    def sentence(self) -> str:
        """What it is doing, for the page."""


@dataclass(frozen=True)
class View:
    """The newest answer: ``caption`` is what the last answers agree on, None before they do, "" for unknown."""

    picture: int = 0
    caption: str | None = None
    likeness: float = 0.0
    limit: float = 0.0
    guesses: tuple[Guess, ...] = ()
    seconds: float = 0.0
    recording: str | None = None
    for_test: bool = False
    kept: int = 0
    note: str = ""


@dataclass(frozen=True)
class Known:
    """Classes and pictures, as of ``revision``."""

    revision: int = -1
    classes: tuple[ClassInfo, ...] = ()
    kept_back: KeptBack = KeptBack(0, 0)
    pictures: tuple[Shown, ...] = ()


@dataclass(frozen=True)
class Doing:
    """Camera, learner and memory, each as a sentence or a number."""

    camera: str = ""
    learner: str = ""
    memory_mib: int = 0
    limit_mib: int | None = None
    is_browser: bool = False


@dataclass(frozen=True)
class State:
    """All that the page shows."""

    view: View = field(default_factory=View)
    known: Known = field(default_factory=Known)
    doing: Doing = field(default_factory=Doing)


class Caption:
    """What the newest answers agree on."""

    def __init__(self) -> None:
        self._names: deque[str] = deque(maxlen=OF)
        self.text: str | None = None

    def add(self, answer: Answer) -> str | None:
        """The caption after this answer: a class's name, "" for unknown, None where too few agree so far."""
        self._names.append(answer.name or "")
        name, count = Counter(self._names).most_common(1)[0]
        if count >= AGREE:
            self.text = name
        return self.text

    def clear(self) -> None:
        """Names mean something else now."""
        self._names.clear()
        self.text = None


class Seer:
    """Runs in ``run`` until ``stop``. ``changed`` is called, on the seer's thread, after each change of ``state``."""

    def __init__(self, learner: Learner, folder: Path, camera: Camera, watched: Watched) -> None:
        self.state = State()
        self.changed: Callable[[], None] = lambda: None
        self._learner, self._camera, self._watched = learner, camera, watched
        self._gestures = Gestures(learner, folder)
        self._asked: queue.Queue[Callable[[], None]] = queue.Queue(MAX_WAITING)
        self._caption, self._seen, self._next_refresh = Caption(), 0, 0.0
        self._stopping = threading.Event()

    def ask(self, gesture: Callable[[Gestures], T]) -> Future[T]:
        """Have a gesture carried out; from any thread. Raises DoesNotFitError where too many wait."""
        future: Future[T] = Future()

        def carry_out() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(gesture(self._gestures))
            except Exception as error:
                # A caller that has gone asks for no result; a defect is told by the one that is there.
                future.set_exception(error)

        try:
            self._asked.put_nowait(carry_out)
        except queue.Full:
            raise DoesNotFitError(f"{MAX_WAITING} requests wait already; try again in a moment.") from None
        return future

    def stop(self) -> None:
        """Let ``run`` end soon; from any thread."""
        self._stopping.set()

    def run(self) -> None:
        """Name pictures and carry out gestures until ``stop``."""
        due = 0.0
        self._publish()
        while not self._stopping.is_set():
            now = time.monotonic()
            if now >= due:
                self._look()
                due = max(now + PICTURE_SECONDS, time.monotonic() + REST_SECONDS)
                continue
            try:
                carry_out = self._asked.get(timeout=due - now)
            except queue.Empty:
                continue
            before = self._gestures.revision
            carry_out()
            if self._gestures.revision != before:
                self._caption.clear()
            self._publish()

    def _look(self) -> None:
        now = time.monotonic()
        try:
            if now >= self._next_refresh:
                self._next_refresh = now + REFRESH_SECONDS
                self._watched.tend()
                if self._learner.refresh():
                    self._gestures.revision += 1
            self._name_newest()
        except EdgeZofcError as error:
            self._gestures.note = str(error)
        except MemoryError:
            self._gestures.note = "Memory ran out for this picture; the next one is tried."
        self._publish()

    def _name_newest(self) -> None:
        newest = self._camera.newest()
        if newest is None or newest[0] == self._seen:
            return
        began = time.monotonic()
        self._seen, picture = newest
        answer = self._learner.predict(picture) if self.state.known.classes else None
        self._gestures.saw(self._seen, picture)
        if answer is None:
            self._caption.clear()
            self.state = replace(self.state, view=View(picture=self._seen))
            return
        caption = self._caption.add(answer)
        guesses = answer.guesses[:SHOWN_GUESSES]
        took = time.monotonic() - began
        view = View(self._seen, caption, answer.likeness, answer.limit, guesses, took)
        self.state = replace(self.state, view=view)

    def _publish(self) -> None:
        gestures, press = self._gestures, self._gestures.press
        view = replace(
            self.state.view,
            caption=self._caption.text,
            recording=press.burst.name if press else None,
            for_test=bool(press and press.burst.test),
            kept=press.kept if press else 0,
            note=gestures.note,
        )
        known = self.state.known
        if known.revision != gestures.revision:
            learner = self._learner
            known = Known(gestures.revision, learner.classes, learner.kept_back, learner.pictures)
        doing = Doing(self._camera.sentence(), self._watched.sentence(), usage().rss_bytes >> 20)
        new = State(view, known, doing if doing != self.state.doing else self.state.doing)
        if new != self.state:
            self.state = new
            self.changed()
