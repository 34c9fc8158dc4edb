"""Tells of SIGINT and SIGTERM while the main thread is inside a run of the graph.

What may surprise: Python's own handlers wait until the main thread is back in Python, and a run of sixteen pictures
through a ViT-B takes many seconds. But a few lines of C inside of Python note every signal at once, by a byte in a pipe
(``signal.set_wakeup_fd``). A thread that sleeps at the other end can then ask the run to end.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType

_END = b"\0"  # no signal has the number 0


class SignalBell:
    """As a context, on the main thread: ``answer`` is called on another thread at each signal that has a handler.

    Enter it before the memory cap is set: the thread's stack counts.
    """

    def __init__(self) -> None:
        self.answer: Callable[[], None] = lambda: None

    def _listen(self) -> None:
        while os.read(self._ear, 1) != _END:
            self.answer()

    def __enter__(self) -> SignalBell:
        self._ear, self._rope = os.pipe()
        os.set_blocking(self._rope, False)  # a signal handler must never wait
        self._before = signal.set_wakeup_fd(self._rope, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="signal-bell", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._before)
        os.write(self._rope, _END)
        self._thread.join()
        os.close(self._rope)
        os.close(self._ear)
