"""A disk that keeps only what was promised: records a writer's calls, yields what a power cut could leave.

``RecordingFiles`` does everything for real and writes a log. ``disks_after_cut`` replays every prefix of
the log on a model disk that keeps only what was fsynced, plus any part of what was not:

    data     since the last fsync of a file: any number of its writes and truncations, in order; the first one
             lost may be torn at any byte, or have its length on the disk but zeros for its bytes
    names    since the last fsync of a folder: any number of its creations, renames and removals, in order; and
             what lies in a folder is lost with the folder's own name

A folder stands in a ``Disk`` as its name and a slash. A ``kill -9`` is one of these outcomes
(everything that was written is there).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from edge_zofc.storage.writing import Files

Disk = dict[str, bytes]
FOLDER = 0
"""In a file number's place."""


class RecordingFiles(Files):
    """``Files`` with a log of (call, file number or name, argument), for files below ``root``."""

    def __init__(self, root: Path, forgetful: str = "") -> None:
        self.root = root
        self.forgetful = forgetful  # the name of a call that lies: done, but not logged
        self.log: list[tuple] = []
        self.numbers: dict[str, int] = {}
        self.opened: dict[int, int] = {}
        self.count = 0

    def _note(self, call: str, *arguments: object) -> None:
        if call != self.forgetful:
            self.log.append((call, *arguments))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def create(self, path):
        handle = super().create(path)
        self.count += 1
        self.numbers[self._name(path)] = self.opened[handle] = self.count
        self._note("create", self._name(path), self.count)
        return handle

    def open_append(self, path):
        handle = super().open_append(path)
        self.opened[handle] = self.numbers[self._name(path)]
        return handle

    def write(self, handle, data):
        super().write(handle, data)
        self._note("write", self.opened[handle], bytes(data))

    def truncate(self, handle, size_bytes):
        super().truncate(handle, size_bytes)
        self._note("truncate", self.opened[handle], size_bytes)

    def fsync(self, handle):
        super().fsync(handle)
        self._note("fsync", self.opened[handle])

    def rename(self, source, target):
        super().rename(source, target)
        self.numbers[self._name(target)] = self.numbers.pop(self._name(source))
        self._note("rename", self._name(source), self._name(target))

    def unlink(self, path):
        super().unlink(path)
        self.numbers.pop(self._name(path))
        self._note("unlink", self._name(path))

    def make_folder(self, path):
        super().make_folder(path)
        self._note("make_folder", self._name(path) + "/")

    def fsync_folder(self, path):
        super().fsync_folder(path)
        if path.is_relative_to(self.root):
            self._note("fsync_folder", self._name(path))


class _File:
    def __init__(self) -> None:
        self.safe = b""
        self.pending: list[tuple[str, object]] = []

    def contents(self) -> Iterator[bytes]:
        """Everything that may be found after a cut."""
        now = self.safe
        yield now
        for call, argument in self.pending:
            if call == "write":
                for length in _cuts(len(argument)):
                    yield now + argument[:length]
                yield now + bytes(len(argument))
                now += argument
            else:
                now = now[:argument]
            yield now


def _cuts(length: int) -> Iterator[int]:
    """Where a write of this many bytes is torn: everywhere if it is short, else at about 64 places."""
    return iter(sorted({1, length - 1, *range(1, length, max(1, length // 64))} - {0, -1}))


def disks_after_cut(log: list[tuple]) -> Iterator[tuple[int, Disk]]:
    """(length of the prefix, name -> content) for every prefix of the log and everything a cut may leave."""
    files: dict[int, _File] = {}
    safe_names: dict[str, int] = {}
    pending_names: list[tuple] = []
    yield 0, {}
    for done, (call, *arguments) in enumerate(log, 1):
        if call == "create":
            files[arguments[1]] = _File()
            pending_names.append((call, *arguments))
        elif call in ("rename", "unlink", "make_folder"):
            pending_names.append((call, *arguments))
        elif call == "fsync_folder":
            inside = [op for op in pending_names if Path(op[1]).parent.as_posix() == arguments[0]]
            pending_names = [op for op in pending_names if op not in inside]
            for op in inside:
                _apply(safe_names, op)
        elif call == "fsync":
            file = files[arguments[0]]
            *_, file.safe = file.contents()
            file.pending = []
        else:
            files[arguments[0]].pending.append((call, arguments[1]))
        yield from ((done, disk) for disk in _outcomes(files, safe_names, pending_names))


def _apply(names: dict[str, int], op: tuple) -> None:
    if op[0] == "create":
        names[op[1]] = op[2]
    elif op[0] == "make_folder":
        names[op[1]] = FOLDER
    elif op[0] == "rename":
        names[op[2]] = names.pop(op[1])
    else:
        names.pop(op[1])


def _outcomes(files: dict[int, _File], safe_names: dict[str, int], pending: list[tuple]) -> Iterator[Disk]:
    names = dict(safe_names)
    for op in [None, *pending]:
        if op is not None:
            _apply(names, op)
        choices = [
            [(name, content) for content in (files[number].contents() if number else [b""])]
            for name, number in names.items()
            if _is_reached(name, names)
        ]
        yield from (dict(choice) for choice in itertools.product(*choices))


def _is_reached(name: str, names: dict[str, int]) -> bool:
    """Whether all folders above are there: those that were made while recording, so that they can be lost."""
    above = [f"{folder.as_posix()}/" for folder in Path(name).parents][:-1]
    return all(folder in names for folder in above)


def lay_out(disk: Disk, folder: Path) -> Path:
    """Write a model disk as real files below a new ``folder``."""
    for name, content in disk.items():
        place = folder / name
        (place if name.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            place.write_bytes(content)
    folder.mkdir(exist_ok=True)
    return folder
