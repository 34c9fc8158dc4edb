"""SIGINT and SIGTERM: asked to stop, a run saves its state and an export cleans up.

Only the main thread may set signal handlers. On another thread ``handled_by`` does nothing.

Python's own handlers wait until the main thread is back in Python, and a run of sixteen pictures through a ViT-B takes
many seconds. A few lines of C inside of Python note every signal at once, by a byte in a pipe
(``signal.set_wakeup_fd``). In ``stop_signals`` a thread that sleeps at the other end then ends the run of the graph.

SIGBUS comes when a mapped file has become shorter than what is read of it, or its disk fails. The instruction is tried
again and again, so that no handler in Python is ever reached; but the same thread reads the byte, tells what happened
and ends the process. That needs a faulting thread without the interpreter's lock, as in a run of the graph
(``bus_errors_told``). Anywhere else SIGBUS ends the process at once, as it always does.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from edge_zofc.errors import DamagedFileError, Stopped

log = logging.getLogger("edge_zofc")

_END = b"\0"  # no signal has the number 0
_listening = threading.Event()


class StopSignals:
    """``name`` is the first signal that came, None before; ``interrupt`` is called on another thread at each signal.
    ``bus_error`` says in a sentence why a mapped file cannot be read.

    Inside ``raising`` the first signal raises Stopped at once. A second one does not wait: it raises KeyboardInterrupt,
    unless the first has raised Stopped already.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.interrupt: Callable[[], None] = lambda: None
        self.bus_error: Callable[[], str] = lambda: "A file that is mapped into memory can no longer be read (SIGBUS)."
        self._raises = False

    def check(self) -> None:
        """Raise Stopped if a signal came."""
        if self.name is not None:
            raise Stopped(self.name)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """While the process waits, nothing is half done and a signal may end it anywhere."""
        self._raises = True
        try:
            self.check()
            yield
        finally:
            self._raises = False

    def note(self, number: int, frame: object) -> None:
        """The handler."""
        is_first, self.name = self.name is None, self.name or signal.Signals(number).name
        if self._raises and is_first:
            raise Stopped(self.name)
        if is_first:
            log.warning("%s: saving the state and stopping.", self.name)
        elif not self._raises:
            raise KeyboardInterrupt


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Catch SIGINT and SIGTERM. Enter it before the memory limit is set: the thread's stack counts."""
    signals = StopSignals()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)  # a signal handler must never wait

    def listen() -> None:
        while (number := os.read(read_end, 1)) != _END:
            if number[0] == signal.SIGBUS:
                # Nothing can be put in order: a thread is stuck in the graph. It is as after kill -9.
                try:
                    log.error("edge-zofc: %s", signals.bus_error())
                finally:
                    os._exit(DamagedFileError.exit_code)
            signals.interrupt()

    wakeup_before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    thread = threading.Thread(target=listen, name="stop-signals", daemon=True)
    thread.start()
    _listening.set()
    try:
        with handled_by(signals.note, signal.SIGINT, signal.SIGTERM):
            yield signals
    finally:
        _listening.clear()
        signal.set_wakeup_fd(wakeup_before)
        os.write(write_end, _END)
        thread.join()
        os.close(write_end)
        os.close(read_end)


@contextmanager
def bus_errors_told() -> Iterator[None]:
    """Inside of it, and of ``stop_signals``, a SIGBUS ends the process with a sentence and the code of a damaged file.

    For calls that let go of the interpreter's lock, and no others: the process would hang. Python's faulthandler, where
    somebody has enabled it, keeps the signal.
    """
    if not _listening.is_set() or faulthandler.is_enabled():
        yield
        return
    with handled_by(lambda number, frame: None, signal.SIGBUS):
        yield


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Inside of it SIGTERM raises SystemExit(143), so that every ``finally`` on the way out is run.

    So does SIGHUP, which a closed terminal sends (129), unless the process was told to ignore it, as nohup does.
    """

    def leave(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    with handled_by(leave, signal.SIGTERM, *(() if is_ignored else (signal.SIGHUP,))):
        yield


@contextmanager
def signals_held() -> Iterator[None]:
    """Inside of it nothing is interrupted: a SIGINT or SIGTERM that comes is answered when it ends; so is a SIGHUP."""
    arrived: list[int] = []
    held = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    try:
        with handled_by(lambda number, frame: arrived.append(number), *held):
            yield
    finally:
        if arrived:
            signal.raise_signal(arrived[0])


@contextmanager
def handled_by(handler: Callable[[int, object], None], *numbers: signal.Signals) -> Iterator[None]:
    """Inside of it these signals go to ``handler``."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
