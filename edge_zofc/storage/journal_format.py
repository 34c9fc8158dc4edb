"""The bytes of a journal: header and records, to and from frozen dataclasses. Touches no disk.

``journal.bin``, format version 1, little-endian, a header of 108 bytes and then records of 24 + 4 Q bytes:

    offset size   header                                   offset size  record
         0    8   b"EZOFCJNL"                                   0    4  kind: 1 step, 2 task start,
         8    2   format version = 1                                    3 task end, 4 rollback, 5 rest
        10    2   Q, queries a step                             4    4  task number, signed
        12    4   eps, float32                                  8    8  step number
        16    4   momentum, float32                            16    4  learning rate, float32
        20    4   record size = 24 + 4 Q                       20  4 Q  coefficients as applied (after
        24    8   seed                                                  clipping), float32
        32    8   P, adapter parameters                   20 + 4Q    4  CRC-32 of the record before it,
        40   32   bundle identity (SHA-256)                             continued from the header's CRC-32
        72   32   scheme of the directions, ASCII, 0-padded
       104    4   CRC-32 of bytes 0-103

All but steps hold zeros for rate and coefficients. ``journal.py`` says what the records mean.

Version 1 is the journal of the optimizer "sgd". Any other makes it version 2, which differs in the header's last
field: 24 bytes of the scheme and then 8 of the optimizer's name, ASCII, 0-padded. The records are the same; "conserve"
writes the coefficients times 0, 1 or -1, as it chose.

Version 3 is that of a run with another scheme of directions, or whose adapter may go back to its start: it alone has
records of kind 5. Its header is laid out as version 2's, whatever the optimizer.

The CRC of a record depends on the header, so that old disk blocks of another run's journal do not pass for records of
this one. A CRC-32 notices every error within 32 neighbouring bits, and so every single wrong byte.
"""

from __future__ import annotations

import ctypes
import re
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import cast, get_args

from edge_zofc.algorithm.adapter import Optimizer
from edge_zofc.algorithm.directions import SCHEME, SCHEMES
from edge_zofc.errors import DamagedFileError, InputError

FORMAT_VERSION = 3
"""The newest version that is read and written; a journal is written in the oldest that can hold it."""
MAGIC = b"EZOFCJNL"
HEADER_BYTES = 108
INITIAL = -1
"""The task number of a rollback to the state before the first task."""

_HEADER = struct.Struct("<8sHHffIQQ32s24s8s")
_CRC = struct.Struct("<I")


class Kind(IntEnum):
    """What a record says happened."""

    STEP = 1
    TASK_START = 2
    TASK_END = 3
    ROLLBACK = 4
    REST = 5


@dataclass(frozen=True)
class Header:
    """What every step of the run shares. ``eps`` and ``momentum`` are rounded to float32 on construction.

    ``rests``: whether there may be records of kind REST; always so with other directions than SCHEME.
    """

    seed: int
    bundle_identity: str
    adapter_size: int
    eps: float
    momentum: float
    queries: int
    directions: str = SCHEME
    optimizer: Optimizer = "sgd"
    rests: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rests", self.rests or self.directions != SCHEME)
        object.__setattr__(self, "eps", _float32(self.eps))
        object.__setattr__(self, "momentum", _float32(self.momentum))

    @property
    def version(self) -> int:
        """The format version that it is written in."""
        return 3 if self.rests else 1 if self.optimizer == "sgd" else 2

    @property
    def record_bytes(self) -> int:
        """Size of one record: 40 bytes at Q = 4, so 10,000 steps take 0.4 MB."""
        return record_bytes(self.queries)

    @cached_property
    def crc(self) -> int:
        """CRC-32 of the header's bytes, which the CRC-32 of each record continues."""
        return zlib.crc32(_header_body(self))


@dataclass(frozen=True)
class Record:
    """One thing that happened. ``step`` is a step's own number, else the number the next step will have.

    ``coefficients`` holds Q values for a step and none otherwise. They and ``learning_rate`` are rounded to float32 on
    construction. A step is applied from here, so that the replay applies the same.
    """

    kind: Kind
    task: int
    step: int
    learning_rate: float = 0.0
    coefficients: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "learning_rate", _float32(self.learning_rate))
        object.__setattr__(self, "coefficients", tuple(map(_float32, self.coefficients)))


def record_bytes(queries: int) -> int:
    """Bytes of one record with Q = ``queries``."""
    return 24 + 4 * queries


def encode_header(header: Header) -> bytes:
    """The first HEADER_BYTES of a journal. Raises ValueError for values that no run has."""
    if fault := _header_fault(header):
        raise ValueError(f"{header} is no journal header: {fault}")
    return _header_body(header) + _CRC.pack(header.crc)


def _header_body(header: Header) -> bytes:
    name = b"" if header.version == 1 else header.optimizer.encode("ascii")
    return _HEADER.pack(
        MAGIC, header.version, header.queries, header.eps, header.momentum, header.record_bytes, header.seed,
        header.adapter_size, bytes.fromhex(header.bundle_identity), header.directions.encode("ascii"), name,
    )  # fmt: skip


def decode_header(raw: bytes, path: Path) -> Header:
    """The header in the first bytes of the file ``path``.

    Raises DamagedFileError, or InputError if a newer edge-zofc wrote it.
    """
    if len(raw) < HEADER_BYTES or not raw.startswith(MAGIC):
        raise DamagedFileError(f"{path} is not a journal: its header is missing; put back a good copy.")
    # The CRC stands at the same place in every version, so that a flipped bit is never taken for a newer one.
    if not crc_fits(raw, 0):
        raise DamagedFileError(f"{path} is damaged: the CRC-32 of its header does not fit; put back a good copy.")
    _, version, queries, eps, momentum, size, seed, count, identity, scheme, name = _HEADER.unpack_from(raw)
    if version > FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {version}, this edge-zofc reads {FORMAT_VERSION}; update edge-zofc."
        )
    if version == 1:
        scheme, name = scheme + name, b"sgd"
    directions, optimizer = (field.rstrip(b"\0").decode("ascii", "replace") for field in (scheme, name))
    header = Header(
        seed, identity.hex(), count, eps, momentum, queries, directions, cast(Optimizer, optimizer), version == 3
    )
    fault = _header_fault(header)
    if version != header.version or size != header.record_bytes:
        fault = fault or f"version {version} or record size {size} is impossible"
    if fault:
        raise DamagedFileError(f"{path} is damaged: in its header {fault}; put back a good copy.")
    return header


def encode_record(record: Record, header: Header) -> bytes:
    """The bytes of a record that has no fault."""
    # abs: minus zero would leave a sign bit where the format wants zeros.
    values = (abs(record.learning_rate), *(record.coefficients or (0.0,) * header.queries))
    body = struct.pack(f"<IiQ{1 + header.queries}f", record.kind, record.task, record.step, *values)
    return body + _CRC.pack(zlib.crc32(body, header.crc))


def record_fault(record: Record, header: Header) -> str | None:
    """What is wrong with a record by itself."""
    due = header.queries if record.kind is Kind.STEP else 0
    lowest = INITIAL if record.kind is Kind.ROLLBACK else 0
    if len(record.coefficients) != due:
        return f"{len(record.coefficients)} coefficients where {due} are due"
    if not lowest <= record.task < 2**31 or not 0 <= record.step < 2**63:
        return f"task {record.task} or step {record.step} is out of range"
    if record.kind is not Kind.STEP and record.learning_rate != 0:
        return "only a step has a learning rate"
    if record.kind is Kind.REST and not header.rests:
        return "the adapter of this run never rests"
    if not all(map(isfinite, record.coefficients)) or not 0 <= record.learning_rate < float("inf"):
        return f"learning rate {record.learning_rate} or a coefficient is out of range"
    return None


def decode_record(raw: bytes, index: int, header: Header, path: Path) -> Record:
    """Record number ``index`` of the file ``path``. Raises DamagedFileError that names it."""
    if not crc_fits(raw, header.crc):
        raise damaged(path, index, "its CRC-32 does not fit")
    kind, task, step, *floats = struct.unpack_from(f"<IiQ{1 + header.queries}f", raw)
    try:
        kind = Kind(kind)
    except ValueError as error:
        raise damaged(path, index, f"kind {kind} is unknown") from error
    is_step = kind is Kind.STEP
    if not is_step and any(raw[16:-4]):
        raise damaged(path, index, "only a step has a learning rate and coefficients")
    record = Record(kind, task, step, floats[0], tuple(floats[1:]) if is_step else ())
    if fault := record_fault(record, header):
        raise damaged(path, index, fault)
    return record


def damaged(path: Path, index: int, fault: str) -> DamagedFileError:
    """The error that names a record."""
    return DamagedFileError(f"{path} is damaged at record {index} (from 0): {fault}; put back a good copy.")


def crc_fits(raw: bytes, start_crc: int) -> bool:
    """Whether the last four bytes are the CRC-32 of those before, continued from ``start_crc``."""
    return raw[-4:] == _CRC.pack(zlib.crc32(raw[:-4], start_crc))


def _header_fault(header: Header) -> str | None:
    """What is wrong with a header's values."""
    if not 1 <= header.queries < 2**16:
        return f"{header.queries} queries are out of range"
    if not 1 <= header.adapter_size <= 2**40 or not 0 <= header.seed < 2**64:
        return f"adapter size {header.adapter_size} or seed {header.seed} is out of range"
    # Written so that NaN fails.
    if not 0 < header.eps < 4 or not 0 <= header.momentum < 1:
        return f"eps {header.eps} or momentum {header.momentum} is out of range"
    if not re.fullmatch(r"[0-9a-f]{64}", header.bundle_identity):
        return "the bundle identity is no SHA-256"
    if header.directions not in SCHEMES.values():
        return f"the scheme of directions {header.directions!a} is unknown"
    if header.optimizer not in get_args(Optimizer):
        return f"the optimizer {header.optimizer!a} is unknown"
    return None


def _float32(value: float) -> float:
    """The float32 next to ``value``, as a float; what is too large becomes infinite."""
    return ctypes.c_float(value).value
