"""The file layer: the only place that renames, truncates and fsyncs.

    write_atomic   a whole file: temporary name in the same folder, fsync, rename, fsync of the folder.
                   A reader sees the old file or the new one, never a part.
    AppendFile     a file that grows: every ``append`` is on the disk when it returns, and a failed one is
                   cut off again, so at most the very last piece can be torn.
    replace_folder a folder that was made beside its place: everything in it flushed, then renamed.

Every system call that changes the disk goes through a ``Files``. Tests pass one that records, and replay each prefix
of what it saw (``tests/helpers/power_cut.py``).

A rename is on the disk only after an fsync of its *folder*. After a failed fsync the kernel forgets which pages were
dirty, so that a second fsync would wrongly succeed. A failed AppendFile is therefore closed for good: open the file
again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable
from os import getpid
from pathlib import Path
from typing import BinaryIO

from edge_zofc.errors import DamagedFileError, explained
from edge_zofc.storage.reading import plain_handle

TEMPORARY_PREFIX = ".tmp-"

Data = bytes | bytearray | memoryview


class Files:
    """The system calls that change the disk, one method each; all raise OSError. A handle is a file descriptor."""

    def create(self, path: Path) -> int:
        """Open a new or emptied plain file for writing at its end."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, 0o666)

    def open_append(self, path: Path) -> int:
        """Open an existing file for writing at its end."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)

    def write(self, handle: int, data: Data) -> None:
        """Write all of ``data`` at the end; on an error a part of it may have been written."""
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(handle, rest) :]

    def truncate(self, handle: int, size_bytes: int) -> None:
        """Cut the file off after ``size_bytes``."""
        os.ftruncate(handle, size_bytes)

    def fsync(self, handle: int) -> None:
        """Return when content and length of the file are on the disk."""
        os.fsync(handle)

    def rename(self, source: Path, target: Path) -> None:
        """Give ``source`` the name ``target``, replacing what had it."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove one name."""
        path.unlink()

    def make_folder(self, path: Path) -> None:
        """Make one folder, if another process was not first; its parent must exist."""
        path.mkdir(exist_ok=True)

    def fsync_folder(self, path: Path) -> None:
        """Return when the names in this folder are on the disk."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        except OSError as error:
            # Some network and FUSE file systems cannot sync a folder and offer nothing in its place.
            if error.errno != errno.EINVAL:
                raise
        finally:
            os.close(handle)


DISK = Files()


def write_atomic(
    path: Path, data: Data | Iterable[Data], files: Files = DISK, private: bool = False, size_bytes: int | None = None
) -> None:
    """Replace ``path`` by ``data`` (bytes, or pieces in order) so that a cut leaves the old or the new file.

    On the disk when this returns. On a failure the old file is untouched and the temporary one removed. A symbolic link
    at ``path`` is replaced, not followed. ``private``: nobody but the owner may read it. Pieces are asked for one by
    one where ``size_bytes`` tells how large they are together. Raises as ``explained``.
    """
    pieces: Iterable[Data] = [data] if isinstance(data, Data) else data
    if size_bytes is None:
        pieces = list(pieces)
        size_bytes = sum(memoryview(piece).nbytes for piece in pieces)
    # The process number keeps two processes that write the same name from sharing a temporary file.
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{getpid()}-{path.name}")
    with explained(path, "written", size_bytes):
        try:
            handle = files.create(temporary)
            try:
                if private:
                    os.fchmod(handle, 0o600)
                for piece in pieces:
                    files.write(handle, piece)
                files.fsync(handle)
            finally:
                os.close(handle)
            files.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                files.unlink(temporary)
            raise
        files.fsync_folder(path.parent)


def replace_folder(made: Path, target: Path, files: Files = DISK) -> None:
    """Give the finished folder ``made`` the name ``target``, in place of an older folder of that name.

    Everything in it is on the disk before the rename, and the name when this returns. If ``made`` cannot have the
    name, the older folder gets it back. Raises as ``explained``.
    """
    old, place = made.with_name(made.name + ".old"), target.absolute()
    with explained(target, "written"):
        for path in (*made.rglob("*"), made):
            if path.is_symlink():
                continue
            if path.is_dir():
                files.fsync_folder(path)
            else:
                with path.open("rb") as file:
                    files.fsync(file.fileno())
        has_old = place.is_dir()
        if has_old:
            files.rename(place, old)
        try:
            files.rename(made, place)
        except BaseException:
            if has_old:
                files.rename(old, place)
            raise
        files.fsync_folder(place.parent)
    shutil.rmtree(old, ignore_errors=True)


def make_folder(path: Path, files: Files = DISK) -> None:
    """Make ``path`` and the missing folders above it, each on the disk before the next. Raises as ``explained``."""
    if path.is_dir():
        # A process killed between mkdir and fsync left a folder that the next power cut would take. The folder above
        # may belong to another user, and then it need not be synced.
        with contextlib.suppress(OSError):
            files.fsync_folder(path.parent)
        return
    if path.parent != path:
        make_folder(path.parent, files)
    with explained(path, "made"):
        files.make_folder(path)
        files.fsync_folder(path.parent)


def sweep(folder: Path, files: Files = DISK) -> list[str]:
    """Remove the temporary files that a crash left in ``folder`` and return their names.

    Call it under the lock: another process's temporary file is a leftover only if that process is dead.
    """
    with explained(folder, "cleaned up"), os.scandir(folder) as entries:
        found = [entry for entry in entries if entry.name.startswith(TEMPORARY_PREFIX)]
        leftovers = sorted(entry.name for entry in found if not entry.is_dir(follow_symlinks=False))
        for name in leftovers:
            files.unlink(folder / name)
    return leftovers


def rotate(path: Path, limit_bytes: int, files: Files = DISK) -> bool:
    """Give a log that has grown past ``limit_bytes`` the name ``<name>.1``, replacing the one before.

    So a log takes at most about twice the limit. Returns whether it did. Raises as ``explained``.
    """
    with explained(path, "rotated"), contextlib.suppress(FileNotFoundError):
        if path.lstat().st_size > limit_bytes:
            files.rename(path, path.with_name(path.name + ".1"))
            files.fsync_folder(path.parent)
            return True
    return False


def open_log(path: Path) -> BinaryIO:
    """Open a log for appending, unbuffered, made if need be; a torn last line is ended.

    Not fsynced: a log may lose its last lines. Raises as ``plain_handle``.
    """
    handle = plain_handle(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, "opened for appending")
    file = os.fdopen(handle, "r+b", buffering=0)
    try:
        with explained(path, "opened for appending"):
            # After a power cut the last line may lack its end; the next one must not be glued to it.
            size_bytes = os.fstat(handle).st_size
            if size_bytes and os.pread(handle, 1, size_bytes - 1) != b"\n":
                os.write(handle, b"\n")
    except BaseException:
        file.close()
        raise
    return file


def append_at(path: Path, data: Data, size_bytes: int) -> None:
    """Write ``data`` behind the first ``size_bytes`` of a file, made if need be; what stood behind them is cut off.

    Not fsynced, as a log: for caches whose pieces prove themselves whole. Raises as ``explained``.
    """
    with explained(path, "appended to", len(data)):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(path, flags, 0o666)
        try:
            if os.fstat(handle).st_size != size_bytes:
                os.ftruncate(handle, size_bytes)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
        finally:
            os.close(handle)


def write_at(path: Path, data: Data, offset: int) -> None:
    """Write ``data`` over what stands from ``offset`` on in a plain file, made if need be.

    Not fsynced: for caches whose pieces prove themselves whole. Raises as ``plain_handle``.
    """
    handle = plain_handle(path, os.O_WRONLY | os.O_CREAT, "written")
    try:
        with explained(path, "written", len(data)):
            rest = memoryview(data)
            while rest:
                count = os.pwrite(handle, rest, offset)
                rest, offset = rest[count:], offset + count
    finally:
        os.close(handle)


class AppendFile:
    """An existing file that grows by whole pieces, each on the disk when ``append`` returns.

    Opening cuts the file back to ``keep_bytes`` (at most its length) and makes what is kept, and its name, durable: a
    process killed between write and fsync leaves bytes that are readable but not yet on the disk. ``size_bytes`` is the
    length that is on the disk. Raises as ``explained``.
    """

    def __init__(self, path: Path, keep_bytes: int, files: Files = DISK) -> None:
        self.path, self.size_bytes, self._files = path, keep_bytes, files
        with explained(path, "opened for appending"):
            self._handle: int | None = files.open_append(path)
            try:
                found_bytes = os.fstat(self._handle).st_size
                if found_bytes < keep_bytes:
                    raise DamagedFileError(f"{path} has {found_bytes} bytes, fewer than the {keep_bytes} in use.")
                if found_bytes > keep_bytes:
                    files.truncate(self._handle, keep_bytes)
                files.fsync(self._handle)
                files.fsync_folder(path.parent)
            except BaseException:
                self.close()
                raise

    def append(self, data: Data) -> None:
        """Write ``data`` at the end and fsync. On a failure the file is cut back and this object closed."""
        if self._handle is None:
            raise ValueError(f"{self.path} is closed; a failed append closes it, open it again.")
        with explained(self.path, "appended to", len(data)):
            try:
                self._files.write(self._handle, data)
                self._files.fsync(self._handle)
            except BaseException:
                # Also on Ctrl-C: half a piece must not stay in front of a later one.
                with contextlib.suppress(OSError):
                    self._files.truncate(self._handle, self.size_bytes)
                    self._files.fsync(self._handle)
                self.close()
                raise
        self.size_bytes += len(data)

    def close(self) -> None:
        """Give the handle back; closing twice is nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(OSError):
                os.close(handle)
