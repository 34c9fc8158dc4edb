"""Every exception that edge-zofc raises on purpose, and the exit code each one ends a command with.

    EdgeZofcError
    ├── InputError          2   an option, a path or a file's content that the user can put right
    │   ├── ImageError      2   one picture that cannot be used (learn skips it and counts it)
    │   ├── TaskRefusedError 2  one task whose pictures cannot be used (learn --watch leaves it alone)
    │   └── RunLockedError  2   another process works on the same run folder
    ├── DoesNotFitError     3   memory or disk is too small for what was asked
    ├── DivergedError       4   the loss left its band or is not a number
    └── DamagedFileError    5   a file that edge-zofc wrote no longer says what was written

    MemoryError
    └── ArenaFullError      3   an accelerator's arena is at the limit that its profile sets

A message is one sentence with the value, the limit and the way out. It is one printable line of bounded length,
whatever names and values it holds. Any other exception that escapes is a defect of edge-zofc and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path

MAX_SENTENCE = 2000
"""Characters of a message; a longer one loses its middle."""


class EdgeZofcError(Exception):
    """Base of all errors below; ``exit_code`` is what the command line ends with."""

    exit_code: int = 2

    def __init__(self, sentence: str) -> None:
        half = MAX_SENTENCE // 2
        if len(sentence) > MAX_SENTENCE:
            sentence = f"{sentence[:half]} ... {sentence[-half:]}"
        # Names and values in it come from files: a line end or an escape sequence must not reach a terminal.
        super().__init__(shown(sentence))


class InputError(EdgeZofcError):
    """The user asked for something that cannot be done as asked."""


class ImageError(InputError):
    """One picture cannot be decoded or is outside the limits."""


class TaskRefusedError(InputError):
    """Too many pictures of the task named ``task`` cannot be read."""

    def __init__(self, sentence: str, task: str) -> None:
        super().__init__(sentence)
        self.task = task


class RunLockedError(InputError):
    """Another process holds the lock of this run folder."""


class DoesNotFitError(EdgeZofcError):
    """The memory or disk budget is too small, or an allocation failed with nothing left to shrink."""

    exit_code = 3


class ArenaFullError(MemoryError):
    """An accelerator's arena is at its profile's limit; a smaller run of the graph may still fit.

    ``WAY_OUT`` ends the sentence where none does.
    """

    WAY_OUT = "give a device profile with a larger gpu_mem_limit_mib"


class DivergedError(EdgeZofcError):
    """The training loss is not finite or left its band."""

    exit_code = 4


class DamagedFileError(EdgeZofcError):
    """A bundle, journal, snapshot or adapter file fails its size, hash, checksum or schema."""

    exit_code = 5


class Stopped(Exception):  # noqa: N818 - not an error: nothing is wrong, and the command line never sees it
    """A signal, or ``--max-steps``, asked the run to stop; whoever catches it saves the state."""


def shown(path: Path | str) -> str:
    """A name for a message, of any length: what does not print is escaped, so that two names stay different."""
    return "".join(c if c.isprintable() else _escaped(c) for c in os.fspath(path))


def printable(text: str, limit: int = 300) -> str:
    """Prose for a message or a page, cut at ``limit``: what does not print, direction marks too, becomes U+FFFD."""
    clean = "".join("\ufffd" if is_control(c) else c for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def quoted(value: object) -> str:
    """A value for a message: its ``repr``, which escapes what does not print, cut at 120."""
    is_huge = isinstance(value, int) and abs(value) >= 1 << 64  # Python refuses to print 5,000 digits
    return "a huge number" if is_huge else printable(repr(value), 120)


# They turn the reading direction of what follows in a line, so that a name can show as another one.
_DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_CONTROL = frozenset(("Cc", "Cs", "Zl", "Zp"))


def is_control(character: str) -> bool:
    """Whether a character breaks lines, steers a terminal, turns the reading direction or is half of one.

    Joiners, U+3000 and what emoji are made of are parts of names.
    """
    return character in _DIRECTION_MARKS or unicodedata.category(character) in _CONTROL


def _escaped(character: str) -> str:
    # A byte that is not UTF-8 arrives as U+DC00 + byte (PEP 383) and is shown as what it is on the disk.
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else repr(character)[1:-1]


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_GONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN, errno.ENOTDIR)
_WAYS_OUT = {
    errno.EROFS: "mount its file system writable",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "give this user the permission or choose another folder"),
    **dict.fromkeys(_GONE, "check that its folder exists and its disk is mounted"),
}


@contextlib.contextmanager
def explained(path: Path, doing: str, size_bytes: int = 0) -> Iterator[None]:
    """Turn an OSError inside the ``with`` into one sentence about ``path``.

    ``doing`` completes "could not be ..." (``"written"``, ``"read"``); ``size_bytes`` is what was to be written.
    Raises DoesNotFitError for a full disk or quota, DamagedFileError for an I/O error of the device, InputError for
    everything else (permission, read-only, vanished).
    """
    try:
        yield
    except OSError as error:
        raise _sentence(error, path, doing, size_bytes) from error


def explanation(error: OSError) -> EdgeZofcError:
    """The sentence for an OSError that nobody explained, from the file name that it carries."""
    return _sentence(error, Path(error.filename if isinstance(error.filename, str) else "A file"), "used", 0)


def _sentence(error: OSError, path: Path, doing: str, size_bytes: int) -> EdgeZofcError:
    reason = (error.strerror or str(error)).lower()
    if error.errno in _NO_ROOM:
        free_bytes = 0
        with contextlib.suppress(OSError):
            free_bytes = shutil.disk_usage(path.parent).free
        return DoesNotFitError(
            f"The disk is full: {path} could not be {doing} ({reason}, {free_bytes // 1024} KiB are free); "
            f"free at least {-(-max(size_bytes, 1) // 1024) + 1024} KiB, then run the same command again."
        )
    if error.errno == errno.EFBIG:
        return DoesNotFitError(
            f"{path} could not be {doing} ({reason}): no file may grow larger here; raise the limit ('ulimit -f', or "
            "the file system's own), then run the same command again."
        )
    if error.errno == errno.EIO:
        return DamagedFileError(
            f"{path} could not be {doing} because the disk reports an I/O error; check the disk, "
            "then run the same command again or go on from a copy."
        )
    way_out = _WAYS_OUT.get(error.errno or 0, "put that right or choose another folder")
    return InputError(f"{path} could not be {doing} ({reason}); {way_out}, then try again.")
