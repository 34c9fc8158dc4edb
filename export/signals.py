"""What export does when it is asked to stop: it cleans up, and then ends with exit code 143.

Only the main thread may set signal handlers. On another thread both contexts do nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

Handler = Callable[[int, object], None]


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Inside of it SIGTERM raises SystemExit(143), so that every ``finally`` on the way out is run."""

    def leave(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    with _handled_by(leave, signal.SIGTERM):
        yield


@contextmanager
def signals_held() -> Iterator[None]:
    """Inside of it nothing is interrupted: a SIGINT or SIGTERM that comes is answered when it ends."""
    arrived: list[int] = []
    try:
        with _handled_by(lambda number, _frame: arrived.append(number), signal.SIGINT, signal.SIGTERM):
            yield
    finally:
        if arrived:
            signal.raise_signal(arrived[0])


@contextmanager
def _handled_by(handler: Handler, *numbers: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
