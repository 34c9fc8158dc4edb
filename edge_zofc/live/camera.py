"""A camera: the newest picture from an address, whatever happens to what sends it.

    with Camera("/dev/video0") as camera:
        frame = camera.wait_newer(0, timeout=10)        # Frame(serial=1, jpeg=b"...", seconds=...) or None
        print(camera.state.sentence)

A thread reads. It keeps the newest picture and drops those before it. A child that ends, writes something else than
JPEGs or is silent for 3 seconds is ended with its group and started again after 1, 2, 4 ... 30 seconds.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from edge_zofc.errors import ImageError, InputError, shown
from edge_zofc.live.addresses import PICTURES_A_SECOND, Source, read_address, read_command, without_secrets
from edge_zofc.live.child import Child
from edge_zofc.live.jpegs import MAX_PICTURE_BYTES, Splitter, is_picture

SILENT_SECONDS = 3.0
START_SECONDS = 20.0
"""How long the first picture of a child may take: network cameras send a whole one every few seconds alone."""
FOLDER_SECONDS = 1.0
PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 30.0
WAITING = "waiting for the first picture."
"""How the sentence ends while nothing has happened yet."""
_LOOK_SECONDS = 0.2
"""How often a waiting thread looks whether the camera is to close."""


@dataclass(frozen=True)
class Frame:
    """A picture as it came: ``serial`` counts from 1, ``seconds`` is ``time.monotonic()`` when it was whole."""

    serial: int
    jpeg: bytes
    seconds: float


@dataclass(frozen=True)
class CameraState:
    """Whether pictures arrive, and a sentence for people, without secrets.

    ``restarts`` counts the children after the first.
    """

    ok: bool
    sentence: str
    pictures: int = 0
    restarts: int = 0


class Pace:
    """The pauses before a child is started again: 1, 2, 4 ... 30 seconds; a picture lets them begin anew."""

    def __init__(self) -> None:
        self._next_seconds = PAUSE_SECONDS

    def pause_seconds(self, *, gave_pictures: bool) -> float:
        """How long to wait now, after a child that gave pictures or none."""
        pause = PAUSE_SECONDS if gave_pictures else self._next_seconds
        self._next_seconds = min(2 * pause, MAX_PAUSE_SECONDS)
        return pause


class Camera:
    """The newest picture of ``source``, an address (``addresses.py``) or a source that was read already.

    ``start`` returns at once; every method may be called from any thread. ``silent_seconds``: how long a child that
    gave pictures may give none. ``folder_seconds``: how long a picture of a folder stays. Raises InputError for an
    address that cannot be used.
    """

    def __init__(
        self,
        source: str | Source,
        *,
        silent_seconds: float = SILENT_SECONDS,
        start_seconds: float = START_SECONDS,
        folder_seconds: float = FOLDER_SECONDS,
    ) -> None:
        self.source = read_address(source) if isinstance(source, str) else source
        self._silent_seconds, self._start_seconds = silent_seconds, start_seconds
        self._folder_seconds = folder_seconds
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._newest: Frame | None = None
        self._restarts = 0
        self._ok, self._sentence = False, f"{self.source.name}: {WAITING}"

    def start(self) -> Camera:
        """Begin to read, on a thread; returns itself. Starting twice is nothing."""
        feed = {"child": self._feed_from_children, "folder": self._feed_from_folder}.get(self.source.kind)
        if feed is not None and self._thread is None:
            self._thread = threading.Thread(target=feed, name="camera", daemon=True)
            self._thread.start()
        return self

    def newest(self) -> Frame | None:
        """The newest picture, however old, or None before the first."""
        return self._newest

    def wait_newer(self, serial: int, timeout: float) -> Frame | None:
        """The newest picture as soon as its serial is above ``serial``; None after ``timeout`` seconds or a close."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed.is_set() or self._serial > serial, timeout)
            return self._newest if self._serial > serial else None

    @property
    def state(self) -> CameraState:
        """How it is now."""
        with self._changed:
            return CameraState(self._ok, self._sentence, self._serial, self._restarts)

    def close(self) -> None:
        """End the child and the thread; those who wait get None. Closing twice is nothing."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._tell(False, "closed.")

    def __enter__(self) -> Camera:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _serial(self) -> int:
        return self._newest.serial if self._newest else 0

    def _show(self, jpeg: bytes, sentence: str = "pictures arrive.") -> Frame:
        with self._changed:
            self._newest = Frame(self._serial + 1, jpeg, time.monotonic())
            self._tell(True, sentence)
            return self._newest

    def _tell(self, ok: bool, sentence: str) -> None:
        with self._changed:
            self._ok, self._sentence = ok, f"{self.source.name}: {sentence}"
            self._changed.notify_all()

    def _feed_from_children(self) -> None:
        pace, commands, index, has_worked = Pace(), self.source.commands, 0, False
        while not self._closed.is_set():
            before = self._serial
            try:
                reason = self._read_child(commands[index])
            except InputError as error:
                reason = str(error).rstrip(".")
            except (OSError, MemoryError) as error:
                reason = f"it cannot be read ({str(error) or 'memory ran out'})"
            if self._closed.is_set():
                return
            gave_pictures = self._serial > before
            has_worked |= gave_pictures
            if not has_worked:
                index = (index + 1) % len(commands)
            # Another way to read the same camera is tried at once.
            pause = 0.0 if index and not has_worked else pace.pause_seconds(gave_pictures=gave_pictures)
            reason = without_secrets(reason).removeprefix(f"{self.source.name}: ")
            self._tell(False, f"{reason}; it is started again{f' in {pause:.0f} s' if pause else ''}.")
            if not self._closed.wait(pause):
                self._restarts += 1

    def _read_child(self, command: tuple[str, ...]) -> str:
        """Show the pictures of one child until it ends or is ended; returns why."""
        splitter, held = Splitter(), list[bytes]()
        heard, due, patience = time.monotonic(), 0.0, self._start_seconds
        with Child(command) as child:
            while not self._closed.is_set():
                now = time.monotonic()
                if held and now >= due:
                    self._show(held.pop())
                    due = now + 1 / PICTURES_A_SECOND
                data = child.read(max(due - now, 0) if held else min(_LOOK_SECONDS, patience))
                if data == b"":
                    break
                found = splitter.feed(data) if data else []
                if found:
                    held[:] = found[-1:]
                    heard, patience = time.monotonic(), self._silent_seconds
                elif time.monotonic() - heard > patience:
                    words = child.last_words()
                    return f"no picture for {patience:g} s{f' ({words})' if words else ''}"
            # What ends after each picture is a camera, too.
            if held and not self._closed.is_set():
                self._show(held.pop())
        return child.reason()

    def _feed_from_folder(self) -> None:
        folder, left_out = self.source.folder, 0
        while folder is not None and not self._closed.is_set():
            paths, before = _files(folder), self._serial
            others, left_out = f", {left_out} other files left out" if left_out else "", 0
            for number, path in enumerate(paths, 1):
                jpeg = _read(path)
                if jpeg is None:
                    left_out += 1
                    continue
                self._show(jpeg, f"file {number} of {len(paths)}, {shown(path.name)}{others}.")
                if self._closed.wait(self._folder_seconds):
                    return
            if self._serial == before:
                what = f"no JPEG of at most {MAX_PICTURE_BYTES >> 20} MiB lies in it; put some there."
                self._tell(False, what)
                self._closed.wait(PAUSE_SECONDS)


class BrowserCamera(Camera):
    """A camera whose pictures are handed over, as those that a browser sends."""

    def __init__(self, *, silent_seconds: float = SILENT_SECONDS) -> None:
        super().__init__(Source("browser", "browser"), silent_seconds=silent_seconds)

    def put(self, jpeg: bytes) -> Frame:
        """Show a picture. Raises ImageError for what is not one whole JPEG within the limit."""
        if len(jpeg) > MAX_PICTURE_BYTES:
            raise ImageError(
                f"The picture has {len(jpeg)} bytes and the limit is {MAX_PICTURE_BYTES}; send a smaller one."
            )
        if not is_picture(jpeg):
            raise ImageError(f"The picture of {len(jpeg)} bytes is no whole JPEG; send an image/jpeg.")
        return self._show(bytes(jpeg))

    @property
    def state(self) -> CameraState:
        """How it is now; without a picture for ``silent_seconds`` the browser has gone."""
        found, newest = super().state, self._newest
        if found.ok and newest is not None and time.monotonic() - newest.seconds > self._silent_seconds:
            sentence = f"browser: no picture for {self._silent_seconds:g} s; open the page and start its camera."
            return CameraState(False, sentence, found.pictures, found.restarts)
        return found


def open_camera(address: str | None, command: str | None = None) -> Camera:
    """The camera of ``--camera`` or ``--camera-command``, not started yet. Raises InputError."""
    if address == "browser" and command is None:
        return BrowserCamera()
    if (address is None) == (command is None):
        raise InputError("Give one camera: --camera ADDRESS or --camera-command COMMAND.")
    source = read_address(address) if address is not None else read_command(command or "")
    return Camera(source)


def _files(folder: Path) -> list[Path]:
    """What lies in a folder and below it, by name, without what is hidden."""
    found = list[Path]()
    for above, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(above, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _read(path: Path) -> bytes | None:
    """The bytes of a JPEG file; None for anything else, for what is too large and for what cannot be read."""
    try:
        # A pipe or a device would keep the thread waiting.
        if not path.is_file() or path.stat().st_size > MAX_PICTURE_BYTES:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    return data if is_picture(data) else None
