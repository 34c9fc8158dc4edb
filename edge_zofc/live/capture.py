"""``edge-zofc capture``: pictures of one thing, from a camera into a task folder.

    FOLDER/{train,test}/NAME/0003-0007.jpg      the seventh picture of the third burst

One call is one burst, of the bytes as the camera sent them. A picture is on the disk before it counts, and none is ever
replaced: a burst has a number of its own, and two processes cannot write into one class at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_zofc.errors import InputError, RunLockedError, explained, shown
from edge_zofc.live.camera import Camera, Frame
from edge_zofc.storage.names import class_name
from edge_zofc.storage.writing import make_folder, write_atomic

log = logging.getLogger("edge_zofc")

COUNT, EVERY_SECONDS, PATIENCE_SECONDS = 20, 0.5, 30.0
TRIES = 3
"""How often a camera that never gave a picture is started again before that is an error."""

_NAME = re.compile(r"(\d{4,9})-\d{4,9}\.jpg", re.ASCII)


@dataclass
class Burst:
    """The pictures of one call: their folder, the burst's number there and their names."""

    folder: Path
    number: int
    names: list[str] = field(default_factory=list)
    interrupted: bool = False

    def add(self, jpeg: bytes) -> None:
        """Write the next picture; on the disk when this returns. Raises as ``explained``."""
        name = f"{self.number:04}-{len(self.names) + 1:04}.jpg"
        write_atomic(self.folder / name, jpeg)
        self.names.append(name)


@dataclass(frozen=True)
class Limits:
    """When a burst ends: after ``count`` pictures or ``seconds`` from the first, whichever comes first.

    ``every_seconds`` lie between two pictures. A camera without a picture for ``patience_seconds`` is an error.
    """

    count: int = COUNT
    every_seconds: float = EVERY_SECONDS
    seconds: float | None = None
    patience_seconds: float = PATIENCE_SECONDS


def class_folder(folder: Path, name: str, *, test: bool) -> Path:
    """Where the pictures of a class belong in a task folder. Raises InputError for a name or a folder that is closed.

    A task with READY in it may be learnt already, and what is learnt must not change.
    """
    checked = class_name(name)
    if os.path.lexists(folder / "READY"):
        raise InputError(f"{shown(folder)} is finished, for READY lies in it; capture into the folder of a new task.")
    return folder / ("test" if test else "train") / checked


def capture(camera: Camera, folder: Path, limits: Limits) -> Burst:
    """Write pictures of a started camera into a class folder, made if need be, until a limit or Ctrl-C.

    Raises InputError where the camera gives none, RunLockedError where another process writes there, or as
    ``explained``; what was written stays, and is logged.
    """
    frames = _frames(camera, limits, time.monotonic)
    first = next(frames)  # before the folder is made: a camera without a picture leaves no empty class
    with _alone(folder) as number:
        burst = Burst(folder, number)
        try:
            for frame in itertools.chain((first,), frames):
                burst.add(frame.jpeg)
        except KeyboardInterrupt:
            burst.interrupted = True
        except BaseException:
            if burst.names:
                log.warning("%s: %d pictures were written before that.", shown(folder), len(burst.names))
            raise
        return burst


def _frames(camera: Camera, limits: Limits, clock: Callable[[], float]) -> Iterator[Frame]:
    """The camera's newest picture at each moment that is due."""
    serial, end, due = 0, float("inf"), clock()
    for number in range(limits.count):
        time.sleep(max(due - clock(), 0))
        # A picture from before the moment that is due does not count.
        newest = camera.newest()
        serial = max(serial, newest.serial if newest and number else 0)
        frame = _newer(camera, serial, min(clock() + limits.patience_seconds, end), clock)
        if clock() >= end:
            return
        if frame is None:
            raise InputError(f"No picture came from the camera, so it was given up. {camera.state.sentence}")
        yield frame
        if not number and limits.seconds is not None:
            end = frame.seconds + limits.seconds
        serial, due = frame.serial, frame.seconds + limits.every_seconds


def _newer(camera: Camera, serial: int, limit: float, clock: Callable[[], float]) -> Frame | None:
    """A picture newer than ``serial``, or None at the moment ``limit`` or if the camera cannot even be started."""
    while True:
        frame = camera.wait_newer(serial, min(0.5, max(limit - clock(), 0)))
        if frame or clock() >= limit or (not serial and camera.state.restarts >= TRIES):
            return frame


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Hold the folder's own lock, so that no file of a lock is left among pictures; gives the next burst's number."""
    make_folder(folder)
    with explained(folder, "locked"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with explained(folder, "locked"):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                who = f"Another capture writes into {shown(folder)}"
                raise RunLockedError(f"{who}; wait until it ends, then try again.") from error
            taken = [int(found[1]) for path in folder.iterdir() if (found := _NAME.fullmatch(path.name))]
        yield max(taken, default=0) + 1
    finally:
        os.close(handle)
