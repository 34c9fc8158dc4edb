"""One process a run folder, by a lock that no crash leaves behind."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from edge_zofc.errors import RunLockedError, explained
from edge_zofc.storage.reading import not_plain

LOCK_FILE = "lock"


class RunLock:
    """``flock`` on ``folder/lock`` until ``release`` or the end of the process, however it ends.

    The file itself stays: removing it would let two processes lock two files of one name. A process forked while the
    lock is held keeps it too. Raises RunLockedError with the holder's process number, or as ``explained``.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_FILE
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with explained(path, "locked"):
            self._file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
            try:
                self._take(path, self._file.fileno())
            except BaseException:
                self.release()
                raise

    def _take(self, path: Path, handle: int) -> None:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise not_plain(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 20, 0).strip()
            who = f"process {holder.decode()}" if holder.isdigit() else "another process"
            raise RunLockedError(
                f"{path.parent} is in use by {who}; wait until it ends or stop it, then try again."
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock back; releasing twice is nothing."""
        self._file.close()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
