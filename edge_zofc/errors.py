"""Every exception that edge-zofc raises on purpose, and the exit code each one ends a command with.

    EdgeZofcError
    ├── InputError          2   an option, a path or a file's content that the user can put right
    │   ├── ImageError      2   one picture that cannot be used (learn skips it and counts it)
    │   ├── TaskRefusedError 2  one task whose pictures cannot be used (learn --watch leaves it alone)
    │   └── RunLockedError  2   another process works on the same run folder
    ├── DoesNotFitError     3   memory or disk is too small for what was asked
    ├── DivergedError       4   the loss left its band or is not a number
    └── DamagedFileError    5   a file that edge-zofc wrote no longer says what was written

and beside the tree ``Stopped``, which is no error: a signal, or ``--max-steps``, asked a run to stop.

A message is one sentence that names the value, the limit and the way out; it is one printable line of bounded
length whatever the names and values in it are. Anything else that escapes (a plain ``ValueError``, say) is a
defect of edge-zofc itself and keeps its traceback.

``explained`` and ``explanation`` turn what the operating system refused into such a sentence. A full disk is no bad
input: it ends in the exit code of what does not fit, and an I/O error of the device in that of a damaged file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

MAX_SENTENCE = 2000
"""Characters of a message: two paths of Linux's longest and a sentence would fit into no terminal anyway."""


class EdgeZofcError(Exception):
    """Base of all errors below; ``exit_code`` is what the command line ends with."""

    exit_code: int = 2

    def __init__(self, sentence: str) -> None:
        # Names and values in it come from files: a line end or an escape sequence must not reach a terminal.
        text = shown(sentence) if len(sentence) <= MAX_SENTENCE else _middle_left_out(sentence)
        super().__init__(text)


class InputError(EdgeZofcError):
    """The user asked for something that cannot be done as asked."""

    exit_code = 2


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


class DivergedError(EdgeZofcError):
    """The training loss is not finite or left its band."""

    exit_code = 4


class DamagedFileError(EdgeZofcError):
    """A bundle, journal, snapshot or adapter file fails its size, hash, checksum or schema."""

    exit_code = 5


class Stopped(Exception):  # noqa: N818 - not an error: nothing is wrong, and the command line never sees it
    """The run was asked to stop; whoever catches it saves the state."""


def shown(path: Path | str) -> str:
    """A name for messages: one line of printable UTF-8, whatever bytes or lone surrogates it has."""
    return "".join(c if c.isprintable() else _escaped(c) for c in os.fspath(path))


def _escaped(character: str) -> str:
    # A byte that is not UTF-8 arrives as U+DC00 + byte (PEP 383) and is shown as what it is on the disk.
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else repr(character)[1:-1]


def _middle_left_out(text: str) -> str:
    return shown(text[: MAX_SENTENCE // 2]) + " ... " + shown(text[-MAX_SENTENCE // 2 :])


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_GONE = {errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN, errno.ENOTDIR}


@contextlib.contextmanager
def explained(path: Path, doing: str, size_bytes: int = 0) -> Iterator[None]:
    """Turn an OSError inside the ``with`` into one sentence about ``path``.

    ``doing`` completes "could not be ..." (``"written"``, ``"read"``); ``size_bytes`` is what was to be
    written. Raises DoesNotFitError for a full disk or quota, DamagedFileError for an I/O error of the device,
    InputError for everything else (permission, read-only, vanished).
    """
    try:
        yield
    except OSError as error:
        raise _sentence(error, path, doing, size_bytes) from error


def explanation(error: OSError) -> EdgeZofcError:
    """The sentence for an OSError that nobody explained, from the file name that it carries."""
    name = error.filename if isinstance(error.filename, str) else "A file"
    return _sentence(error, Path(name), "used", 0)


def _sentence(error: OSError, path: Path, doing: str, size_bytes: int) -> EdgeZofcError:
    """What went wrong, with which file, and the way out."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in _NO_ROOM:
        return DoesNotFitError(
            f"The disk is full: {path} could not be {doing} ({reason}, {_free_kib(path)} KiB are free); "
            f"free at least {-(-max(size_bytes, 1) // 1024) + 1024} KiB and go on with --resume."
        )
    if error.errno == errno.EIO:
        return DamagedFileError(
            f"{path} could not be {doing} because the disk reports an I/O error; check the disk, "
            "then go on with --resume or from a copy."
        )
    if error.errno == errno.EROFS:
        way_out = "mount its file system writable"
    elif error.errno in (errno.EACCES, errno.EPERM):
        way_out = "give this user the permission or choose another folder"
    elif error.errno in _GONE:
        way_out = "check that its folder exists and its disk is mounted"
    else:
        way_out = "put that right or choose another folder"
    return InputError(f"{path} could not be {doing} ({reason}); {way_out}, then try again.")


def _free_kib(path: Path) -> int:
    try:
        space = os.statvfs(path.parent)
    except OSError:
        return 0
    return space.f_bavail * space.f_frsize // 1024


# They turn the reading direction of what follows in a line, so that a name can show as another one.
_DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_CONTROL = frozenset(("Cc", "Cs", "Zl", "Zp"))


def is_control(character: str) -> bool:
    """Whether a character breaks lines, steers a terminal, turns the reading direction or is half of one.

    Joiners, U+3000 and what emoji are made of are parts of names.
    """
    return character in _DIRECTION_MARKS or unicodedata.category(character) in _CONTROL


def printable(text: str, limit: int = 300) -> str:
    """``text`` on one line without control characters, lone surrogates or direction marks, cut at ``limit``.

    Names of files and classes come from outside; a terminal and a page must both survive them.
    """
    clean = "".join("\ufffd" if is_control(c) else c for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def quoted(value: object) -> str:
    """A value for a message: quoted, escaped, and short whatever its length."""
    is_huge = isinstance(value, int) and abs(value) >= 1 << 64  # Python refuses to print 5,000 digits
    return "a huge number" if is_huge else printable(repr(value), 120)
