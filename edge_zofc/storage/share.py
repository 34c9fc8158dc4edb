"""What a device gives to its fleet: one share, the statistics of its classes, as bytes that anything may carry.

Format version 1, little-endian:

    offset size   header
         0    8   b"EZOFCSHR"
         8    2   format version = 1
        10    1   1 where pictures are normalised with the backbone's mean and standard deviation, else 0
        11    1   W, bytes of an integer of the sums, 1 to 7
        12    1   V, bytes of an integer of the moment, 1 to 7
        13    1   length of the device's name
        14    2   D, the length of a feature
        16    4   C, classes
        20    8   share number: of two shares of one device the larger one is the newer
        28   32   bundle identity (SHA-256)
        60   32   SHA-256 of the adapter float32 [P] that the features were computed with
        92        the device's name: letters, digits and . _ -
                  for each class: length of its name, 2 bytes; the name in UTF-8; its pictures, 4 bytes
                  C x D sums of features, by class, W bytes each, in units of 2^-12
                  D (D + 1) / 2 entries of the raw second moment (the sum of f f^T over all pictures), on and
                  above the diagonal, row-major, V bytes each, in units of 2^-24
                  4 bytes: CRC-32 of all before

Sums and moment are whole numbers of units because features are rounded to 2^-12 (``algorithm/statistics.py``). So
shares add up without error, no infinity can be in one, and an integer of some hundred pictures takes 5 bytes.

A device's class ids are its own. Names tell which classes of two devices are one: they are compared in NFC.

The sum of a class with one picture is that picture's feature. Who has two shares of a device knows the sum of what it
saw between them. Nothing in a share proves who made it.
"""

from __future__ import annotations

import re
import struct
import unicodedata
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_zofc.algorithm import symmetric
from edge_zofc.algorithm.statistics import GRID, Statistics
from edge_zofc.errors import DamagedFileError, InputError, is_control, quoted

FORMAT_VERSION = 1
MAGIC = b"EZOFCSHR"
MAX_SHARE_BYTES = 1 << 28
MOST_CLASSES, MOST_FEATURES, MOST_NAME_BYTES = 10_000, 4096, 1024
MOST_MEAN = 1024.0
"""No entry of a class mean is larger. Features of pictures are far below."""
MOST_MOMENT = 2.0**29
"""Up to here sums of products on the grid are exact in float64."""

_HEADER = struct.Struct("<8sHBBBBHIQ32s32s")
_CRC = struct.Struct("<I")
_LENGTH, _PICTURES = struct.Struct("<H"), struct.Struct("<I")
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ROUNDING = 1e-6
"""Of an entry of the moment: what float64 may lose where a bound is computed."""


@dataclass(frozen=True)
class Share:
    """``statistics`` float64 [C, D] of the classes ``class_names`` [C], all with pictures.

    ``bundle_identity`` and ``adapter_sha256`` are 64 hex digits: features of other ones must not be added to these.
    """

    name: str
    number: int
    bundle_identity: str
    adapter_sha256: str
    normalise: bool
    class_names: tuple[str, ...]
    statistics: Statistics

    @property
    def pictures(self) -> int:
        """How many were counted, of all classes."""
        return int(self.statistics.counts.sum())


def device_name(text: str) -> str:
    """``text``, if it can be the name of a device and of its file. Raises InputError."""
    if not _DEVICE.fullmatch(text):
        raise InputError(
            f"{quoted(text)} cannot be the name of a device: give 1 to 64 letters, digits and . _ - with --name, "
            "a letter or digit first."
        )
    return text


def encode(share: Share) -> bytes:
    """The bytes of a share; the same share gives the same bytes.

    Raises InputError for a name that no device may have, DamagedFileError for statistics that no pictures have.
    """
    class_names = tuple(unicodedata.normalize("NFC", text) for text in share.class_names)
    fault = _fault_of_names(class_names) or fault_of(share.statistics)
    if fault:
        raise DamagedFileError(f"The device {share.name} has nothing that can be shared: {fault}.")
    return packed(replace(share, name=device_name(share.name), class_names=class_names))


def packed(share: Share) -> bytes:
    """The bytes of a share that nobody looked at, as a hostile device would send it."""
    name, statistics = share.name.encode("ascii"), share.statistics
    size, class_names = statistics.sums.shape[1], share.class_names
    width, sums = _integers(statistics.sums / GRID)
    moment_width, moment = _integers(symmetric.triangle(statistics.moment, size) / GRID**2)
    header = _HEADER.pack(
        MAGIC, FORMAT_VERSION, share.normalise, width, moment_width, len(name), size, len(class_names), share.number,
        bytes.fromhex(share.bundle_identity), bytes.fromhex(share.adapter_sha256),
    )  # fmt: skip
    pieces = [header, name]
    for text, count in zip(class_names, statistics.counts.tolist(), strict=True):
        raw = text.encode()
        pieces += [_LENGTH.pack(len(raw)), raw, _PICTURES.pack(count)]
    body = b"".join([*pieces, sums, moment])
    return body + _CRC.pack(zlib.crc32(body))


def decode(raw: bytes, where: str = "The share") -> Share:
    """The share in ``raw``; ``where`` names it in a message.

    Raises InputError for a newer format, DamagedFileError for anything that is no whole share, or whose statistics no
    pictures have (``fault_of``).
    """
    try:
        return _decoded(*_opened(raw, where))
    except (ValueError, struct.error) as error:  # UnicodeDecodeError is a ValueError
        reason = "it ends too early" if isinstance(error, struct.error) else error
        raise DamagedFileError(
            f"{where} is no whole share: {reason}; copy it again, or make it anew with 'edge-zofc fleet share'."
        ) from error


def _opened(raw: bytes, where: str) -> tuple[tuple[Any, ...], memoryview]:
    """The fields of the header behind the format version, and all bytes before the checksum, which is right.

    Raises ValueError with what is wrong.
    """
    if raw[: len(MAGIC)] != MAGIC or len(raw) < _HEADER.size + _CRC.size:
        raise ValueError("it does not begin as one")
    body = memoryview(raw)[: -_CRC.size]
    if zlib.crc32(body) != _CRC.unpack(raw[-_CRC.size :])[0]:
        raise ValueError("its checksum does not fit")
    _, version, *fields = _HEADER.unpack_from(raw)
    if version > FORMAT_VERSION:
        raise InputError(f"{where} has format version {version}, this edge-zofc reads {FORMAT_VERSION}; update it.")
    normalise, width, moment_width, _, size, classes, *_ = fields
    if version != FORMAT_VERSION or normalise > 1 or not (0 < width < 8 and 0 < moment_width < 8):
        raise ValueError("its header holds what no share has")
    if not (0 < size <= MOST_FEATURES and 0 < classes <= MOST_CLASSES):
        limits = f"{MOST_CLASSES} and {MOST_FEATURES}"
        raise ValueError(f"it has {classes} classes of {size} features, the limits are {limits}")
    return tuple(fields), body


def _decoded(fields: tuple[Any, ...], body: memoryview) -> Share:
    """Raises ValueError with what is wrong."""
    normalise, width, moment_width, name_bytes, size, classes, number, bundle, adapter = fields
    name, at = bytes(body[_HEADER.size : _HEADER.size + name_bytes]).decode("ascii"), _HEADER.size + name_bytes
    if not _DEVICE.fullmatch(name):
        raise ValueError("its device has no proper name")
    class_names, counts, at = _classes(body, at, classes)
    end, pairs = at + classes * size * width, size * (size + 1) // 2
    if len(body) != end + pairs * moment_width:
        raise ValueError(f"its {len(body)} bytes do not fit its {classes} classes of {size} features")
    sums = _floats(body[at:end], width) * GRID
    moment = _floats(body[end:], moment_width) * GRID**2
    statistics = Statistics(sums.reshape(classes, size), counts, symmetric.from_triangle(moment, size))
    fault = _fault_of_names(class_names) or fault_of(statistics)
    if fault:
        raise ValueError(fault)
    return Share(name, number, bundle.hex(), adapter.hex(), bool(normalise), class_names, statistics)


def _classes(body: memoryview, at: int, classes: int) -> tuple[tuple[str, ...], np.ndarray, int]:
    """Names, pictures int64 [C], and where the table ends."""
    names, counts = list[str](), list[int]()
    for _ in range(classes):
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        counts += _PICTURES.unpack_from(body, at + length)  # struct.error where the name is cut off, too
        names.append(bytes(body[at : at + length]).decode("utf-8"))
        at += length + _PICTURES.size
    return tuple(names), np.array(counts, np.int64), at


def _fault_of_names(names: tuple[str, ...]) -> str:
    """What is wrong with the names of classes; "" if nothing."""
    if not names:
        return "it has no class"
    for name in names:
        if not 0 < len(name.encode("utf-8", "surrogatepass")) <= MOST_NAME_BYTES or any(map(is_control, name)):
            return f"{quoted(name)} is no name of a class"
        if not unicodedata.is_normalized("NFC", name):
            return f"{quoted(name)} is not in Unicode's form NFC"
    return "a class stands in it twice" if len(set(names)) < len(names) else ""


def fault_of(statistics: Statistics) -> str:
    """Why there are no pictures with these statistics; "" where nothing speaks against it.

    Looked at: that each class has pictures and a mean within bounds, and that the second moment's diagonal is at least
    what the class means make of it and no entry of it larger than Cauchy and Schwarz allow.
    """
    counts, sums, size = statistics.counts, statistics.sums, statistics.sums.shape[1]
    if (counts < 1).any() or (counts >= 1 << 32).any():
        return "a class has no pictures, or more than 4 billion"
    if (np.abs(sums) > counts[:, None] * MOST_MEAN).any():
        return f"the mean of a class is beyond the bound of {MOST_MEAN:.0f}"
    diagonal = symmetric.diagonal(statistics.moment, size)
    if (diagonal > MOST_MOMENT).any():
        return f"its second moment is beyond the bound of {MOST_MOMENT:.0f}"
    if (diagonal < np.sum(sums * sums / counts[:, None], axis=0) * (1 - _ROUNDING) - _ROUNDING).any():
        return "its second moment is smaller than its class means make it"
    lengths = np.sqrt(np.maximum(diagonal, 0.0)) * (1 + _ROUNDING) + _ROUNDING
    for rows, slab in symmetric.slabs(statistics.moment, size):
        if (np.abs(slab) > lengths[rows, None] * lengths[rows.start :]).any():
            return "an entry of its second moment is larger than the diagonal allows"
    return ""


def _integers(values: np.ndarray) -> tuple[int, bytes]:
    """How many bytes each takes, and whole numbers float64 [...] in so many bytes each, signed."""
    whole = np.rint(values).astype("<i8").reshape(-1)
    width = (int(np.abs(whole).max()).bit_length() + 8) // 8
    return width, whole.view(np.uint8).reshape(-1, 8)[:, :width].tobytes()


def _floats(raw: memoryview, width: int) -> np.ndarray:
    """What ``_integers`` wrote, float64 [n]."""
    shifted = np.zeros((len(raw) // width, 8), np.uint8)
    shifted[:, 8 - width :] = np.frombuffer(raw, np.uint8).reshape(-1, width)
    return (shifted.view("<i8")[:, 0] >> 8 * (8 - width)).astype(np.float64)
