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

Version 3 is that of a run with another scheme of directions, or whose adapter may go back to its start: none before
has records of kind 5. Its header is laid out as version 2's, whatever the optimizer.

Version 4 holds gradients in place of coefficients. Its header is version 3's with the scheme "gradient/1", Q = 0 and
the record size 24 + 4 P. "conserve" is not among its optimizers, and P is at most 2^24. Its records, of all five kinds:

    offset size   record
         0   20   as in version 1
        20  4 P   gradient as applied (after clipping), float32, none infinite or NaN; zeros in all but steps
  20 + 4 P    4   CRC-32, as in version 1

The CRC of a record depends on the header, so that old disk blocks of another run's journal do not pass for records of
this one. A CRC-32 notices every error within 32 neighbouring bits, and so every single wrong byte.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast, get_args

import numpy as np

from edge_zofc.algorithm.adapter import Optimizer, check_takes_gradient
from edge_zofc.algorithm.directions import GRADIENT, SCHEME, SCHEMES
from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.storage.journal_record import INITIAL, Kind, Record, rounded

FORMAT_VERSION = 4
"""The newest version that is read and written; a journal is written in the oldest that can hold it."""
MAGIC = b"EZOFCJNL"
HEADER_BYTES = 108
MOST_GRADIENT = 1 << 24
"""Entries of a gradient that a record may hold: 64 MiB, so that no file makes its reader take more."""

_HEADER = struct.Struct("<8sHHffIQQ32s24s8s")
_RECORD = struct.Struct("<IiQf")
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class Header:
    """What every step of the run shares. ``eps`` and ``momentum`` are rounded to float32 on construction.

    ``rests``: whether there may be records of kind REST; always so with other directions than SCHEME.
    With the directions GRADIENT each step has a gradient, and ``queries`` is 0.
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
        object.__setattr__(self, "eps", rounded(self.eps))
        object.__setattr__(self, "momentum", rounded(self.momentum))

    @property
    def version(self) -> int:
        """The format version that it is written in."""
        return 4 if self.is_dense else 3 if self.rests else 1 if self.optimizer == "sgd" else 2

    @property
    def is_dense(self) -> bool:
        """Whether a step's record holds a gradient, float32 [P], and no coefficients."""
        return self.directions == GRADIENT

    @property
    def record_bytes(self) -> int:
        """Size of one record: 40 bytes at Q = 4, so 10,000 steps take 0.4 MB."""
        return record_bytes(self.queries, self.adapter_size, self.is_dense)

    @cached_property
    def crc(self) -> int:
        """CRC-32 of the header's bytes, which the CRC-32 of each record continues."""
        return zlib.crc32(_header_body(self))


def record_bytes(queries: int, adapter_size: int = 0, is_dense: bool = False) -> int:
    """Bytes of one record with Q = ``queries``, or with a gradient of P = ``adapter_size`` where it ``is_dense``."""
    return 24 + 4 * (adapter_size if is_dense else queries)


def encode_header(header: Header) -> bytes:
    """The first HEADER_BYTES of a journal. Raises ValueError for values that no run has, InputError for gradients
    with "conserve" or of more than MOST_GRADIENT entries.
    """
    if header.is_dense:
        check_takes_gradient(header.optimizer)
        if header.adapter_size > MOST_GRADIENT:
            raise InputError(
                f"The adapter has {header.adapter_size} parameters, and a journal holds gradients of at most "
                f"{MOST_GRADIENT}; export a smaller adapter or estimate its gradient by queries."
            )
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
    if record.kind is not Kind.STEP:
        values = bytes(header.record_bytes - _RECORD.size - _CRC.size)
    elif record.gradient is not None:
        values = record.gradient.astype("<f4", copy=False).tobytes()
    else:
        values = struct.pack(f"<{header.queries}f", *record.coefficients)
    # abs: minus zero would leave a sign bit where the format wants zeros.
    body = _RECORD.pack(record.kind, record.task, record.step, abs(record.learning_rate)) + values
    return body + _CRC.pack(zlib.crc32(body, header.crc))


def record_fault(record: Record, header: Header) -> str | None:
    """What is wrong with a record by itself."""
    due = header.queries if record.kind is Kind.STEP else 0
    shape = (header.adapter_size,) if header.is_dense and record.kind is Kind.STEP else None
    found = None if record.gradient is None else record.gradient.shape
    lowest = INITIAL if record.kind is Kind.ROLLBACK else 0
    if len(record.coefficients) != due:
        return f"{len(record.coefficients)} coefficients where {due} are due"
    if found != shape:
        return f"a gradient of shape {found} where {shape} is due"
    if not lowest <= record.task < 2**31 or not 0 <= record.step < 2**63:
        return f"task {record.task} or step {record.step} is out of range"
    if record.kind is not Kind.STEP and record.learning_rate != 0:
        return "only a step has a learning rate"
    if record.kind is Kind.REST and not header.rests:
        return "the adapter of this run never rests"
    if record.not_finite is not None or record.learning_rate < 0:
        return f"learning rate {record.learning_rate} or a value of its estimate is out of range"
    return None


def decode_record(raw: bytes, index: int, header: Header, path: Path) -> Record:
    """Record number ``index`` of the file ``path``. Raises DamagedFileError that names it."""
    if not crc_fits(raw, header.crc):
        raise damaged(path, index, "its CRC-32 does not fit")
    kind, task, step, rate = _RECORD.unpack_from(raw)
    try:
        kind = Kind(kind)
    except ValueError as error:
        raise damaged(path, index, f"kind {kind} is unknown") from error
    if kind is not Kind.STEP:
        if raw[16:-4].strip(b"\0"):
            raise damaged(path, index, "only a step has a learning rate and what stands behind it")
        record = Record(kind, task, step)
    else:
        # A view of the record's own bytes, which never change.
        values = np.frombuffer(raw, "<f4", (len(raw) - _RECORD.size - _CRC.size) // 4, _RECORD.size)
        if header.is_dense:
            record = Record(kind, task, step, rate, gradient=values)
        else:
            record = Record(kind, task, step, rate, tuple(values.tolist()))
    if fault := record_fault(record, header):
        raise damaged(path, index, fault)
    return record


def damaged(path: Path, index: int, fault: str) -> DamagedFileError:
    """The error that names a record."""
    return DamagedFileError(f"{path} is damaged at record {index} (from 0): {fault}; put back a good copy.")


def crc_fits(raw: bytes, start_crc: int) -> bool:
    """Whether the last four bytes are the CRC-32 of those before, continued from ``start_crc``."""
    return raw[-4:] == _CRC.pack(zlib.crc32(memoryview(raw)[:-4], start_crc))


def _header_fault(header: Header) -> str | None:
    """What is wrong with a header's values."""
    if header.queries != 0 if header.is_dense else not 1 <= header.queries < 2**16:
        return f"{header.queries} queries are out of range"
    if not 1 <= header.adapter_size <= (MOST_GRADIENT if header.is_dense else 2**40) or not 0 <= header.seed < 2**64:
        return f"adapter size {header.adapter_size} or seed {header.seed} is out of range"
    # Written so that NaN fails.
    if not 0 < header.eps < 4 or not 0 <= header.momentum < 1:
        return f"eps {header.eps} or momentum {header.momentum} is out of range"
    if not re.fullmatch(r"[0-9a-f]{64}", header.bundle_identity):
        return "the bundle identity is no SHA-256"
    if header.directions not in (*SCHEMES.values(), GRADIENT):
        return f"the scheme of directions {header.directions!a} is unknown"
    if header.optimizer not in get_args(Optimizer):
        return f"the optimizer {header.optimizer!a} is unknown"
    if header.is_dense and header.optimizer == "conserve":
        return "an optimizer that takes no gradient is named"
    return None
