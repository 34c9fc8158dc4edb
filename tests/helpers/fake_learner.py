"""A learner that knows a picture by its bytes: what a test needs of ``edge_zofc.learner.Learner``, without a graph."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edge_zofc.errors import InputError
from edge_zofc.learner import Answer, ClassInfo, Guess, KeptBack, ShownPicture, Taught
from edge_zofc.storage.names import class_name


class FakeLearner:
    """Names a picture that it was taught, and every other one unknown. One thread may use it at a time."""

    def __init__(self, run: Path) -> None:
        self.run, self.owner = run, threading.get_ident()
        self.files: dict[int, bytes] = {}
        self.next_serial = 1
        self.shown: tuple[ShownPicture, ...] = ()
        self.log: list[tuple[ShownPicture, ...]] = []
        self.newer = False
        self.tasks = 0
        self.calls: list[str] = []

    def _note(self, call: str) -> None:
        self.calls.append(call)
        assert threading.get_ident() == self.owner, f"{call} on another thread"

    def _change(self, shown: Sequence[ShownPicture]) -> None:
        self.log.append(self.shown)
        self.shown = tuple(shown)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        names = dict.fromkeys(one.name for one in self.shown)
        counts = Counter((one.name, one.part) for one in self.shown)
        tests = {name: counts[name, "test"] for name in names}
        return tuple(ClassInfo(name, 0, counts[name, "train"], test, test, None) for name, test in tests.items())

    @property
    def pictures(self) -> tuple[ShownPicture, ...]:
        return self.shown

    @property
    def kept_back(self) -> KeptBack:
        count = sum(one.part == "test" for one in self.shown)
        return KeptBack(count, count)

    def predict(self, picture: bytes) -> Answer:
        self._note("predict")
        found = next((one.name for one in self.shown if self.files[one.serial] == picture), None)
        names = [one.name for one in self.classes]
        names.sort(key=lambda name: name != found)
        guesses = tuple(Guess(name, float(name == found), 0.9 if name == found else 0.1) for name in names)
        return Answer(found, 0.9 if found else 0.1, 0.35, guesses)

    def teach(self, picture: bytes, name: str, *, test: bool = False, burst: int = 0) -> Taught:
        self._note("teach")
        name, serial = class_name(name), self.next_serial
        self.next_serial += 1
        self.files[serial] = picture
        before = self.shown
        self._change((*self.shown, ShownPicture(serial, name, "test" if test else "train", burst or serial)))
        if burst:  # one undo takes the whole burst
            self.log.pop()
            assert before[-1].burst == burst, "in these tests nothing comes between"
        return Taught(name, (serial,), ())

    def _known(self, name: str) -> None:
        if all(one.name != name for one in self.shown):
            raise InputError(f"There is no class {name!r}.")

    def forget(self, name: str) -> None:
        self._note("forget")
        self._known(name)
        self._change([one for one in self.shown if one.name != name])

    def rename(self, old: str, new: str) -> None:
        self._note("rename")
        self._known(old)
        new = class_name(new)
        self._change([replace(one, name=new) if one.name == old else one for one in self.shown])

    def move(self, serials: Sequence[int], name: str) -> None:
        self._note("move")
        self._there(serials)
        self._change([replace(one, name=name) if one.serial in serials else one for one in self.shown])

    def remove(self, serials: Sequence[int]) -> None:
        self._note("remove")
        self._there(serials)
        self._change([one for one in self.shown if one.serial not in serials])

    def _there(self, serials: Sequence[int]) -> None:
        if not set(serials) <= {one.serial for one in self.shown}:
            raise InputError("There is no such picture in the open lesson.")

    def undo(self) -> str:
        self._note("undo")
        if not self.log:
            raise InputError("There is nothing to take back in this lesson.")
        self.shown = self.log.pop()
        return "the last change taken back"

    def close_lesson(self) -> str:
        self._note("close_lesson")
        self.shown, self.log = (), []
        self.tasks += 1
        return f"{self.tasks:03d}_lesson"

    def refresh(self) -> bool:
        newer, self.newer = self.newer, False
        return newer

    def picture_bytes(self, serial: int) -> bytes:
        self._there([serial])
        return self.files[serial]
