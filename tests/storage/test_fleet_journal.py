"""A fleet's journal: its chain, byte by byte, and the adapter that it comes to."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fleet_steps import fleet_header

from edge_zofc.algorithm.directions import BALANCED
from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.storage import journal
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_journal import FleetJournal, adapter_digest, chain_of, fresh_adapter, replayed, steps_of
from edge_zofc.storage.journal import Header, Kind, Record


def test_the_chain_is_a_hash_of_the_chain_before_and_the_record(small_bundle: Bundle, tmp_path: Path) -> None:
    found = FleetJournal.begin(tmp_path, fleet_header(small_bundle))
    chain = hashlib.sha256(found.raw[:108]).digest()[:8]
    assert chain_of(found.raw) == (0, chain.hex()) == (found.records, found.chain)
    found.append(Record(Kind.TASK_START, 0, 0), Record(Kind.STEP, 0, 0, 1e-3, (0.5, -0.25)))
    for start in (108, 108 + 32):
        chain = hashlib.sha256(chain + found.raw[start : start + 32]).digest()[:8]
    assert chain_of(found.raw) == (2, chain.hex()) == (found.records, found.chain)
    assert (found.steps, found.is_over, found.rests) == (1, False, False)


def test_the_chain_of_known_bytes_is_known() -> None:
    raw = journal.journal_format.encode_header(Header(1, "ab" * 32, 4, 0.001, 0.9, 1, BALANCED, "adam"))
    assert chain_of(raw) == (0, "17081ff531ebde29")
    assert chain_of(raw + bytes(28)) == (1, "7add1f31b62c2f41")


def test_a_piece_of_a_record_and_noise_are_told(small_bundle: Bundle, tmp_path: Path) -> None:
    found = FleetJournal.begin(tmp_path, fleet_header(small_bundle))
    for raw, what in ((found.raw + b"x", "ends within a record"), (b"noise", "is not a journal"), (b"", "no")):
        with pytest.raises(DamagedFileError, match=what):
            chain_of(raw)


def test_it_is_found_again_with_what_it_says(small_bundle: Bundle, tmp_path: Path) -> None:
    assert FleetJournal.find(tmp_path) is None and steps_of(tmp_path) == (0, "rests")
    FleetJournal.begin(tmp_path, fleet_header(small_bundle)).append(
        Record(Kind.TASK_START, 0, 0), Record(Kind.STEP, 0, 0, 1e-3, (0.5, -0.25)), Record(Kind.TASK_END, 0, 1)
    )
    assert steps_of(tmp_path) == (1, "has moved")
    again = FleetJournal.find(tmp_path)
    assert again is not None and (again.records, again.steps, again.is_over, again.rests) == (3, 1, True, False)
    adapter, _ = replayed(small_bundle, tmp_path / "journal.bin")
    assert adapter_digest(adapter.theta) != adapter_digest(small_bundle.initial_adapter())
    assert adapter_digest(adapter.theta) == hashlib.sha256(adapter.theta.tobytes()).hexdigest()


def test_a_torn_record_is_cut_off(small_bundle: Bundle, tmp_path: Path) -> None:
    found = FleetJournal.begin(tmp_path, fleet_header(small_bundle))
    found.append(Record(Kind.TASK_START, 0, 0))
    (tmp_path / "journal.bin").write_bytes(found.raw + bytes(9))
    assert steps_of(tmp_path) == (0, "moves") and (tmp_path / "journal.bin").stat().st_size == len(found.raw) + 9
    again = FleetJournal(tmp_path)
    assert (again.raw, again.records) == (found.raw, 1)


def test_a_rest_leads_back_to_the_start(small_bundle: Bundle, tmp_path: Path) -> None:
    found = FleetJournal.begin(tmp_path, fleet_header(small_bundle))
    found.append(
        Record(Kind.TASK_START, 0, 0), Record(Kind.STEP, 0, 0, 1e-3, (0.5, -0.25)), Record(Kind.REST, 0, 1),
        Record(Kind.TASK_END, 0, 1),
    )  # fmt: skip
    assert found.is_over and found.rests
    assert steps_of(tmp_path) == (1, "rests")
    adapter, _ = replayed(small_bundle, tmp_path / "journal.bin")
    assert adapter.theta.tobytes() == small_bundle.initial_adapter().tobytes()


def test_another_bundle_is_told(small_bundle: Bundle) -> None:
    with pytest.raises(InputError, match="The fleet's journal belongs to another bundle"):
        fresh_adapter(small_bundle, fleet_header(small_bundle, bundle_identity="ef" * 32))
