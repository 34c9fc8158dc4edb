"""What the operating system refused, as one sentence: the file, the reason and the way out.

What may surprise: a full disk is no bad input. It ends in the exit code of what does not fit, and an I/O error of the
device in that of a damaged file.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from edge_zofc.errors import DamagedFileError, DoesNotFitError, EdgeZofcError, InputError

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
