"""SIGINT and SIGTERM, caught in one way: the first asks the process to stop, also inside a run of the graph.

Python's own handlers wait until the main thread is back in Python, and a run of sixteen pictures through a ViT-B takes
many seconds. A few lines of C inside of Python note every signal at once, by a byte in a pipe
(``signal.set_wakeup_fd``). A thread that sleeps at the other end then asks the run of the graph to end.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from edge_zofc.errors import Stopped

log = logging.getLogger("edge_zofc")

_END = b"\0"  # no signal has the number 0


class StopSignals:
    """As a context, on the main thread: ``name`` is the first signal that came, None before.

    ``interrupt`` is called on another thread at each signal. Inside ``raising`` the first signal raises Stopped at
    once. A second one does not wait: it raises KeyboardInterrupt, unless the first has raised Stopped already.

    Enter it before the memory limit is set: the thread's stack counts.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.interrupt: Callable[[], None] = lambda: None
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

    def _note(self, number: int, frame: object) -> None:
        is_first, self.name = self.name is None, self.name or signal.Signals(number).name
        if self._raises and is_first:
            raise Stopped(self.name)
        if not self._raises and is_first:
            log.warning("%s: saving the state and stopping.", self.name)
        elif not self._raises:
            raise KeyboardInterrupt

    def _listen(self) -> None:
        while os.read(self._read_end, 1) != _END:
            self.interrupt()

    def __enter__(self) -> StopSignals:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)  # a signal handler must never wait
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="stop-signals", daemon=True)
        self._thread.start()
        self._handlers = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.write(self._write_end, _END)
        self._thread.join()
        os.close(self._write_end)
        os.close(self._read_end)
