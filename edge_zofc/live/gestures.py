"""What a person does on the page, carried out on the learner and the lesson; on the thread that owns both.

A press of the button lasts while the page renews it. A page that is gone, with the button down, ends it that way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edge_zofc.errors import EdgeZofcError, InputError, shown
from edge_zofc.learner import Learner
from edge_zofc.live.lesson import Burst, Lesson, check_class, look_at
from edge_zofc.storage.names import class_name

PRESS_SECONDS = 5.0
"""A press ends by itself when the page has not renewed it for so long."""
RECENT_PICTURES, RECENT_BYTES = 50, 8 << 20
"""Pictures that a correction may still mean: the page shows one that is a moment old."""


@dataclass(frozen=True)
class Press:
    """The button is down for ``burst.name``; the pictures ``serials`` joined so far."""

    burst: Burst
    until: float
    serials: tuple[int, ...] = ()


class Gestures:
    """Every public method is one gesture. They raise EdgeZofcError where it cannot be done."""

    def __init__(self, learner: Learner, clock: Callable[[], float] = time.monotonic) -> None:
        self.learner, self._clock = learner, clock
        self.lesson = Lesson(learner.run, learner.picture_bytes)
        self.press: Press | None = None
        self.note = ""
        """What happened last, in a sentence for the page."""
        self.revision = 0
        """Grows with every change of classes or pictures."""
        self._recent: deque[tuple[int, bytes]] = deque(maxlen=RECENT_PICTURES)

    def record(self, name: str, on: bool) -> str:
        """The button for ``name`` went down, is still down, or went up."""
        name, until = class_name(name), self._clock() + PRESS_SECONDS
        if not on:
            if self.press is not None and self.press.burst.name == name:
                self._release()
        elif self.press is not None and self.press.burst.name == name:
            self.press = replace(self.press, until=until)
        else:
            self._release()
            burst = self.lesson.begin(name, self.learner.classes, self.learner.pictures)
            self.press = Press(burst, until)
            self.note = ""
        return self.note

    def _release(self) -> None:
        press, self.press = self.press, None
        if press is not None and press.serials:
            kept = f"{_pictures(press.serials)} of {shown(press.burst.name)}"
            why = " kept back as a test; it is never learnt from" if press.burst.test else " to learn from"
            self._did(f"{kept}{why}.")

    def saw(self, number: int, picture: bytes) -> None:
        """The camera's picture ``number``, which the learner could read; joins the lesson while the button is down."""
        self._recent.append((number, picture))
        while sum(len(data) for _, data in self._recent) > RECENT_BYTES and len(self._recent) > 1:
            self._recent.popleft()
        if self.press is None:
            return
        if self._clock() > self.press.until:
            self._release()
            return
        try:
            self._join(picture, self.press)
        except EdgeZofcError:
            self._release()  # what cannot be kept now cannot be kept five times a second
            raise

    def _join(self, picture: bytes, press: Press) -> None:
        pictures, burst = self.learner.pictures, press.burst
        self.lesson.check_room(len(pictures))
        look = look_at(picture)
        why_not = self.lesson.why_not(look, burst.name, pictures)
        if why_not is None:
            first = press.serials[0] if press.serials else 0
            taught = self.learner.teach(picture, burst.name, test=burst.test, burst=first)
            self.lesson.joined(taught.serials[0], look)
            self.press = replace(press, serials=press.serials + taught.serials)
            self.revision += 1
        self.note = why_not or ""

    def correct(self, name: str, number: int) -> str:
        """The picture ``number`` shows ``name``: it is learnt from, whatever it looks like."""
        picture = next((data for found, data in self._recent if found == number), None)
        if picture is None:
            raise InputError("That picture is no longer there; show it again.")
        self.lesson.check_room(len(self.learner.pictures))
        check_class(name, self.learner.classes)
        taught = self.learner.teach(picture, name)
        self.lesson.corrected(taught.serials[0], look_at(picture))
        return self._did(f"Learnt: that is {shown(name)}.")

    def remove(self, serials: Sequence[int]) -> str:
        """Take pictures out of the lesson."""
        self._release()
        self.learner.remove(tuple(serials))
        return self._did(f"Forgot {_pictures(serials)}.")

    def move(self, serials: Sequence[int], name: str) -> str:
        """Pictures of the lesson show ``name``."""
        self._release()
        check_class(name, self.learner.classes)
        self.learner.move(tuple(serials), name)
        return self._did(f"Moved {_pictures(serials)} to {shown(name)}.")

    def forget(self, name: str) -> str:
        """Forget a whole class."""
        self._release()
        self.learner.forget(name)
        return self._did(f"Forgot {shown(name)}.")

    def rename(self, old: str, new: str) -> str:
        """Give a class another name."""
        self._release()
        self.learner.rename(old, new)
        return self._did(f"{shown(old)} is now {shown(new)}.")

    def undo(self) -> str:
        """Take the last gesture back, a whole showing."""
        self._release()
        return self._did(f"Undone: {self.learner.undo()}.")

    def close_lesson(self) -> str:
        """Make a task of the lesson, for the learner; returns its name."""
        self._release()
        pictures = self.learner.pictures
        if not pictures:
            raise InputError("This lesson has no picture yet; show something first.")
        task = self.learner.close_lesson()
        self.lesson.closed(pictures)
        self.revision += 1
        self.note = f"Kept as {task}."
        return task

    def picture(self, serial: int) -> bytes:
        """The bytes of a picture of the lesson."""
        return self.learner.picture_bytes(serial)

    def _did(self, sentence: str) -> str:
        self.revision += 1
        self.note = sentence
        return sentence


def _pictures(serials: Sequence[int]) -> str:
    return f"{len(serials)} picture{'s' * (len(serials) != 1)}"
