"""The hidden folder beside OUT that a bundle is made in, and what a killed export left of such folders.

The folder is locked (``flock``) while its export lives, however that ends. A folder of the name, with nothing in it but
files of a bundle, that nobody has locked is a leftover.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edge_zofc.errors import DoesNotFitError, InputError, shown
from edge_zofc.signals import signals_held
from edge_zofc.storage.manifest import FILES, GRADIENT_FILES, MANIFEST
from edge_zofc.storage.writing import TEMPORARY_PREFIX

_NAME = re.compile(r"\.(?P<out>.+)\.[0-9]+\.partial(?P<old>\.old)?", re.DOTALL)


@contextmanager
def partial_folder(out: Path, tell: Callable[[str], None]) -> Iterator[Path]:
    """A hidden folder beside ``out`` that is gone afterwards, unless it was renamed.

    First removes what killed exports left beside ``out``, and tells it. Raises DoesNotFitError where the disk is full,
    InputError where nothing can be written.
    """
    folder = out.absolute().parent / f".{out.name}.{os.getpid()}.partial"
    with ExitStack() as locked:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(folder.parent, tell)
            folder.mkdir()
            _lock(folder, locked)
            yield folder
        except OSError as error:
            kind = DoesNotFitError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else InputError
            raise kind(
                f"The bundle cannot be written at {out} ({error.strerror or error}); free space or choose another OUT."
            ) from error
        finally:
            with signals_held():
                shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(place: Path, tell: Callable[[str], None]) -> None:
    for path in sorted(place.iterdir()):
        name = _NAME.fullmatch(path.name)
        if name is None or path.is_symlink() or not path.is_dir():
            continue
        with ExitStack() as locked, suppress(OSError):
            out = place / name["out"]
            # While the two are exchanged it is the new folder, under either name, that is locked.
            owner = (path.with_suffix("") if not out.is_dir() else out) if name["old"] else path
            is_in_use = owner.is_dir() and not _lock(owner, locked)
            if is_in_use or not all(map(_is_of_a_bundle, path.iterdir())):
                continue
            if name["old"] and not out.is_dir():
                tell(f"{shown(path)} is the bundle that was in {shown(out)} when an export was killed: rename it.")
                continue
            shutil.rmtree(path)
            tell(f"removed {shown(path)}, which a killed export had left")


def _lock(folder: Path, until: ExitStack) -> bool:
    """Take the lock of a folder; False if another process has it. A file system without locks raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    until.callback(os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_of_a_bundle(path: Path) -> bool:
    name = path.name
    known = name in (*FILES, *GRADIENT_FILES, MANIFEST) or (
        name.startswith(TEMPORARY_PREFIX) and name.endswith(f"-{MANIFEST}")
    )
    return known and path.is_file() and not path.is_symlink()
