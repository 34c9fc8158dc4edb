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
from typing import Protocol, TypeVar

from edge_zofc.device.system import usage
from edge_zofc.errors import DoesNotFitError, EdgeZofcError
from edge_zofc.learner import Answer, ClassInfo, Guess, KeptBack, Learner, ShownPicture
from edge_zofc.live.camera import BrowserCamera, Camera
from edge_zofc.live.gestures import Gestures

PICTURE_SECONDS = 0.2
"""From one named picture to the next."""
REST_SECONDS = 0.02
"""Left for gestures after each picture where the graph is slower than that."""
REFRESH_SECONDS = 2.0
KNOWN_SECONDS = 0.5
"""From one look at all classes to the next while the button is down."""
AGREE, OF = 3, 5
"""The caption changes when so many of the newest answers agree."""
MAX_WAITING = 64
"""Gestures that wait; one more is refused."""
SHOWN_GUESSES = 3

T = TypeVar("T")


class Watched(Protocol):
    """What the seer wants of the child that learns."""

    def tend(self) -> None:
        """Start it where it should run and does not."""

    def sentence(self) -> str:
        """What it is doing, for the page."""

    def memory_mib(self) -> int | None:
        """What it has resident, None while it does not run."""


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
    kept_back: KeptBack = field(default_factory=lambda: KeptBack(0, 0))
    pictures: tuple[ShownPicture, ...] = ()


@dataclass(frozen=True)
class Limits:
    """Of memory: this process's, and the child's, which is the run's budget."""

    here_mib: int
    learner_mib: int


@dataclass(frozen=True)
class Doing:
    """Camera, learner and memory, each as a sentence or a number."""

    camera: str = ""
    learner: str = ""
    memory_mib: int = 0
    learner_mib: int | None = None
    """Of the child, None while there is none."""
    limits: Limits | None = None
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

    def __init__(self, learner: Learner, camera: Camera, watched: Watched, limits: Limits | None = None) -> None:
        self.state = State()
        """Complete as soon as this object is made."""
        self.changed: Callable[[], None] = lambda: None
        self._learner, self._camera, self._watched = learner, camera, watched
        self._limits, self._view, self._complained = limits, View(), False
        self._gestures = Gestures(learner)
        self._asked: queue.Queue[Callable[[], None]] = queue.Queue(MAX_WAITING)
        self._caption, self._seen, self._named = Caption(), 0, 0
        self._answer: Answer | None = None
        self._next_refresh = self._next_known = 0.0
        self._stopping = threading.Event()
        self._publish()

    def ask(self, gesture: Callable[[Gestures], T]) -> Future[T]:
        """Have a gesture carried out; from any thread. Raises DoesNotFitError where too many wait."""
        future: Future[T] = Future()

        def carry_out() -> None:
            if not future.set_running_or_notify_cancel():
                return
            before = self._gestures.revision
            try:
                result = gesture(self._gestures)
            except Exception as error:  # whoever asked raises it
                self._changed_since(before)
                future.set_exception(error)
            else:
                self._changed_since(before)  # first, so that whoever asked finds the new state
                future.set_result(result)

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
            carry_out()

    def _changed_since(self, revision: int) -> None:
        if self._gestures.revision != revision:
            self._caption.clear()
        self._publish()

    def _look(self) -> None:
        now, gestures = time.monotonic(), self._gestures
        try:
            if now >= self._next_refresh:
                self._next_refresh = now + REFRESH_SECONDS
                self._watched.tend()
                if self._learner.refresh():
                    gestures.revision += 1
            if self._name_newest() and self._complained:
                gestures.note, self._complained = "", False
        except EdgeZofcError as error:
            gestures.note, self._complained = str(error), True
        except MemoryError:
            gestures.note, self._complained = "Memory ran out for this picture; the next one is tried.", True
        self._publish()

    def _name_newest(self) -> bool:
        """Name the newest picture and let it join a lesson; whether there was a new one.

        One that stays before the camera counts again and again, and is named anew when something was learnt.
        """
        newest, revision = self._camera.newest(), self._gestures.revision
        if newest is None:
            return False
        is_new, self._seen = newest.serial != self._seen, newest.serial
        if is_new or self._named != revision:
            began, self._named, self._answer = time.monotonic(), revision, None
            self._answer = self._learner.predict(newest.jpeg) if self.state.known.classes else None
            self._view = _view_of(newest.serial, self._answer, time.monotonic() - began)
        if self._answer is None:
            self._caption.clear()
        else:
            self._caption.add(self._answer)
        if is_new:
            self._gestures.saw(newest.serial, newest.jpeg)
        return is_new

    def _publish(self) -> None:
        gestures, press = self._gestures, self._gestures.press
        view = replace(
            self._view,
            caption=self._caption.text,
            recording=press.burst.name if press else None,
            for_test=press is not None and press.burst.test,
            kept=len(press.serials) if press else 0,
            note=gestures.note,
        )
        known, now = self.state.known, time.monotonic()
        # All classes against all kept back pictures: not for every picture of a showing.
        if known.revision != gestures.revision and (press is None or now >= self._next_known):
            self._next_known = now + KNOWN_SECONDS
            learner = self._learner
            known = Known(gestures.revision, learner.classes, learner.kept_back, learner.pictures)
        doing = Doing(
            self._camera.state.sentence,
            self._watched.sentence(),
            usage().rss_bytes >> 20,
            self._watched.memory_mib(),
            self._limits,
            isinstance(self._camera, BrowserCamera),
        )
        before = self.state
        new = State(_kept(view, before.view), _kept(known, before.known), _kept(doing, before.doing))
        if new != before:
            self.state = new
            self.changed()


def _view_of(picture: int, answer: Answer | None, seconds: float) -> View:
    if answer is None:
        return View(picture)
    return View(picture, None, answer.likeness, answer.limit, answer.guesses[:SHOWN_GUESSES], seconds)


def _kept(new: T, old: T) -> T:
    """The old one where they are equal: a stream sends what is another object."""
    return old if new == old else new
