"""What a person showed a run, and what was done with it since: ``RUN/lesson/``.

    log.jsonl          lines of CRC-32 as 8 hex digits, a space and JSON: a Base, then Entries
    pictures/          the picture files, NNNNNN.jpg and the like
    features/          their features, a cache (``engine/feature_store.py``)
    tasks/             lessons that were closed, a stream for ``learn``
    lock               held by the process that teaches; ``learn`` has the run's own

A picture is on the disk before the line that names it, and the line before anybody is told. A last line that is torn
counts for nothing; a damaged one in the middle is an error. Closing a lesson writes a new log with a new Base. What
lies in ``pictures/`` and is not in the log may be removed.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from edge_zofc.errors import DamagedFileError, DoesNotFitError
from edge_zofc.storage.reading import Strict, check_folder, is_there, load_model, read_bounded
from edge_zofc.storage.writing import DISK, AppendFile, Files, make_folder, write_atomic

LESSON = "lesson"
LOG = "log.jsonl"
PICTURES = "pictures"
TASKS = "tasks"
MAX_LOG_BYTES = 16 << 20
MAX_SERIAL = 10**9

_LINE = re.compile(rb"([0-9a-f]{8}) (\{.*\})")
Name = Annotated[str, StringConstraints(max_length=1000)]
File = Annotated[str, StringConstraints(pattern=r"^[0-9]{6,9}\.(jpg|png|webp|bmp|gif|tiff|avif)$")]
Serial = Annotated[int, Field(ge=1, le=MAX_SERIAL)]
Kind = Literal["teach", "forget", "rename", "move", "remove", "undo"]


class Entry(Strict):
    """One thing that a person did.

    teach    ``files`` show ``name``; ``test``: they are kept back; ``burst``: the number of the first picture of the
             burst that they go on with, 0 where they begin one
    forget   ``name`` is no class any more: its pictures go, and ``parts`` of what was learnt (``class_parts.py``)
    rename   ``name`` is now called ``to``, and so are the run's own ``classes``
    move     the pictures ``serials`` show ``to``
    remove   the pictures ``serials`` count no more
    undo     the last of the others that still counts is taken back, with all of its burst
    """

    kind: Kind
    name: Name = ""
    to: Name = ""
    files: tuple[File, ...] = ()
    test: bool = False
    burst: Annotated[int, Field(ge=0, le=MAX_SERIAL)] = 0
    serials: tuple[Serial, ...] = ()
    parts: tuple[Name, ...] = ()
    classes: tuple[Name, ...] = ()


class KeptPicture(Strict):
    """A picture of a closed lesson: its file, and the class that it shows by the run's own name."""

    file: File
    folder: Name
    burst: Serial
    test: bool = False


class ClosedLesson(Strict):
    """A lesson that became the task ``task``."""

    task: Annotated[str, StringConstraints(pattern=r"^[0-9]{3,6}_lesson$")]
    pictures: tuple[KeptPicture, ...]


class Base(Strict):
    """What a lesson begins with.

    ``next_serial``: the number of the next picture; ``aliases``: what the run's own classes are called now;
    ``forgotten``: parts of what was learnt that count no more; ``closed``: lessons that the run has not learnt yet;
    ``lines``: entries of all logs before this one, so that their number only grows.
    """

    format_version: Literal[1] = 1
    next_serial: Serial = 1
    aliases: dict[Name, Name] = Field(default_factory=dict)
    forgotten: tuple[Name, ...] = ()
    closed: tuple[ClosedLesson, ...] = ()
    lines: Annotated[int, Field(ge=0, le=2**53)] = 0


class LessonFolder:
    """The lesson of the run in the folder ``run``, which need not be there yet."""

    def __init__(self, run: Path) -> None:
        self.path = run / LESSON
        self.log, self.pictures, self.tasks = self.path / LOG, self.path / PICTURES, self.path / TASKS
        self.features = self.path / "features"

    def is_there(self) -> bool:
        """Whether anything was shown."""
        return is_there(self.log)

    def read(self) -> tuple[Base, list[Entry], int]:
        """The log, and how many of its bytes are whole; an empty one where there is none. No lock is needed.

        Raises DamagedFileError if a line in the middle is damaged, else as ``read_bounded``.
        """
        return _parsed(read_bounded(self.log, MAX_LOG_BYTES), self.log) if self.is_there() else (Base(), [], 0)


class LessonLog:
    """A lesson's log, open for appending: hold the lesson's lock. A failed append closes it."""

    def __init__(self, folder: LessonFolder, files: Files = DISK) -> None:
        """Open it, made if need be; ``base`` and ``entries`` are what it holds. Raises as ``LessonFolder.read``."""
        self.folder, self._files = folder, files
        for place in (folder.path, folder.pictures, folder.features, folder.tasks):
            check_folder(place)
        make_folder(folder.pictures, files)
        if not folder.is_there():
            write_atomic(folder.log, _line(Base()), files)
        self.base, self.entries, whole = folder.read()
        self._file = AppendFile(folder.log, whole, files)

    def append(self, entry: Entry) -> None:
        """Add a line; on the disk when this returns. Raises DoesNotFitError where the log is full."""
        line = _line(entry)
        if self._file.size_bytes + len(line) > MAX_LOG_BYTES:
            raise DoesNotFitError(
                f"{self.folder.log} is full ({MAX_LOG_BYTES >> 20} MiB); close it: edge-zofc lesson RUN --close."
            )
        self._file.append(line)
        self.entries.append(entry)

    def begin(self, base: Base) -> None:
        """Replace the log by a new one that begins with ``base``."""
        self._file.close()
        write_atomic(self.folder.log, _line(base), self._files)
        self.base, self.entries = base, []
        self._file = AppendFile(self.folder.log, len(_line(base)), self._files)

    def keep(self, serial: int, data: bytes) -> str:
        """Write the bytes of a picture; returns its file's name. On the disk when this returns."""
        name = f"{serial:06d}.{suffix_of(data)}"
        write_atomic(self.folder.pictures / name, data, self._files)
        return name

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def suffix_of(data: bytes) -> str:
    """The suffix that a picture's bytes ask for; jpg where they are none of the known."""
    starts = ((b"\x89PNG", "png"), (b"BM", "bmp"), (b"GIF8", "gif"), (b"II", "tiff"), (b"MM", "tiff"))
    if data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return "avif"
    return next((suffix for start, suffix in starts if data.startswith(start)), "jpg")


UNDO_DEPTH = 20
"""So many of the last ``gestures`` can be taken back. What was forgotten before leaves the disk."""


def counting(entries: Sequence[Entry]) -> list[Entry]:
    """The entries that still count, without those that were taken back."""
    return [entry for gesture in gestures(entries) for entry in gesture]


def gestures(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The entries that still count, by what one undo takes: those of a burst together, where nothing came between."""
    return _folded(entries)[0]


def settled(entries: Sequence[Entry]) -> int:
    """How many of ``gestures`` can no longer be taken back."""
    return _folded(entries)[1]


def _folded(entries: Sequence[Entry]) -> tuple[list[list[Entry]], int]:
    found: list[list[Entry]] = []
    lasting = 0
    for entry in entries:
        if entry.kind == "undo":
            found = found[:-1] if len(found) > lasting else found
        elif entry.burst and found and found[-1][0].kind == "teach" and _burst(found[-1][0]) == entry.burst:
            found[-1].append(entry)
        else:
            found.append([entry])
            lasting = max(lasting, len(found) - UNDO_DEPTH)
    return found, lasting


def _burst(entry: Entry) -> int:
    return entry.burst or serial_of(entry.files[0])


def serial_of(file: str) -> int:
    """The number of a picture, by its file's name."""
    return int(file.partition(".")[0])


def _line(model: Strict) -> bytes:
    version = {"format_version": model.format_version} if isinstance(model, Base) else {}
    data = {**version, **model.model_dump(mode="json", exclude_defaults=True)}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parsed(data: bytes, path: Path) -> tuple[Base, list[Entry], int]:
    lines = data.split(b"\n")
    whole = [_checked(line) for line in lines[:-1]]  # what follows the last line end is torn
    good = next((index for index, text in enumerate(whole) if text is None), len(whole))
    if any(text is not None for text in whole[good:]) or not good:
        raise DamagedFileError(f"Line {good + 1} of {path} is damaged; put back a good copy, or remove {path.parent}.")
    opening = f"{path} is no lesson:"
    texts = [text for text in whole[:good] if text is not None]
    base = load_model(Base, texts[0], opening)
    entries = [load_model(Entry, text, opening) for text in texts[1:]]
    return base, entries, sum(len(line) + 1 for line in lines[:good])


def _checked(line: bytes) -> bytes | None:
    """The JSON of a line whose CRC fits."""
    match = _LINE.fullmatch(line)
    return match[2] if match and int(match[1], 16) == zlib.crc32(match[2]) else None


def remove_unknown(folder: LessonFolder, known: set[str], files: Files = DISK) -> bool:
    """Remove the files in ``pictures/`` whose names are not ``known``; returns whether there were any.

    Call it under the lock.
    """
    with os.scandir(folder.pictures) as found:
        names = sorted(entry.name for entry in found if not entry.is_dir(follow_symlinks=False))
    gone = [name for name in names if name not in known]
    for name in gone:
        files.unlink(folder.pictures / name)
    return bool(gone)
