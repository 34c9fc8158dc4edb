"""A device's copy of the journal: whatever was lost, doubled or forged, it ends in the fleet's bytes or starts over."""

from __future__ import annotations

import struct
import tempfile
import zlib
from pathlib import Path

import pytest
from fleet_steps import fleet_header
from hypothesis import given
from hypothesis import strategies as st

from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.fleet.exchange import Piece
from edge_zofc.fleet.following import Following
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_journal import FleetJournal, chain_of
from edge_zofc.storage.journal import Kind, Record

STEPS = 6


@pytest.fixture(scope="module")
def raw(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A journal of STEPS steps of 32 bytes each, behind a header of 108 and the start of a task."""
    found = FleetJournal.begin(tmp_path_factory.mktemp("journal"), fleet_header(small_bundle))
    steps = [Record(Kind.STEP, 0, n, 1e-3, (0.5 + n, -0.25)) for n in range(STEPS)]
    found.append(Record(Kind.TASK_START, 0, 0), *steps)
    return found.raw


def piece(whole: bytes, offset: int = 0) -> tuple[Piece, bytes]:
    records, chain = chain_of(whole)
    return Piece(nonce="ab" * 16, offset=offset, records=records, chain=chain), whole[offset:]


def after(raw: bytes, records: int) -> bytes:
    return raw[: 108 + 32 * records]


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 300), st.booleans()), max_size=6))
def test_pieces_in_whatever_order_end_in_the_fleets_bytes(
    small_bundle: Bundle, raw: bytes, sent: list[tuple[int, int, bool]]
) -> None:
    """Each message: how many records the fleet had, from which byte it sends, and whether it comes."""
    with tempfile.TemporaryDirectory() as folder:
        device = Following(Path(folder) / "fleet", small_bundle)
        for records, offset, comes in [*sent, (7, 300, True)]:
            whole = after(raw, records)
            held = device.take(*piece(whole, min(offset, len(whole)))) if comes else None
            if held is not None:
                assert device.take(*piece(whole, held)) is None
        assert device.path.read_bytes() == raw
        assert device.adapter()[0].theta.tobytes() != small_bundle.initial_adapter().tobytes()


def test_a_device_that_lacks_the_middle_says_what_it_has(small_bundle: Bundle, raw: bytes, tmp_path: Path) -> None:
    device = Following(tmp_path / "fleet", small_bundle)
    assert device.take(*piece(after(raw, 2))) is None
    assert device.take(*piece(raw, len(after(raw, 4)))) == len(after(raw, 2))
    assert device.take(*piece(raw, len(after(raw, 2)))) is None
    assert device.path.read_bytes() == raw


def test_a_forged_record_with_a_good_checksum_makes_the_device_start_over(
    small_bundle: Bundle, raw: bytes, tmp_path: Path
) -> None:
    """FLEET section 5: the chain finds what a CRC does not."""
    device = Following(tmp_path / "fleet", small_bundle)
    device.take(*piece(after(raw, 3)))
    body = bytearray(after(raw, 3))
    body[-12:-4] = struct.pack("<2f", 9.0, 9.0)
    body[-4:] = struct.pack("<I", zlib.crc32(bytes(body[-32:-4]), zlib.crc32(bytes(body[:104]))))
    device.path.write_bytes(bytes(body))
    assert device.adapter()[0].theta.tobytes() != small_bundle.initial_adapter().tobytes(), "its checksum is good"
    assert device.take(*piece(raw, len(body))) == 0
    assert not device.path.exists()
    assert device.take(*piece(raw)) is None
    assert device.path.read_bytes() == raw


def test_a_cut_or_damaged_copy_is_made_whole(small_bundle: Bundle, raw: bytes, tmp_path: Path) -> None:
    device = Following(tmp_path / "fleet", small_bundle)
    for left in (b"", raw[:50], raw[:-5], b"noise" * 99, raw + bytes(64)):
        device.path.parent.mkdir(exist_ok=True)
        device.path.write_bytes(left)
        held = device.take(*piece(raw, len(raw)))
        if held is not None:
            assert held <= len(left)
            again = device.take(*piece(raw, held))
            assert again in (None, 0)
            if again == 0:
                assert device.take(*piece(raw)) is None
        assert device.path.read_bytes() == raw


def test_a_fleet_that_begins_anew_is_followed(small_bundle: Bundle, raw: bytes, tmp_path: Path) -> None:
    device = Following(tmp_path / "fleet", small_bundle)
    device.take(*piece(raw))
    (tmp_path / "other").mkdir()
    other = FleetJournal.begin(tmp_path / "other", fleet_header(small_bundle, seed=8)).raw
    assert device.take(*piece(other)) is None
    assert device.path.read_bytes() == other


def test_a_journal_that_does_not_fit_its_chain_or_the_bundle_is_no_fleets(
    small_bundle: Bundle, raw: bytes, tmp_path: Path
) -> None:
    device = Following(tmp_path / "fleet", small_bundle)
    wrong = Piece(nonce="ab" * 16, offset=0, records=7, chain="0" * 16)
    for body in (raw, b"", b"noise", raw[:-1]):
        with pytest.raises(DamagedFileError, match="does not fit its own chain"):
            device.take(wrong, body)
    (tmp_path / "other").mkdir()
    other = FleetJournal.begin(tmp_path / "other", fleet_header(small_bundle, bundle_identity="ef" * 32)).raw
    with pytest.raises(InputError, match="belongs to another bundle"):
        device.take(*piece(other))
    assert not device.path.exists()
