"""journal_format.py: versions 3 and 4 by literal bytes, which may hold what. ``test_journal.py`` has version 1."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from journals import DENSE, IDENTITY, dense_step, overwritten, sealed, write_journal

from edge_zofc.algorithm.adapter import Optimizer
from edge_zofc.algorithm.directions import BALANCED, GRADIENT, SCHEME
from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.storage.journal import Header, Journal, Kind, Record, read
from edge_zofc.storage.journal_format import FORMAT_VERSION, MOST_GRADIENT, record_bytes

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
    return write_journal(path, header, records).read_bytes()


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
    (tmp_path / "j").write_bytes(sealed(raw + REST_LITERAL + bytes(4), 32))
    with pytest.raises(DamagedFileError, match=r"record 2 \(from 0\): the adapter of this run never rests"):
        list(read(tmp_path / "j")[1])


@pytest.mark.parametrize("version", [1, 2])
def test_balanced_directions_in_an_earlier_version_are_damage(tmp_path: Path, version: int) -> None:
    raw = bytearray(write(tmp_path / "j", BALANCED_ADAM))
    raw[8] = version
    (tmp_path / "j").write_bytes(sealed(bytes(raw), 32))
    with pytest.raises(DamagedFileError, match="in its header"):
        read(tmp_path / "j")


def test_a_newer_version_asks_for_an_update(tmp_path: Path) -> None:
    raw = bytearray(write(tmp_path / "j", BALANCED_ADAM))
    raw[8] = FORMAT_VERSION + 1
    (tmp_path / "j").write_bytes(sealed(bytes(raw), 32))
    with pytest.raises(InputError, match=r"has format version 5, this edge-zofc reads 4; update edge-zofc\.$"):
        read(tmp_path / "j")


DENSE_LITERAL = (
    b"EZOFCJNL\x04\x00\x00\x00"
    b"\x00\x00\x80\x3e\x00\x00\x00\x3f\x24\x00\x00\x00"
    b"\x07\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00"
    b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"
    b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"
    b"gradient/1\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    b"adam\x00\x00\x00\x00"
)
DENSE_STEP_LITERAL = (
    b"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x3f"
    b"\x00\x00\x80\x3f\x00\x00\x00\xc0\x00\x00\x00\x80"
)


def test_version_4_has_the_literal_bytes_of_the_specification(tmp_path: Path) -> None:
    records = [Record(Kind.TASK_START, 0, 0), dense_step(0, 0, 1.0, -2.0, -0.0), Record(Kind.REST, 0, 1)]
    raw = write(tmp_path / "j", DENSE, records)
    assert raw[:104] == DENSE_LITERAL
    assert raw[104:108] == struct.pack("<I", zlib.crc32(DENSE_LITERAL))
    assert raw[108:140] == b"\x02" + bytes(31)
    assert raw[144:176] == DENSE_STEP_LITERAL
    assert raw[176:180] == struct.pack("<I", zlib.crc32(DENSE_STEP_LITERAL, zlib.crc32(DENSE_LITERAL)))
    assert raw[180:212] == REST_LITERAL + bytes(4)
    assert len(raw) == 108 + 3 * 36
    header, found = read(tmp_path / "j")
    assert (header, list(found)) == (DENSE, records)
    assert (header.version, header.is_dense, header.rests) == (4, True, True)


def test_a_record_takes_24_bytes_and_four_a_number() -> None:
    assert record_bytes(8) == record_bytes(8, 1000) == 56
    assert (
        record_bytes(0, 1000, is_dense=True) == Header(7, IDENTITY, 1000, 0.25, 0.5, 0, GRADIENT).record_bytes == 4024
    )


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [
        *[(8, "<H", version) for version in (1, 2, 3)],
        (10, "<H", 1),
        *[(20, "<I", size) for size in (24, 32, 40)],
        *[(32, "<Q", count) for count in (0, 2, 2**62 + 3, 2**64 - 1)],
        *[(72, "<24s", scheme) for scheme in (SCHEME.encode(), BALANCED.encode(), b"gradient/2")],
        *[(96, "<8s", optimizer) for optimizer in (b"conserve", b"", b"lion")],
    ],
)
def test_impossible_fields_of_a_dense_header_are_damage(
    tmp_path: Path, offset: int, layout: str, value: object
) -> None:
    raw = overwritten(write(tmp_path / "j", DENSE, RECORDS[:1]), offset, layout, value, 36)
    (tmp_path / "j").write_bytes(raw)
    with pytest.raises(DamagedFileError, match="in its header"):
        read(tmp_path / "j")


def test_a_header_of_gradients_too_large_to_be_read_is_damage(tmp_path: Path) -> None:
    raw = bytearray(write(tmp_path / "j", DENSE, []))
    for count, is_read in ((MOST_GRADIENT, True), (MOST_GRADIENT + 1, False)):
        struct.pack_into("<I", raw, 20, 24 + 4 * count)
        (tmp_path / "j").write_bytes(overwritten(bytes(raw), 32, "<Q", count, 36))
        if is_read:
            assert read(tmp_path / "j")[0].adapter_size == count
        else:
            with pytest.raises(DamagedFileError, match=r"in its header adapter size 16777217 .* out of range"):
                read(tmp_path / "j")


def test_a_run_that_cannot_journal_gradients_is_told_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^The optimizer 'conserve' .*; give sgd, sign or adam\.$"):
        Journal.create(tmp_path / "j", Header(7, IDENTITY, 3, 0.25, 0.5, 0, GRADIENT, "conserve"))
    with pytest.raises(InputError, match=r"16777217 parameters, .* at most 16777216; export a smaller"):
        Journal.create(tmp_path / "j", Header(7, IDENTITY, MOST_GRADIENT + 1, 0.25, 0.5, 0, GRADIENT))
    with pytest.raises(ValueError, match="4 queries"):
        Journal.create(tmp_path / "j", Header(7, IDENTITY, 3, 0.25, 0.5, 4, GRADIENT))
    assert not (tmp_path / "j").exists()
