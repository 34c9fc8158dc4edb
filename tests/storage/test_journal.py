"""journal.py: the format by literal bytes, the order of records, and writing through kills, cuts and full disks."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from hypothesis import given
from journals import (
    HEADER,
    HEADER_LITERAL,
    IDENTITY,
    RESTING,
    SMALL,
    check_any_journal,
    check_power_cuts,
    contents,
    crc,
    journals,
    verdict,
    write_small,
)
from power_cut import RecordingFiles, disks_after_cut

from edge_zofc.algorithm import directions
from edge_zofc.algorithm.directions import SCHEME
from edge_zofc.errors import DamagedFileError, DivergedError, DoesNotFitError, InputError
from edge_zofc.storage.journal import INITIAL, Header, Journal, Kind, Record, read
from edge_zofc.storage.writing import Files

START, STEP, END, BACK, REST = Kind.TASK_START, Kind.STEP, Kind.TASK_END, Kind.ROLLBACK, Kind.REST
STEP_LITERAL = (
    b"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x3f\x00\x00\x80\x3f\x00\x00\x00\xc0"
)


def test_header_and_step_have_the_literal_bytes_of_the_specification(tmp_path):
    raw = write_small(tmp_path / "j").read_bytes()
    assert raw[:104] == HEADER_LITERAL
    assert raw[104:108] == crc(HEADER_LITERAL) == b"\x2a\x53\xb9\x18"
    assert raw[140:168] == STEP_LITERAL
    assert raw[168:172] == crc(STEP_LITERAL, zlib.crc32(HEADER_LITERAL)) == b"\x05\xfc\xba\x10"
    assert raw[108:136] == b"\x02" + bytes(27)
    assert raw[204:232] == b"\x03" + bytes(7) + b"\x02" + bytes(19)
    assert len(raw) == 108 + 4 * 32


def test_ten_thousand_steps_of_four_queries_take_under_half_a_megabyte():
    header = Header(0, IDENTITY, 42265, 1e-3, 0.9, 4)
    assert header.record_bytes == 40
    assert 108 + 10_002 * header.record_bytes < 500_000


def test_the_scheme_is_the_one_of_directions():
    assert SCHEME == directions.SCHEME


def test_what_is_written_is_read(tmp_path):
    path = write_small(tmp_path / "j")
    assert read(path)[0] == HEADER
    assert contents(path) == SMALL


def test_values_are_rounded_to_float32_before_anybody_uses_them():
    record = Record(STEP, 0, 0, 0.1, (0.1, 1e39))
    assert record.learning_rate == float(np.float32(0.1)) != 0.1
    assert record.coefficients == (record.learning_rate, float("inf"))
    assert Header(0, IDENTITY, 1, 0.1, 0.9, 1).momentum == float(np.float32(0.9))


@given(journals())
def test_any_records_come_back_in_one_piece_and_after_a_cut_anywhere(tmp_path_factory, drawn):
    check_any_journal(tmp_path_factory.mktemp("any"), *drawn)


@pytest.mark.parametrize(
    ("before", "record", "why"),
    [
        (0, Record(STEP, 0, 0, 0.5, (1, 1)), "has not started"),
        (0, Record(END, 0, 0), "has not started"),
        (0, Record(START, 1, 0), "task 1 where task 0 is due"),
        (1, Record(START, 0, 0), "has started already"),
        (1, Record(STEP, 1, 0, 0.5, (1, 1)), "task 1 where task 0"),
        (1, Record(STEP, 0, 1, 0.5, (1, 1)), "step 1 where step 0"),
        (2, Record(STEP, 0, 0, 0.5, (1, 1)), "step 0 where step 1"),
        (2, Record(BACK, 0, 0), "no end of task 0"),
        (2, Record(BACK, INITIAL, 1), "step 1 where step 0"),
        (4, Record(START, 0, 2), "task 0 where task 1"),
        (4, Record(BACK, 1, 2), "no end of task 1"),
        (1, Record(STEP, 0, 0, 0.5, (1,)), "1 coefficients where 2"),
        (1, Record(END, 0, 0, 0.0, (1, 1)), "2 coefficients where 0"),
        (1, Record(END, 0, 0, 0.5), "only a step has a learning rate"),
        (1, Record(STEP, 0, 0, -0.5, (1, 1)), "learning rate -0.5"),
        (0, Record(START, -1, 0), "out of range"),
    ],
)
def test_a_record_out_of_order_is_neither_written_nor_read(tmp_path, before, record, why):
    path = write_small(tmp_path / "j", SMALL[:before])
    with Journal.open_for_append(path) as journal, pytest.raises(ValueError, match=why):
        journal.append(record)
    assert contents(path) == SMALL[:before]
    values = (record.learning_rate, *(*record.coefficients, 0.0, 0.0)[:2])
    body = struct.pack("<IiQ3f", record.kind, record.task, record.step, *values)
    forged = path.read_bytes() + body + crc(body, zlib.crc32(path.read_bytes()[:104]))
    if len(record.coefficients) != 1:
        outcome = verdict(path, forged)
        assert isinstance(outcome, DamagedFileError)
        assert f"record {before} (from 0)" in str(outcome)


@pytest.mark.parametrize(
    ("before", "record", "why"),
    [
        (0, Record(REST, 0, 0), "has not started"),
        (4, Record(REST, 0, 2), "task 0 where task 1 is due"),
        (4, Record(REST, 1, 2), "has not started"),
        (2, Record(REST, 0, 0), "step 0 where step 1"),
        (2, Record(REST, 1, 1), "task 1 where task 0"),
        (2, Record(REST, 0, 1, 0.5), "only a step has a learning rate"),
        (2, Record(REST, 0, 1, 0.0, (1, 1)), "2 coefficients where 0"),
        (2, Record(REST, -1, 1), "out of range"),
    ],
)
def test_a_rest_outside_of_the_task_at_work_is_neither_written_nor_read(tmp_path, before, record, why):
    path = write_small(tmp_path / "j", SMALL[:before], RESTING)
    with Journal.open_for_append(path) as journal, pytest.raises(ValueError, match=why):
        journal.append(record)
    assert contents(path) == SMALL[:before]
    values = (record.learning_rate, *(*record.coefficients, 0.0, 0.0)[:2])
    body = struct.pack("<IiQ3f", record.kind, record.task, record.step, *values)
    outcome = verdict(path, path.read_bytes() + body + crc(body, RESTING.crc))
    assert isinstance(outcome, DamagedFileError)
    assert f"record {before} (from 0)" in str(outcome)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_a_step_that_is_not_finite_is_divergence_and_never_written(tmp_path, value):
    path = write_small(tmp_path / "j", SMALL[:1])
    with Journal.open_for_append(path) as journal:
        with pytest.raises(DivergedError, match="not finite"):
            journal.append(Record(STEP, 0, 0, 0.5, (1.0, value)))
        with pytest.raises(DivergedError, match="not finite"):
            journal.append(Record(STEP, 0, 0, value, (1.0, 1.0)))
        journal.append(SMALL[1])
    assert contents(path) == SMALL[:2]


def test_a_journal_is_never_overwritten(tmp_path):
    path = write_small(tmp_path / "j")
    with pytest.raises(InputError, match="there already"):
        Journal.create(path, HEADER)
    assert contents(path) == SMALL


def test_a_header_that_no_run_has_is_a_defect_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="queries"):
        Journal.create(tmp_path / "j", Header(0, IDENTITY, 1, 0.25, 0.5, 0))
    assert not (tmp_path / "j").exists()


def test_opening_drops_what_a_crash_tore_and_what_the_snapshot_does_not_know(tmp_path):
    path = write_small(tmp_path / "j")
    path.write_bytes(path.read_bytes() + b"torn")
    Journal.open_for_append(path).close()
    assert path.stat().st_size == 108 + 4 * 32
    with Journal.open_for_append(path, 2) as journal:
        assert (journal.records, journal.next_step, journal.header) == (2, 1, HEADER)
    assert contents(path) == SMALL[:2]
    with pytest.raises(DamagedFileError, match="holds 2 whole records where 3 were written"):
        Journal.open_for_append(path, 3)


def test_damage_behind_the_snapshot_does_not_matter(tmp_path):
    raw = bytearray(write_small(tmp_path / "j").read_bytes())
    raw[108 + 2 * 32 + 5] ^= 1
    (tmp_path / "j").write_bytes(raw)
    with pytest.raises(DamagedFileError, match="record 2"):
        Journal.open_for_append(tmp_path / "j")
    with Journal.open_for_append(tmp_path / "j", 2) as journal:
        for record in SMALL[2:]:
            journal.append(record)
    assert contents(tmp_path / "j") == SMALL


def test_a_power_cut_anywhere_leaves_every_record_that_was_promised_and_no_garbage(tmp_path):
    assert check_power_cuts(tmp_path, HEADER, SMALL) > 200


APPEND_FOREVER = """
import sys, pathlib
from edge_zofc.storage.journal import Journal, Kind, Record
with Journal.open_for_append(pathlib.Path(sys.argv[1])) as journal:
    if not journal.records:
        journal.append(Record(Kind.TASK_START, 0, 0))
    while True:
        journal.append(Record(Kind.STEP, 0, journal.next_step, 0.5, (journal.next_step, 1)))
        print(journal.records, flush=True)
"""


def test_kill_9_while_appending_loses_nothing_that_was_acknowledged(tmp_path):
    path = write_small(tmp_path / "j", [])
    for delay in (0, 1, 2, 3, 5, 8):
        command = [sys.executable, "-c", APPEND_FOREVER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            acknowledged = int(child.stdout.readline())
            time.sleep(delay / 1000)
            child.kill()
            acknowledged = max([acknowledged, *map(int, child.stdout.read().split("\n")[:-1])])
        found = contents(path)
        assert len(found) in (acknowledged, acknowledged + 1)
        assert found[1:] == [Record(STEP, 0, n, 0.5, (n, 1)) for n in range(len(found) - 1)]


def test_the_model_disk_would_notice_appends_without_fsync(tmp_path):
    files = RecordingFiles(tmp_path, forgetful="fsync")
    with Journal.create(tmp_path / "j", HEADER, files) as journal:
        for record in SMALL:
            journal.append(record)
    last = [disk for done, disk in disks_after_cut(files.log) if done == len(files.log)]
    assert any(not disk["j"] for disk in last)


def test_after_a_full_disk_the_journal_goes_on_from_its_last_record(tmp_path):
    class Full(Files):
        room = 108 + 2 * 32 + 10

        def write(self, handle, data):
            taken = min(len(data), self.room)
            super().write(handle, data[:taken])
            self.room -= taken
            if taken < len(data):
                raise OSError(28, "No space left on device")

    journal = Journal.create(tmp_path / "j", HEADER, Full())
    with pytest.raises(DoesNotFitError, match="run the same command again"):
        for record in SMALL:
            journal.append(record)
    assert journal.records == 2
    with pytest.raises(ValueError, match="closed"):
        journal.append(SMALL[2])
    assert (tmp_path / "j").stat().st_size == 108 + 2 * 32
    with Journal.open_for_append(tmp_path / "j") as journal:
        for record in SMALL[2:]:
            journal.append(record)
    assert contents(tmp_path / "j") == SMALL
