"""journal.py: files that are cut off, changed, mixed or made up."""

from __future__ import annotations

import os
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journals import HEADER_LITERAL, IDENTITY, SMALL, check_every_byte, check_every_cut, crc, verdict, write_small

from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.storage.journal import Header, read


def test_cut_off_at_any_byte_it_reads_as_the_records_that_are_whole(tmp_path):
    check_every_cut(tmp_path, write_small(tmp_path / "j").read_bytes(), SMALL, 32)


def test_any_wrong_byte_is_damage_that_names_its_record_or_drops_a_torn_last_one(tmp_path):
    check_every_byte(tmp_path, write_small(tmp_path / "j").read_bytes(), SMALL, 32)


def test_a_wrong_byte_before_a_torn_piece_is_damage_because_that_record_was_synced(tmp_path):
    raw = bytearray(write_small(tmp_path / "j").read_bytes())
    raw[-1] ^= 1
    outcome = verdict(tmp_path / "wrong", bytes(raw) + b"x")
    assert isinstance(outcome, DamagedFileError) and "record 3 (from 0)" in str(outcome)


def test_a_record_of_another_run_does_not_pass(tmp_path):
    one = write_small(tmp_path / "one").read_bytes()
    other = Header(8, IDENTITY, 3, 0.25, 0.5, 2)
    two = write_small(tmp_path / "two", header=other).read_bytes()
    assert isinstance(verdict(tmp_path / "mixed", two[:108] + one[108:]), DamagedFileError)
    assert verdict(tmp_path / "mixed", two[:-32] + one[-32:]) == SMALL[:-1]


@pytest.mark.parametrize("order", [(0, 1, 1, 2, 3), (0, 2, 1, 3), (0, 2, 3), (1, 2, 3), (0, 1, 2, 3, 3)])
def test_records_doubled_missing_or_swapped_are_damage(tmp_path, order):
    raw = write_small(tmp_path / "j").read_bytes()
    pieces = [raw[108 + 32 * number :][:32] for number in order]
    assert isinstance(verdict(tmp_path / "x", raw[:108] + b"".join(pieces)), DamagedFileError)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("offset", "layout", "value", "error"),
    [
        (8, "<H", 0, DamagedFileError),
        (8, "<H", 4, DamagedFileError),
        (8, "<H", 5, InputError),
        (8, "<H", 2, DamagedFileError),
        (8, "<H", 3, DamagedFileError),
        (8, "<H", 65535, InputError),
        (10, "<H", 0, DamagedFileError),
        (10, "<H", 65535, DamagedFileError),
        *[(12, "<f", value, DamagedFileError) for value in (NAN, INF, -INF, 0.0, -0.25, 4.0, 3e38)],
        *[(16, "<f", value, DamagedFileError) for value in (NAN, INF, -0.5, 1.0)],
        *[(20, "<I", value, DamagedFileError) for value in (0, 31, 33, 2**32 - 1)],
        *[(32, "<Q", value, DamagedFileError) for value in (0, 2**40 + 1, 2**64 - 1)],
        *[(72, "<32s", value, DamagedFileError) for value in (b"", b"\xff" * 32, b"philox4x64-10/1\0x")],
        (0, "<8s", b"EZOFCJNX", DamagedFileError),
    ],
)
def test_impossible_header_fields_are_refused_even_with_a_right_crc(tmp_path, offset, layout, value, error):
    raw = bytearray(write_small(tmp_path / "j").read_bytes())
    struct.pack_into(layout, raw, offset, value)
    raw[104:108] = crc(raw[:104])
    outcome = verdict(tmp_path / "x", bytes(raw))
    assert type(outcome) is error


@pytest.mark.parametrize(
    ("layout", "offset", "value"),
    [
        *[("<I", 0, value) for value in (0, 5, 2**32 - 1)],
        *[("<i", 4, value) for value in (-1, 1, 2**31 - 1, -(2**31))],
        *[("<Q", 8, value) for value in (1, 2**63, 2**64 - 1)],
        *[("<f", 16, value) for value in (NAN, INF, -1.0)],
        *[("<f", 24, value) for value in (NAN, INF, -INF)],
    ],
)
def test_impossible_record_fields_are_refused_even_with_a_right_crc(tmp_path, layout, offset, value):
    raw = bytearray(write_small(tmp_path / "j").read_bytes())
    struct.pack_into(layout, raw, 140 + offset, value)
    raw[168:172] = crc(raw[140:168], zlib.crc32(raw[:104]))
    outcome = verdict(tmp_path / "x", bytes(raw))
    assert isinstance(outcome, DamagedFileError) and "record 1 (from 0)" in str(outcome)


@given(st.binary(max_size=300))
def test_random_bytes_are_never_a_journal(tmp_path_factory, noise):
    folder = tmp_path_factory.mktemp("noise")
    assert isinstance(verdict(folder / "a", noise), DamagedFileError)
    outcome = verdict(folder / "b", HEADER_LITERAL + crc(HEADER_LITERAL) + noise)
    assert outcome == [] if len(noise) <= 32 else isinstance(outcome, DamagedFileError)


def test_what_is_not_a_plain_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(write_small(tmp_path / "j"))
    for name in ("pipe", "link", "."):
        with pytest.raises(DamagedFileError, match="not a plain file"):
            read(tmp_path / name)
    with pytest.raises(InputError, match="could not be read"):
        read(tmp_path / "missing")
