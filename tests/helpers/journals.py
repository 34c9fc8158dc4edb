"""Journals made, read and broken: what the tests of the journal's modules share."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from power_cut import RecordingFiles, disks_after_cut

from edge_zofc.algorithm.adapter import Optimizer
from edge_zofc.algorithm.directions import BALANCED, GRADIENT, SCHEME
from edge_zofc.errors import EdgeZofcError
from edge_zofc.storage.journal import INITIAL, Header, Journal, Kind, Record, read
from edge_zofc.storage.writing import DISK, Files

IDENTITY = "0123456789abcdef" * 4
HEADER = Header(seed=7, bundle_identity=IDENTITY, adapter_size=3, eps=0.25, momentum=0.5, queries=2)
RESTING = Header(7, IDENTITY, 3, 0.25, 0.5, 2, BALANCED, "adam")
DENSE = Header(7, IDENTITY, 3, 0.25, 0.5, 0, GRADIENT, "adam")
"""Its gradients have three entries."""
SMALL = [
    Record(Kind.TASK_START, 0, 0),
    Record(Kind.STEP, 0, 0, 0.5, (1.0, -2.0)),
    Record(Kind.STEP, 0, 1, 0.5, (0.0, 0.25)),
    Record(Kind.TASK_END, 0, 2),
]
HEADER_LITERAL = (
    b"EZOFCJNL\x01\x00\x02\x00"
    b"\x00\x00\x80\x3e\x00\x00\x00\x3f\x20\x00\x00\x00"
    b"\x07\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00"
    b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"
    b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"
    b"philox4x64-10/1" + bytes(17)
)
"""HEADER as ``journal_format.py`` specifies it, without its CRC-32."""
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


class UnsyncedFiles(Files):
    """For long journals, where the disk's pace is not what is tested."""

    def fsync(self, handle: int) -> None:
        pass

    def fsync_folder(self, path: Path) -> None:
        pass


def write_journal(path: Path, header: Header, records: Sequence[Record], files: Files = DISK) -> Path:
    with Journal.create(path, header, files) as journal:
        for record in records:
            journal.append(record)
    return path


def write_small(path: Path, records: Sequence[Record] = SMALL, header: Header = HEADER) -> Path:
    return write_journal(path, header, records)


def dense_step(task: int, step: int, *gradient: float) -> Record:
    return Record(Kind.STEP, task, step, 0.5, gradient=np.array(gradient, np.float32))


def contents(path: Path) -> list[Record]:
    return list(read(path)[1])


def verdict(path: Path, raw: bytes) -> list[Record] | EdgeZofcError:
    """The records of a file with these bytes, or the error it ends in."""
    path.write_bytes(raw)
    try:
        return contents(path)
    except EdgeZofcError as error:
        assert "\n" not in str(error) and str(error).endswith(".")
        return error


def crc(data: bytes, start: int = 0) -> bytes:
    return struct.pack("<I", zlib.crc32(data, start))


def sealed(raw: bytes, size: int) -> bytes:
    """With every CRC-32 made right, of records of ``size`` bytes."""
    found, start = raw[:104] + crc(raw[:104]), zlib.crc32(raw[:104])
    for at in range(108, len(raw), size):
        body = raw[at : at + size - 4]
        found += body + crc(body, start)
    return found


def overwritten(raw: bytes, offset: int, layout: str, value: object, size: int) -> bytes:
    """With one field changed and every CRC-32 made right."""
    changed = bytearray(raw)
    struct.pack_into(layout, changed, offset, value)
    return sealed(bytes(changed), size)


@st.composite
def headers(draw: Any, is_dense: bool) -> Header:
    """Any header; of gradients with one to six entries, or of one to five coefficients."""
    optimizers = [name for name in get_args(Optimizer) if not (is_dense and name == "conserve")]
    return Header(
        draw(st.integers(0, 2**64 - 1)),
        draw(st.binary(min_size=32, max_size=32)).hex(),
        draw(st.integers(1, 6 if is_dense else 2**40)),
        draw(st.floats(2.0**-22, 0.25, width=32)),
        draw(st.floats(0, 0.875, width=32)),
        0 if is_dense else draw(st.integers(1, 5)),
        GRADIENT if is_dense else draw(st.sampled_from([SCHEME, BALANCED])),
        draw(st.sampled_from(optimizers)),
        draw(st.booleans()),
    )


@st.composite
def journals(draw: Any, is_dense: bool = False) -> tuple[Header, list[Record]]:
    """Any header and any sequence of records in a legal order, by walking the rules."""
    header = draw(headers(is_dense))
    within = [Kind.STEP, Kind.STEP, Kind.TASK_END, Kind.ROLLBACK] + [Kind.REST] * header.rests
    values = (
        st.builds(dict, gradient=arrays.arrays(np.float32, header.adapter_size, elements=FLOAT32))
        if is_dense
        else st.builds(dict, coefficients=st.tuples(*[FLOAT32] * header.queries))
    )
    records, step, finished, running, ends = [], 0, INITIAL, False, {INITIAL: 0}
    for _ in range(draw(st.integers(0, 20))):
        kind = draw(st.sampled_from(within if running else [Kind.TASK_START, Kind.TASK_START, Kind.ROLLBACK]))
        if kind is Kind.ROLLBACK:
            finished = draw(st.sampled_from(sorted(ends)))
            step = ends[finished]
            records.append(Record(kind, finished, step))
        elif kind is Kind.STEP:
            rate = draw(st.floats(0, 100, width=32))
            records.append(Record(kind, finished + 1, step, rate, **draw(values)))
            step += 1
        else:
            records.append(Record(kind, finished + 1, step))
        if kind is Kind.TASK_END:
            finished += 1
            ends[finished] = step
        running = kind in (Kind.TASK_START, Kind.STEP, Kind.REST)
    return header, records


def check_any_journal(folder: Path, header: Header, records: list[Record]) -> None:
    """What is written is read, and so is what is appended after a cut anywhere."""
    path = write_journal(folder / "j", header, records, UnsyncedFiles())
    assert read(path)[0] == header
    assert contents(path) == records
    whole = path.read_bytes()
    for keep in {len(records), len(records) // 2, 0}:
        with Journal.open_for_append(path, keep, UnsyncedFiles()) as journal:
            assert journal.records == keep
            for record in records[keep:]:
                journal.append(record)
        assert path.read_bytes() == whole


def check_every_cut(folder: Path, raw: bytes, records: list[Record], size: int) -> None:
    """A file cut off at any byte reads as the records that are whole."""
    for length in range(len(raw)):
        outcome = verdict(folder / "cut", raw[:length])
        if length < 108:
            assert isinstance(outcome, EdgeZofcError)
        else:
            assert outcome == records[: (length - 108) // size]


def check_every_byte(folder: Path, raw: bytes, records: list[Record], size: int) -> None:
    """A CRC-32 notices every error inside 32 neighbouring bits, so no single wrong byte can ever pass."""
    for at in range(len(raw)):
        for change in (0x01, 0x80, 0xFF, 0x55):
            wrong = bytearray(raw)
            wrong[at] ^= change
            outcome = verdict(folder / "wrong", bytes(wrong))
            number = (at - 108) // size
            if number == len(records) - 1:
                assert outcome == records[:-1]
            else:
                assert isinstance(outcome, EdgeZofcError)
                assert ("header" if at < 108 else f"record {number} (from 0)") in str(outcome)


def check_power_cuts(folder: Path, header: Header, records: list[Record]) -> int:
    """A cut anywhere leaves every record that was promised and no garbage; returns how many disks were looked at."""
    files = RecordingFiles(folder / "run")
    (folder / "run").mkdir()
    promised: list[tuple[int, int]] = [(0, -1)]  # from this call on, at least so many records (-1: no journal)
    journal = Journal.create(folder / "run" / "j", header, files)
    promised.append((len(files.log), 0))
    for count, record in enumerate(records, 1):
        journal.append(record)
        promised.append((len(files.log), count))
    journal.close()
    promised.append((len(files.log), 2))
    with Journal.open_for_append(folder / "run" / "j", 2, files) as journal:
        for count, record in enumerate(records[2:], 3):
            journal.append(record)
            promised.append((len(files.log), count))
    seen = 0
    for done, disk in disks_after_cut(files.log):
        least = [count for at, count in promised if at <= done][-1]
        if "j" not in disk:
            assert least == -1
            continue
        outcome = verdict(folder / "cut", disk["j"])
        assert isinstance(outcome, list) and outcome == records[: len(outcome)] and len(outcome) >= least
        seen += 1
    return seen
