"""What a camera sees, one answer a picture, for as long as it is asked: the loop of ``predict --camera``.

A line of answers, as JSON:

    time          when the picture was whole, ISO 8601 in UTC
    picture       the camera's number of it, from 1; numbers are left out where pictures come faster than answers
    name          what it shows, null where it is like no class; then ``unknown`` is true
    stable        the name that 3 of the last 5 pictures agree on, else null
    likeness      to the nearest class; below ``limit`` a picture is unknown
    classes       the most probable ones, each with class_name, probability and likeness
    milliseconds  that the answer took

A picture that cannot be read has ``error``, a sentence, in place of ``unknown`` and what follows from it; it counts for
nothing.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from edge_zofc.errors import ImageError
from edge_zofc.learner import Answer, Learner
from edge_zofc.live.camera import WAITING, Camera, Frame

EVERY_SECONDS = 0.5
REFRESH_SECONDS = 5.0
LOST_SECONDS = 3.0
"""So long a camera may be between two pictures, as one that ends after each of them, before it counts as lost."""
AGREE, OF = 3, 5
_LOOK_SECONDS = 0.25

Clock = Callable[[], float]


class Listener(Protocol):
    """Who is told; every method may raise, which ends the loop."""

    def answered(self, line: dict[str, Any]) -> None:
        """An answer, as in the module's docstring."""

    def camera_is(self, there: bool, sentence: str) -> None:
        """The camera was lost, or is there again; ``sentence`` says why, without secrets."""


@dataclass(frozen=True)
class Pace:
    """An answer every ``every_seconds``, ``count`` of them or no end, with the ``top`` most probable classes."""

    every_seconds: float = EVERY_SECONDS
    count: int | None = None
    top: int = 3


class Stable:
    """What the newest answers agree on: ``name``, None where they do not or where that is "unknown"."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._names: deque[str | None] = deque(maxlen=OF)

    def add(self, name: str | None) -> str | None:
        """The stable name after one more answer; None is an unknown one."""
        self._names.append(name)
        best, count = Counter(self._names).most_common(1)[0]
        self.name = best if count >= AGREE else None
        return self.name

    def clear(self) -> None:
        """Forget the answers so far: what comes next is another moment."""
        self._names.clear()
        self.name = None


def answer_pictures(
    learner: Learner, camera: Camera, pace: Pace, listeners: Sequence[Listener], clock: Clock = time.monotonic
) -> None:
    """Answer a started camera's newest pictures until ``pace.count`` of them are answered.

    What another process teaches the run, or learns, is used from the next refresh on. Raises as ``Learner.predict`` and
    ``Learner.refresh``, but for single pictures that cannot be read, and what a listener raises.
    """
    stable, due = Stable(), clock() + REFRESH_SECONDS

    def camera_is(there: bool, sentence: str) -> None:
        if not there:
            stable.clear()
        for listener in listeners:
            listener.camera_is(there, sentence)

    for frame in itertools.islice(_frames(camera, pace, camera_is, clock), pace.count):
        if clock() >= due:
            learner.refresh()
            due = clock() + REFRESH_SECONDS
        line = _line(learner, frame, pace.top, stable, clock)
        for listener in listeners:
            listener.answered(line)


def _frames(camera: Camera, pace: Pace, tell: Callable[[bool, str], None], clock: Clock) -> Iterator[Frame]:
    """The newest picture at each moment that is due, without end; ``tell`` hears once that the camera went or came."""
    serial, due, heard, is_lost = 0, clock(), clock(), False
    while True:
        now, state, newest = clock(), camera.state, camera.newest()
        heard = newest.seconds if newest else heard
        is_gone = not state.ok and now - heard >= LOST_SECONDS and not state.sentence.endswith(WAITING)
        if is_gone and not is_lost:
            is_lost = True
            tell(False, state.sentence)
        elif is_lost and state.ok:
            is_lost = False
            tell(True, state.sentence)
        if now < due:
            time.sleep(min(_LOOK_SECONDS, due - now))
        elif frame := camera.wait_newer(serial, _LOOK_SECONDS):
            serial, due = frame.serial, max(due + pace.every_seconds, now)
            yield frame


def _line(learner: Learner, frame: Frame, top: int, stable: Stable, clock: Clock) -> dict[str, Any]:
    """The answer to one picture."""
    began = clock()
    taken = datetime.now(timezone.utc) - timedelta(seconds=began - frame.seconds)
    line: dict[str, Any] = {"time": taken.isoformat(timespec="milliseconds"), "picture": frame.serial}
    try:
        found: Answer = learner.predict(frame.jpeg)
    except ImageError as error:
        return line | {"name": None, "stable": stable.name, "error": str(error)}
    likeness = {"likeness": round(found.likeness, 4), "limit": round(found.limit, 4)}
    classes = [asdict(guess) for guess in found.guesses[:top]]
    for one in classes:
        one.update(probability=round(one["probability"], 4), likeness=round(one["likeness"], 4))
    names = {"name": found.name, "unknown": found.name is None, "stable": stable.add(found.name)}
    return line | names | likeness | {"classes": classes, "milliseconds": round(1000 * (clock() - began), 1)}
