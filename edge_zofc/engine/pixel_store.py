"""Decoded pictures, kept in ``R/features/`` where a run reads them again and again.

Without augmentation a task's beginning, its steps and its refresh see the same pixels of a picture, and so does every
evaluation. Reading them here takes 0.04 to 0.2 ms, decoding a picture of a camera 9 to 250 ms (2 cores x86-64, S 96 and
224). A small picture is decoded anew: its pixels would take more room than its file.

``<set>.u8`` has a slot of one size for each position of a set:

    16 bytes    BLAKE2b of the picture's name, size and time, and of what decoded it
    S x S x 3   bytes, RGB
    uint32      CRC-32 of both, little-endian

A slot that is empty, torn or of another state of the picture counts for nothing. The files hold what the pictures show:
they are removed once their task is over or their pictures changed, and lie nowhere but in the run folder. All of them
may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from edge_zofc import __version__
from edge_zofc.errors import EdgeZofcError
from edge_zofc.inference.transforms import decode_test, to_input
from edge_zofc.storage.manifest import ImageSpec
from edge_zofc.storage.reading import read_at
from edge_zofc.storage.writing import write_at

log = logging.getLogger("edge_zofc")

SUFFIX = ".u8"
LIMIT_BYTES = 256 << 20
"""What all files together take at most: 9,700 pictures at 96 px, 1,780 at 224 px. What comes later is decoded."""
FREE_BYTES = 512 << 20
"""With less free on the disk nothing is kept: the room is for what the run cannot do without."""
KEEP_FACTOR = 8
"""A picture is kept if it has this many times the pixels that the network sees. From there on decoding takes above a
millisecond."""
_KEY_BYTES = 16
_CRC = struct.Struct("<I")


class Picture(NamedTuple):
    """A picture file, the file of decoded pixels that it is kept in ("": not kept), and its slot there."""

    path: Path
    kept_in: str = ""
    position: int = 0


def slot_bytes(size: int) -> int:
    """The room of one picture of ``size`` x ``size`` pixels."""
    return _KEY_BYTES + 3 * size * size + _CRC.size


class PixelStore:
    """The files of decoded pictures in ``folder``, for one way to cut a picture, ``spec``."""

    def __init__(self, folder: Path, spec: ImageSpec) -> None:
        self.folder, self.spec = folder, spec
        self._slot_bytes = slot_bytes(spec.size)
        self._sizes: dict[str, int] | None = None
        self._is_off = False

    def load(self, picture: Picture, normalise: bool, out: np.ndarray) -> None:
        """Fill ``out`` float32 [3, S, S] as ``load_test`` does, to the same bits. Raises ImageError."""
        key = _key(picture.path) if picture.kept_in else b""
        pixels = self._kept(picture, key) if key else None
        if pixels is None:
            pixels, source_pixels = decode_test(picture.path, self.spec)
            if key and source_pixels >= KEEP_FACTOR * self.spec.size**2:
                self._keep(picture, key, pixels)
        to_input(pixels, self.spec, normalise, out)

    def look_again(self) -> None:
        """Call it when files were removed."""
        self._sizes = None

    def _kept(self, picture: Picture, key: bytes) -> np.ndarray | None:
        """The pixels uint8 [S, S, 3] in the picture's slot, or None if they are not those of ``key``."""
        if picture.kept_in not in self._known_sizes():
            return None
        with suppress(EdgeZofcError):
            slot = read_at(self.folder / picture.kept_in, picture.position * self._slot_bytes, self._slot_bytes)
            body, crc = slot[: -_CRC.size], slot[-_CRC.size :]
            if len(slot) == self._slot_bytes and slot.startswith(key) and crc == _CRC.pack(zlib.crc32(body)):
                size = self.spec.size
                return np.frombuffer(body, np.uint8, offset=_KEY_BYTES).reshape(size, size, 3)
        return None

    def _keep(self, picture: Picture, key: bytes, pixels: np.ndarray) -> None:
        """Write the picture's slot if there is room. A disk that refuses ends the keeping, never the run."""
        sizes = self._known_sizes()
        start = picture.position * self._slot_bytes
        grown = max(sizes.get(picture.kept_in, 0), start + self._slot_bytes)
        if self._is_off or sum(sizes.values()) - sizes.get(picture.kept_in, 0) + grown > LIMIT_BYTES:
            return
        body = key + pixels.tobytes()
        try:
            if shutil.disk_usage(self.folder).free < FREE_BYTES:
                self._give_up(f"less than {FREE_BYTES >> 20} MiB are free on the disk")
                return
            write_at(self.folder / picture.kept_in, body + _CRC.pack(zlib.crc32(body)), start)
            sizes[picture.kept_in] = grown
        except (EdgeZofcError, OSError) as error:
            self._give_up(str(error))

    def _give_up(self, why: str) -> None:
        """Keep nothing more in this process, and give the room back."""
        self._is_off = True
        for name in self._known_sizes():
            with suppress(OSError):
                (self.folder / name).unlink()
        self._sizes = {}
        log.info("Decoded pictures are not kept, so that learning takes longer: %s.", why.rstrip("."))

    def _known_sizes(self) -> dict[str, int]:
        if self._sizes is None:
            self._sizes = {}
            with suppress(OSError):
                for path in self.folder.glob(f"*{SUFFIX}"):
                    self._sizes[path.name] = path.lstat().st_size
        return self._sizes


def _key(path: Path) -> bytes:
    """What the pixels depend on; b"" where the file cannot be looked at."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return b""
    text = f"{path.parent.name}/{path.name} {status.st_size} {status.st_mtime_ns} {PIL.__version__} {__version__}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=_KEY_BYTES).digest()
