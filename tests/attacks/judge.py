"""What an attack must end in: success or one of ours, in one sentence, in time, with nothing written elsewhere."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_zofc.errors import MAX_SENTENCE, EdgeZofcError

SECONDS = 10
MEMORY_BYTES = 96 << 20
"""A reader of small files may not make the process grow by more, whatever they say."""


class Hang(BaseException):
    """The reader took longer than SECONDS; nothing may catch this."""


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raise Hang after SECONDS."""

    def stop(number: int, frame: object) -> None:
        raise Hang(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_sentence(text: str) -> None:
    """One printable line that ends as a sentence does."""
    # An escaped character takes up to ten.
    assert text.isprintable() and text.endswith(".") and len(text) <= 10 * MAX_SENTENCE, repr(text)


def verdict(read: Callable[[], object], codes: set[int], what: str) -> int:
    """0 where ``read`` succeeds, else the exit code, which must be one of ``codes``. Anything else fails the test."""
    try:
        with time_limit():
            read()
    except EdgeZofcError as error:
        check_sentence(str(error))
        assert error.exit_code in codes, f"{what}: {error.exit_code} {error}"
        return error.exit_code
    except (Exception, Hang) as error:
        raise AssertionError(f"{what} ends in {type(error).__name__}: {error}") from error
    assert 0 in codes, f"{what} passes for good"
    return 0


@contextlib.contextmanager
def bounded_memory(limit_bytes: int = MEMORY_BYTES) -> Iterator[None]:
    """Fail if the peak of this process grows by more."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown <= limit_bytes, f"the process grew by {grown >> 20} MiB"


def tree(root: Path, without: tuple[Path, ...] = ()) -> dict[str, tuple[int, int, int, str]]:
    """Everything below ``root`` but ``without``: type, size, time and content of each name."""
    found = {}
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if Path(place, name) not in without]
        for name in (*folders, *names):
            path = Path(place, name)
            status = path.lstat()
            is_file = stat.S_ISREG(status.st_mode)
            text = hashlib.sha256(path.read_bytes()).hexdigest() if is_file and status.st_size < 1 << 20 else ""
            # A folder's size and time change with what is in it, which is looked at by itself.
            size, time = (0, 0) if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns)
            found[str(path)] = (stat.S_IFMT(status.st_mode), size, time, text)
    return found
