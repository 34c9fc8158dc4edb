"""Features of a task's pictures under one adapter, computed once and kept in ``R/features/``.

The beginning of a task, the class means, the refresh of a solved head and every evaluation read them here. A process
that is killed in the middle of a pass goes on where it was, as what it computed lies on the disk.

``<set>.<adapter>.f32`` is a row of pieces, one a micro-batch, little-endian:

    uint32   n, how many pictures
    float32  n x (D + 1): a picture's position and its features; of an unreadable one -1 - position and zeros
    uint32   CRC-32 of the piece so far

A piece that is torn or damaged ends the file. All files may be deleted at any time: what is missing is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_zofc.engine.pictures import PictureReader
from edge_zofc.engine.pixel_store import SUFFIX, Picture
from edge_zofc.errors import DamagedFileError, EdgeZofcError, explained
from edge_zofc.inference.backbone import Backbone
from edge_zofc.storage.reading import is_there, open_plain
from edge_zofc.storage.writing import append_at, make_folder

_HEAD = struct.Struct("<I")
_CRC = struct.Struct("<I")
MAX_PIECE = 1 << 16
PIECE_BYTES = _HEAD.size + _CRC.size
"""What a piece has beside its rows."""


@dataclass(frozen=True)
class PictureSet:
    """Pictures whose features are kept under ``name``, which must change when the pictures do.

    ``keeps_pixels``: whether they are decoded more than once, so that their pixels are kept too.
    """

    name: str
    paths: tuple[Path, ...]
    keeps_pixels: bool = False

    @property
    def pixel_file(self) -> str:
        """The name of the file of their decoded pixels, "" where these are not kept."""
        return f"{self.name}{SUFFIX}" if self.keeps_pixels else ""

    def picture(self, position: int) -> Picture:
        """One of them, and where its pixels are kept."""
        return Picture(self.paths[position], self.pixel_file, position)


@dataclass
class Kept:
    """What a file holds: positions of readable pictures and of unreadable ones, and its whole bytes."""

    positions: list[int] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, codes: np.ndarray, size_bytes: int) -> None:
        """Count one more piece in; ``codes`` are the first entries of its rows."""
        self.positions += [int(code) for code in codes if code >= 0]
        self.unreadable += [-1 - int(code) for code in codes if code < 0]
        self.size_bytes += size_bytes

    def __len__(self) -> int:
        return len(self.positions) + len(self.unreadable)


class FeatureStore:
    """The files in ``folder`` of features float32 [D]."""

    def __init__(self, folder: Path, feature_size: int) -> None:
        self.folder, self.feature_size = folder, feature_size
        self._known: dict[Path, Kept] = {}

    def ensure(
        self, backbone: Backbone, sets: Sequence[PictureSet], adapters: Sequence[np.ndarray], reader: PictureReader
    ) -> None:
        """Compute what is missing of ``sets`` under one or two ``adapters`` float32 [P], all sets in one pass.

        Each micro-batch is kept as soon as it is there. Raises what ``reader`` raises, and as ``append_at``.
        """
        make_folder(self.folder)
        # After a cut one adapter's file may be a piece ahead of the other's: alone first, then together.
        for some in ([adapter] for adapter in adapters) if len(adapters) > 1 else ():
            self._compute(backbone, [(s, p) for s in sets for p in self._behind(s, adapters, some[0])], some, reader)
        self._compute(backbone, [(s, p) for s in sets for p in self._missing(s, adapters)], adapters, reader)

    def _missing(self, pictures: PictureSet, adapters: Sequence[np.ndarray]) -> range:
        return range(max(len(self.kept(pictures, adapter)) for adapter in adapters), len(pictures.paths))

    def _behind(self, pictures: PictureSet, adapters: Sequence[np.ndarray], adapter: np.ndarray) -> range:
        return range(len(self.kept(pictures, adapter)), self._missing(pictures, adapters).start)

    def _compute(
        self,
        backbone: Backbone,
        due: list[tuple[PictureSet, int]],
        adapters: Sequence[np.ndarray],
        reader: PictureReader,
    ) -> None:
        done = 0
        for indices, features in reader.features(backbone, adapters, [s.picture(p) for s, p in due]):
            end = int(indices[-1]) + 1
            self._keep(due[done:end], indices - done, adapters, features)
            done = end
        if done < len(due):  # the last ones cannot be read
            none = np.zeros((len(adapters), 0, self.feature_size), np.float32)
            self._keep(due[done:], np.zeros(0, np.int64), adapters, none)

    def _keep(
        self,
        due: list[tuple[PictureSet, int]],
        readable: np.ndarray,
        adapters: Sequence[np.ndarray],
        features: np.ndarray,
    ) -> None:
        """Append a piece to each file: ``features`` float32 [K, n, D] of the ``readable`` entries of ``due``."""
        rows = np.zeros((len(adapters), len(due), self.feature_size + 1), np.float32)
        rows[:, :, 0] = [-1 - position for _, position in due]
        rows[:, readable, 0] = [due[index][1] for index in readable]
        rows[:, readable, 1:] = features
        start = 0
        while start < len(due):
            pictures = due[start][0]
            end = next((i for i in range(start, len(due)) if due[i][0] is not pictures), len(due))
            for adapter, part in zip(adapters, rows[:, start:end], strict=True):
                self.append(pictures, adapter, part)
            start = end

    def append(self, pictures: PictureSet, adapter: np.ndarray, rows: np.ndarray) -> None:
        """Keep one more piece: ``rows`` float32 [n, D + 1], positions and features. Raises as ``append_at``."""
        old, path = self.kept(pictures, adapter), self._path(pictures, adapter)
        piece = _HEAD.pack(len(rows)) + rows.astype("<f4", copy=False).tobytes()
        piece += _CRC.pack(zlib.crc32(piece))
        append_at(path, piece, old.size_bytes)
        old.add(rows[:, 0], len(piece))

    def copy_some(self, source: PictureSet, target: PictureSet, adapter: np.ndarray, codes: np.ndarray) -> None:
        """Keep rows of ``source`` as those of ``target``, anew: ``codes`` int64 [n] stand in place of positions, and
        rows with a negative one are left out.
        """
        self._known[self._path(target, adapter)] = Kept()
        for positions, features in self.rows(source, adapter):
            wanted = codes[positions]
            rows = np.column_stack([wanted, features])[wanted >= 0].astype(np.float32)
            if len(rows):
                self.append(target, adapter, rows)

    def kept(self, pictures: PictureSet, adapter: np.ndarray) -> Kept:
        """What the file of ``pictures`` under ``adapter`` float32 [P] holds."""
        path = self._path(pictures, adapter)
        if path not in self._known:
            found = self._known[path] = Kept()
            # What cannot be read is computed again; a foreign file in its place is an error when it is written.
            with contextlib.suppress(EdgeZofcError):
                for rows, size_bytes in self._pieces(path) if is_there(path) else ():
                    found.add(rows[:, 0], size_bytes)
        return self._known[path]

    def rows(self, pictures: PictureSet, adapter: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Positions int64 [n] and features float32 [n, D] of the readable pictures, a piece at a time.

        Raises DamagedFileError if the file no longer holds what it held when it was looked at.
        """
        path, left = self._path(pictures, adapter), len(self.kept(pictures, adapter))
        for rows, _ in self._pieces(path) if left else ():
            readable = rows[rows[:, 0] >= 0]
            left -= len(rows)
            yield readable[:, 0].astype(np.int64), readable[:, 1:]
        if left:
            raise DamagedFileError(f"{path} became shorter while it was read; remove it and try again.")

    def forget_all_but(self, names: set[str]) -> None:
        """Remove every file but these: what ``name`` gave for sets and adapters, and files of decoded pixels."""
        with explained(self.folder, "cleaned up"):
            for path in self.folder.iterdir():
                if path.name not in names and not path.is_dir():
                    path.unlink(missing_ok=True)

    @staticmethod
    def name(pictures: PictureSet, adapter: np.ndarray) -> str:
        """The file's name."""
        return f"{pictures.name}.{adapter_key(adapter)}.f32"

    def _path(self, pictures: PictureSet, adapter: np.ndarray) -> Path:
        return self.folder / self.name(pictures, adapter)

    def _pieces(self, path: Path) -> Iterator[tuple[np.ndarray, int]]:
        """Rows float32 [n, D + 1] and bytes of each whole piece."""
        with open_plain(path) as file, explained(path, "read"):
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                (count,) = _HEAD.unpack(head)
                size_bytes = 4 * count * (self.feature_size + 1)
                if not 0 < count <= MAX_PIECE or size_bytes > os.fstat(file.fileno()).st_size:
                    return
                body, crc = file.read(size_bytes), file.read(_CRC.size)
                if crc != _CRC.pack(zlib.crc32(body, zlib.crc32(head))):
                    return
                rows = np.frombuffer(body, "<f4").reshape(count, self.feature_size + 1)
                yield rows, len(head) + size_bytes + len(crc)


def adapter_key(adapter: np.ndarray) -> str:
    """A name for the values of an adapter, float32 [P]."""
    return hashlib.sha256(adapter.tobytes()).hexdigest()[:16]
