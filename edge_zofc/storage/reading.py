"""Reading files that nobody checked: plain ones alone, and no more of them than a stated limit.

In a file's place may stand a link that leads out of the run folder, a FIFO that never answers, or a device that acts
when it is opened. None of them is read.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_zofc.errors import DamagedFileError, EdgeZofcError, explained, printable, quoted

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """A model of a file of ours: an unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file for reading. Raises as ``plain_handle``, so InputError if it is missing."""
    return os.fdopen(plain_handle(path, os.O_RDONLY, "read"), "rb")


def plain_handle(path: Path, flags: int, doing: str) -> int:
    """The file descriptor of a plain file, opened with the ``flags`` of ``os.open``.

    Links are not followed, FIFOs and devices not waited for. Raises DamagedFileError if it is not a plain file, else
    as ``explained``, which ``doing`` is for.
    """
    with explained(path, doing):
        try:
            handle = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            # ELOOP: a link under O_NOFOLLOW. ENXIO: a socket, or a device without a driver. EISDIR: a folder to write.
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise not_plain(path) from error
            raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise not_plain(path)
    return handle


def read_at(path: Path, offset: int, size_bytes: int) -> bytes:
    """``size_bytes`` of a plain file from ``offset`` on, fewer where it ends. Raises as ``open_plain``."""
    handle = plain_handle(path, os.O_RDONLY, "read")
    try:
        with explained(path, "read"):
            return os.pread(handle, size_bytes, offset)
    finally:
        os.close(handle)


def is_there(path: Path) -> bool:
    """Whether anything has this name, be it a link to nowhere. Raises as ``explained`` where one may not look."""
    # ValueError: a zero byte in the name.
    with explained(path, "looked at"), suppress(FileNotFoundError, NotADirectoryError, ValueError):
        path.lstat()
        return True
    return False


def check_folder(path: Path) -> None:
    """Raise DamagedFileError if ``path`` is there and is not a folder itself: a link may lead to any other folder."""
    with explained(path, "read"), suppress(FileNotFoundError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise DamagedFileError(f"{path} is a link or a file where a folder belongs; put the folder back.")


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """The content of a plain file of at most ``limit_bytes``; the size is looked at before anything is read.

    Raises as ``open_plain``, and DamagedFileError if the file is larger.
    """
    with open_plain(path) as file, explained(path, "read"):
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > limit_bytes:
            raise DamagedFileError(
                f"{path} has {size_bytes} bytes where at most {limit_bytes} are possible; "
                "put back a good copy or remove it."
            )
        # Not read(limit_bytes): that reserves as much at once, more than a process with a small budget may.
        return file.read(size_bytes)


def not_plain(path: Path) -> DamagedFileError:
    """The error for what is no plain file."""
    return DamagedFileError(f"{path} is a link, folder, pipe or device, not a plain file; put back a good copy.")


def load_model(
    model: type[M], data: object, opening: str, error_type: type[EdgeZofcError] = DamagedFileError, ending: str = ""
) -> M:
    """A pydantic model from its JSON text or an object.

    Raises ``error_type``: ``opening``, the place, what is wrong there, and ``ending``.
    """
    try:
        return model.model_validate_json(data) if isinstance(data, bytes) else model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        given = first["input"]
        value = f" (it is {quoted(given)})" if isinstance(given, (str, int, float)) else ""
        message = printable(first["msg"].removeprefix("Value error, "))
        raise error_type(f"{opening} {printable(place, 100)}{value}: {message}{ending}.") from error
