"""Atomic snapshots of a run's state: named arrays and JSON in one safetensors file that proves itself whole.

``state/snapshot-<serial>.safetensors`` (serial of 8 digits, growing; the last few are kept) and
``state/task-<NNN>.safetensors`` (what is kept of the latest end of a task, see ``engine/task_ends.py``), format
version 2 (an end that holds only what its task changed says "edge-zofc task end 1" in place of "snapshot 2"):

    8 bytes   length of the header, uint64 little-endian
    header    ASCII JSON, padded with spaces to a multiple of 8 bytes:
              {"__metadata__":{"sha256":"<64 hex>","format":"edge-zofc snapshot 2","state":"<JSON text>"},
               "<name>":{"dtype":"F32","shape":[..],"data_offsets":[begin,end]},..}
    rest      the arrays, little-endian, row-major, back to back; wider types first, then by name

``sha256`` is that of the whole file with its own 64 characters, bytes 35-98, read as ASCII zeros: it covers every
byte. Same state, same bytes. Any safetensors reader opens the file.

A power cut cannot damage a snapshot, since a name is given only to what is on the disk; a failing disk can. If the
newest is damaged, ``load_latest`` takes the one before and says so. The run then computes the steps between again, to
the same bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as safetensors_load

from edge_zofc.algorithm.symmetric import Packed
from edge_zofc.errors import DamagedFileError, DivergedError, DoesNotFitError, InputError, explained
from edge_zofc.storage.reading import read_at, read_bounded
from edge_zofc.storage.writing import DISK, Files, write_atomic

FORMAT = "edge-zofc snapshot 2"
PART = "edge-zofc task end 1"
"""Of a state whose rest the end before holds."""
FOLLOWS = "follows"
"""The key in the metadata of such a state: the SHA-256 of the end before."""
_READABLE = ("edge-zofc snapshot 1", FORMAT, PART)
"""Format 1 is the same file; it holds a closed-form head's scatter where 2 holds the second moment."""
KEEP = 3
MAX_SNAPSHOT_BYTES = 1 << 28
"""Bounds what is read. 10,000 classes of 768 features take 92 MB: rows in float32, sums in float64."""

_WIDTHS = {"snapshot": 8, "task": 3}
_MAX_DIGITS = 18
_START = b'{"__metadata__":{"sha256":"'
_DIGEST = slice(8 + len(_START), 8 + len(_START) + 64)
_DTYPES = {
    "float64": "F64", "int64": "I64", "uint64": "U64", "float32": "F32",
    "int32": "I32", "uint32": "U32", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


_Piece = memoryview | Packed


@dataclass(frozen=True)
class Snapshot:
    """A state: ``arrays``, finite and of the types above, and JSON-able ``metadata`` (loaded, tuples are lists).

    ``packed`` are arrays too, but are only made whole in the file; what is loaded has none.
    """

    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]
    packed: dict[str, Packed] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    """The newest whole snapshot; ``notes`` has a line for each newer one that is damaged."""

    snapshot: Snapshot
    path: Path
    notes: tuple[str, ...]


def save(folder: Path, snapshot: Snapshot, keep: int = KEEP, files: Files = DISK) -> Path:
    """Write the next snapshot into an existing ``folder``, then remove all but the ``keep`` newest.

    On the disk when this returns; needs room for one more file than are kept. The folder is not made here, so that
    nothing is written beside a mount that has vanished. Raises DivergedError for values that are not finite,
    DamagedFileError if a forged name leaves no next number, else as ``write_atomic``.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}, at least one snapshot must stay.")
    serials = _numbers(folder, "snapshot")
    if serials and serials[-1] + 1 >= 10**_MAX_DIGITS:
        # The next name would have a digit more than are read, so that the run would go back to this one for ever.
        path = _path(folder, "snapshot", serials[-1])
        raise DamagedFileError(f"{path} has a number that no run reaches; remove it, then run the same command again.")
    path = _path(folder, "snapshot", serials[-1] + 1 if serials else 0)
    write(path, snapshot, files)
    # Only now: the new name is on the disk, whatever happens to the old ones.
    for serial in serials[: len(serials) + 1 - keep]:
        old = _path(folder, "snapshot", serial)
        with explained(old, "removed"):
            files.unlink(old)
    return path


def save_task(folder: Path, task: int, snapshot: Snapshot, files: Files = DISK) -> Path:
    """Write the state at the end of task number ``task``, replacing an earlier end of it. Raises as ``save``."""
    path = _path(folder, "task", task)
    write(path, snapshot, files)
    return path


def write(path: Path, snapshot: Snapshot, files: Files = DISK) -> None:
    """Write a file of this format under any name, for ``load``. Raises as ``save``."""
    pieces = _encode(snapshot, path)
    write_atomic(path, _bytes_of(pieces), files, size_bytes=_size(pieces))


def load_latest(folder: Path) -> Loaded | None:
    """The newest whole snapshot, or None if there never was one (``folder`` may be missing).

    Raises DamagedFileError if none is whole, InputError if one cannot be opened or is of a newer edge-zofc: an older
    snapshot is no answer to those.
    """
    notes: list[str] = []
    for serial in reversed(_numbers(folder, "snapshot")):
        path = _path(folder, "snapshot", serial)
        try:
            return Loaded(load(path), path, tuple(notes))
        except DamagedFileError as error:
            notes.append(f"{error} The run goes on from the snapshot before it.")
    if notes:
        raise DamagedFileError(
            f"None of the {len(notes)} snapshots in {folder} is whole; go back to the end of a task with "
            "'edge-zofc rollback', or put back a good copy of the run."
        )
    return None


def load(path: Path) -> Snapshot:
    """Read one snapshot file; takes twice its size in memory.

    Raises InputError if it is missing, DamagedFileError if it is not whole, DoesNotFitError without the memory.
    """
    try:
        raw = read_bounded(path, MAX_SNAPSHOT_BYTES)
        as_hashed = (raw[: _DIGEST.start], b"0" * 64, memoryview(raw)[_DIGEST.stop :])
        if raw[8 : _DIGEST.start] != _START or raw[_DIGEST] != _digest(as_hashed):
            raise DamagedFileError(f"{path} is damaged: its SHA-256 does not fit; put back a good copy.")
        return _decode(raw, path)
    except MemoryError as error:
        raise DoesNotFitError(f"{path} does not fit into memory; give the process a larger budget.") from error
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedFileError(f"{path} is not a snapshot ({reason}); put back a good copy.") from error


def load_task(folder: Path, task: int) -> Snapshot:
    """The state at the latest end of task number ``task``. Raises InputError if there is none, else as ``load``."""
    if task not in (ends := tasks(folder)):
        raise InputError(f"{folder} has no end of task {task}; the tasks with one are {ends}.")
    return load(_path(folder, "task", task))


def task_sha256(folder: Path, task: int) -> str:
    """The SHA-256 that the end of task number ``task`` tells of itself; ``load_task`` checks it.

    "" where no other end can follow it, as its statistics are those of format 1 or it is none of ours. Raises
    InputError if there is no such file.
    """
    raw = _start_of(folder, task)
    is_known = raw[8 : _DIGEST.start] == _START and raw[_DIGEST.stop :].startswith((_named(FORMAT), _named(PART)))
    return raw[_DIGEST].decode("latin-1") if is_known else ""


def is_part(folder: Path, task: int) -> bool:
    """Whether the end of task number ``task`` needs the one before. Raises InputError if there is no such file."""
    return _start_of(folder, task)[_DIGEST.stop :].startswith(_named(PART))


def _start_of(folder: Path, task: int) -> bytes:
    return read_at(_path(folder, "task", task), 0, _DIGEST.stop + 64)


def _named(name: str) -> bytes:
    """How a file of this format goes on behind its SHA-256."""
    return f'","format":"{name}"'.encode()


def tasks(folder: Path) -> list[int]:
    """The numbers of the tasks that ``load_task`` finds, in order."""
    return _numbers(folder, "task")


def file_bytes(snapshot: Snapshot) -> int:
    """How large the snapshot's file is. A run holds KEEP + 1 of them while saving, and one a finished task."""
    return _size(_encode(snapshot, Path("a snapshot")))


def _path(folder: Path, kind: str, number: int) -> Path:
    return folder / f"{kind}-{number:0{_WIDTHS[kind]}d}.safetensors"


def _numbers(folder: Path, kind: str) -> list[int]:
    """The numbers in the names of this kind, in order. A missing folder has none."""
    pattern = re.compile(rf"{kind}-([0-9]{{1,{_MAX_DIGITS}}})\.safetensors")
    found = []
    with explained(folder, "read"), suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            match = pattern.fullmatch(entry.name)
            # Only names as they are written here: "snapshot-1" or a ninth zero would lead to another file.
            if match and entry.name == _path(folder, kind, int(match[1])).name:
                found.append(int(match[1]))
    return sorted(found)


def _encode(snapshot: Snapshot, path: Path) -> list[_Piece]:
    """The file in pieces; the arrays are not copied if they are contiguous."""
    entries: dict[str, Any] = {
        "__metadata__": {"sha256": "0" * 64, "format": PART if FOLLOWS in snapshot.metadata else FORMAT}
    }
    try:
        entries["__metadata__"]["state"] = json.dumps(snapshot.metadata, allow_nan=False, sort_keys=True)
    except ValueError as error:
        raise DivergedError(f"The state for {path} cannot be saved: {error}.") from error
    pieces, end = list[_Piece](), 0
    arrays: dict[str, np.ndarray | Packed] = {**snapshot.arrays, **snapshot.packed}
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        if name == "__metadata__" or array.dtype.name not in _DTYPES:
            raise ValueError(f"{name} of type {array.dtype} cannot be in a snapshot.")
        if not np.isfinite(array.values if isinstance(array, Packed) else array).all():
            raise DivergedError(f"The state for {path} is not saved: {name} holds values that are not finite.")
        start, end = end, end + array.nbytes
        entries[name] = {"dtype": _DTYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [start, end]}
        pieces.append(array if isinstance(array, Packed) else _little_endian(array))
    text = json.dumps(entries, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    head = bytearray(len(text).to_bytes(8, "little") + text)
    if len(head) + end > MAX_SNAPSHOT_BYTES:
        raise DoesNotFitError(
            f"The state for {path} takes {len(head) + end} bytes where {MAX_SNAPSHOT_BYTES} are the limit; "
            "learn fewer classes or use a smaller backbone."
        )
    head[_DIGEST] = _digest(chain([head], _bytes_of(pieces)))
    return [memoryview(head), *pieces]


def _little_endian(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data


def _bytes_of(pieces: Sequence[_Piece]) -> Iterator[memoryview]:
    """What is written, in order; of a packed matrix a few rows at a time are there."""
    for piece in pieces:
        yield from map(_little_endian, piece.rows()) if isinstance(piece, Packed) else [piece]


def _size(pieces: Sequence[_Piece]) -> int:
    return sum(piece.nbytes for piece in pieces)


def _decode(raw: bytes, path: Path) -> Snapshot:
    """Parse what has the right SHA-256; raises what the parsers raise."""
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    found = header["__metadata__"]
    if found["format"] not in _READABLE:
        raise InputError(
            f"{path} is of format {found['format']!a:.80}, this edge-zofc reads {FORMAT!r}; update edge-zofc."
        )
    metadata = json.loads(found["state"])
    json.dumps(metadata, allow_nan=False)  # raises ValueError for NaN and infinity, which JSON does not have
    if not isinstance(metadata, dict):
        raise ValueError("its state is no JSON object")
    arrays = safetensors_load(raw)
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES or not np.isfinite(array).all():
            raise ValueError(f"{name!a:.80} is {array.dtype.name} or holds values that are not finite")
    return Snapshot(arrays, metadata)


def _digest(parts: Iterable[bytes | bytearray | memoryview]) -> bytes:
    """SHA-256 as 64 ASCII characters."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode("ascii")
