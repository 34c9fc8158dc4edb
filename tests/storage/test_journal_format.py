"""journal_format.py: version 3 by literal bytes, and which version may hold what. ``test_journal.py`` has version 1."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from edge_zofc.algorithm.adapter import Optimizer
from edge_zofc.algorithm.directions import BALANCED, SCHEME
from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.storage.journal import Header, Journal, Kind, Record, read
from edge_zofc.storage.journal_format import FORMAT_VERSION

IDENTITY = "0123456789abcdef" * 4
BALANCED_ADAM = Header(7, IDENTITY, 3, 0.25, 0.5, 2, BALANCED, "adam")
RECORDS = [Record(Kind.TASK_START, 0, 0), Record(Kind.STEP, 0, 0, 0.5, (1.0, -2.0)), Record(Kind.REST, 0, 1)]

LITERAL = (
    b"EZOFCJNL\x03\x00\x02\x00"
    b"\x00\x00\x80\x3e\x00\x00\x00\x3f\x20\x00\x00\x00"
    b"\x07\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00"
    b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"
    b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"
    b"philox4x64-10/balanced\x00\x00"
    b"adam\x00\x00\x00\x00"
)
REST_LITERAL = b"\x05\x00\x00\x00\x00\x00\x00\x00\x01" + bytes(19)


def write(path: Path, header: Header, records: list[Record] = RECORDS) -> bytes:
    with Journal.create(path, header) as journal:
        for record in records:
            journal.append(record)
    return path.read_bytes()


def sealed(raw: bytes) -> bytes:
    """With every CRC-32 made right."""
    head = raw[:104]
    found, start = head + struct.pack("<I", zlib.crc32(head)), zlib.crc32(head)
    for at in range(108, len(raw), 32):
        body = raw[at : at + 28]
        found += body + struct.pack("<I", zlib.crc32(body, start))
    return found


def test_version_3_has_the_literal_bytes_of_the_specification(tmp_path: Path) -> None:
    raw = write(tmp_path / "j", BALANCED_ADAM)
    assert raw[:104] == LITERAL
    assert raw[104:108] == struct.pack("<I", zlib.crc32(LITERAL))
    assert raw[108 + 2 * 32 :][:28] == REST_LITERAL
    assert raw[-4:] == struct.pack("<I", zlib.crc32(REST_LITERAL, zlib.crc32(LITERAL)))
    assert len(raw) == 108 + 3 * 32
    header, records = read(tmp_path / "j")
    assert (header, list(records)) == (BALANCED_ADAM, RECORDS)
    assert header.rests


@pytest.mark.parametrize(
    ("directions", "optimizer", "rests", "version"),
    [
        (SCHEME, "sgd", False, 1),
        (SCHEME, "adam", False, 2),
        (SCHEME, "sgd", True, 3),
        (SCHEME, "adam", True, 3),
        (BALANCED, "sgd", False, 3),
        (BALANCED, "sign", True, 3),
    ],
)
def test_a_journal_is_written_in_the_oldest_version_that_can_hold_it(
    tmp_path: Path, directions: str, optimizer: Optimizer, rests: bool, version: int
) -> None:
    header = Header(7, IDENTITY, 3, 0.25, 0.5, 2, directions, optimizer, rests)
    raw = write(tmp_path / "j", header, RECORDS[:2])
    assert int.from_bytes(raw[8:10], "little") == header.version == version
    assert read(tmp_path / "j")[0] == header


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_rest_in_a_journal_of_an_earlier_version_is_damage(tmp_path: Path, optimizer: Optimizer) -> None:
    header = Header(7, IDENTITY, 3, 0.25, 0.5, 2, SCHEME, optimizer)
    raw = write(tmp_path / "j", header, RECORDS[:2])
    with Journal.open_for_append(tmp_path / "j") as journal, pytest.raises(ValueError, match="never rests"):
        journal.append(RECORDS[2])
    (tmp_path / "j").write_bytes(sealed(raw + REST_LITERAL + bytes(4)))
    with pytest.raises(DamagedFileError, match=r"record 2 \(from 0\): the adapter of this run never rests"):
        list(read(tmp_path / "j")[1])


@pytest.mark.parametrize("version", [1, 2])
def test_balanced_directions_in_an_earlier_version_are_damage(tmp_path: Path, version: int) -> None:
    raw = bytearray(write(tmp_path / "j", BALANCED_ADAM))
    raw[8] = version
    (tmp_path / "j").write_bytes(sealed(bytes(raw)))
    with pytest.raises(DamagedFileError, match="in its header"):
        read(tmp_path / "j")


def test_a_newer_version_asks_for_an_update(tmp_path: Path) -> None:
    raw = bytearray(write(tmp_path / "j", BALANCED_ADAM))
    raw[8] = FORMAT_VERSION + 1
    (tmp_path / "j").write_bytes(sealed(bytes(raw)))
    with pytest.raises(InputError, match=r"has format version 4, this edge-zofc reads 3; update edge-zofc\.$"):
        read(tmp_path / "j")
