"""journal.py: the format by literal bytes, damage at every byte, power cuts, rollbacks and replay."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journals import (
    IDENTITY,
    UnsyncedFiles,
    check_any_journal,
    check_every_byte,
    check_every_cut,
    check_power_cuts,
    contents,
    crc,
    journals,
    verdict,
    write_journal,
)
from power_cut import RecordingFiles, disks_after_cut

from edge_zofc.algorithm import directions
from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.algorithm.directions import BALANCED, SCHEME
from edge_zofc.errors import DamagedFileError, DivergedError, DoesNotFitError, InputError
from edge_zofc.storage.journal import INITIAL, Header, Journal, Kind, Record, read, replay
from edge_zofc.storage.writing import Files

HEADER = Header(seed=7, bundle_identity=IDENTITY, adapter_size=3, eps=0.25, momentum=0.5, queries=2)

RESTING = Header(7, IDENTITY, 3, 0.25, 0.5, 2, BALANCED, "adam")

START, STEP, END, BACK, REST = Kind.TASK_START, Kind.STEP, Kind.TASK_END, Kind.ROLLBACK, Kind.REST
SMALL = [
    Record(START, 0, 0),
    Record(STEP, 0, 0, 0.5, (1.0, -2.0)),
    Record(STEP, 0, 1, 0.5, (0.0, 0.25)),
    Record(END, 0, 2),
]

HEADER_LITERAL = (
    b"EZOFCJNL\x01\x00\x02\x00"
    b"\x00\x00\x80\x3e\x00\x00\x00\x3f\x20\x00\x00\x00"
    b"\x07\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00"
    b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"
    b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"
    b"philox4x64-10/1" + bytes(17)
)
STEP_LITERAL = (
    b"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x3f\x00\x00\x80\x3f\x00\x00\x00\xc0"
)


def write(path: Path, records=SMALL, header=HEADER) -> Path:
    return write_journal(path, header, records)


def write_fast(path, records, header=HEADER):
    return write_journal(path, header, records, UnsyncedFiles())


# --- the format -----------------------------------------------------------------------------------------


def test_header_and_step_have_the_literal_bytes_of_the_specification(tmp_path):
    raw = write(tmp_path / "j").read_bytes()
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
    path = write(tmp_path / "j")
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


# --- order and rollbacks --------------------------------------------------------------------------------


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
    path = write(tmp_path / "j", SMALL[:before])
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
    path = write(tmp_path / "j", SMALL[:before], RESTING)
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
    path = write(tmp_path / "j", SMALL[:1])
    with Journal.open_for_append(path) as journal:
        with pytest.raises(DivergedError, match="not finite"):
            journal.append(Record(STEP, 0, 0, 0.5, (1.0, value)))
        with pytest.raises(DivergedError, match="not finite"):
            journal.append(Record(STEP, 0, 0, value, (1.0, 1.0)))
        journal.append(SMALL[1])
    assert contents(path) == SMALL[:2]


class Notebook:
    """Writes down what a replay would do: 's<step>:<first coefficient>', 'reset' and 'rest'."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.theta = np.ones(3, np.float32)

    def apply(self, step, coefficients, learning_rate):
        assert coefficients.dtype == np.float32 and type(learning_rate) is float
        self.lines.append(f"s{step}:{coefficients[0]:g}")

        self.theta[:] = 0

    def reset_velocity(self):
        self.lines.append("reset")

    def rest(self, initial):
        assert initial.tolist() == [1, 1, 1]
        self.lines.append("rest")


def steps(task, first, *values):
    return [Record(STEP, task, first + i, 0.5, (value, 0.0)) for i, value in enumerate(values)]


TWO_TASKS = [
    *[Record(START, 0, 0), *steps(0, 0, 1, 2), Record(END, 0, 2)],
    *[Record(START, 1, 2), *steps(1, 2, 3), Record(END, 1, 3)],
]


def replayed(path, **until):
    notebook = Notebook()
    count = replay(path, notebook, **until)
    assert count == len([line for line in notebook.lines if line[:2] != "re"])
    return " ".join(notebook.lines)


def test_replay_applies_the_steps_in_order(tmp_path):
    path = write(tmp_path / "j", TWO_TASKS)
    assert replayed(path) == "reset s0:1 s1:2 reset s2:3"
    assert replayed(path, until_step=1) == "reset s0:1"
    assert replayed(path, until_step=0) == ""
    assert replayed(path, until_task=0) == "reset s0:1 s1:2"
    assert replayed(path, until_task=INITIAL) == ""
    for until, words in (({"until_step": 4}, "holds 3 steps"), ({"until_task": 2}, r"with one are \[0, 1\]")):
        with pytest.raises(InputError, match=words):
            replay(path, Notebook(), **until)
    with pytest.raises(InputError, match="not both"):
        replay(path, Notebook(), until_step=1, until_task=0)
    with pytest.raises(InputError, match="step -1"):
        replay(path, Notebook(), until_step=-1)


def test_after_a_rollback_the_history_is_as_if_it_had_never_gone_further(tmp_path):
    again = [Record(START, 1, 2), *steps(1, 2, 9, 8), Record(END, 1, 4)]
    path = write(tmp_path / "j", [*TWO_TASKS, Record(BACK, 0, 2)])
    assert replayed(path) == "reset s0:1 s1:2"
    assert replayed(path, until_task=1) == "reset s0:1 s1:2 reset s2:3"
    with Journal.open_for_append(path) as journal:
        assert journal.next_step == 2
        for record in again:
            journal.append(record)
    assert replayed(path) == replayed(path, until_task=1) == "reset s0:1 s1:2 reset s2:9 s3:8"
    with Journal.open_for_append(path) as journal:
        journal.append(Record(BACK, INITIAL, 0))
        journal.append(Record(START, 0, 0))
        journal.append(Record(STEP, 0, 0, 0.5, (7, 0)))
    assert replayed(path) == "reset s0:7"
    assert replayed(path, until_task=1) == "reset s0:1 s1:2 reset s2:9 s3:8"


def test_a_later_rollback_may_go_forward_again(tmp_path):
    path = write(tmp_path / "j", [*TWO_TASKS, Record(BACK, 0, 2), Record(BACK, 1, 3)])
    assert replayed(path) == "reset s0:1 s1:2 reset s2:3"


def test_a_thousand_rollbacks_are_no_burden(tmp_path):
    records = [Record(START, 0, 0), *steps(0, 0, 1), Record(END, 0, 1)]
    for value in range(1000):
        records += [Record(START, 1, 1), *steps(1, 1, value), Record(END, 1, 2), Record(BACK, 0, 1)]
    path = write_fast(tmp_path / "j", records)
    assert replayed(path) == "reset s0:1"
    assert replayed(path, until_task=1) == "reset s0:1 reset s1:999"


def test_a_rest_is_replayed_where_it_stands_and_undone_with_its_task(tmp_path):
    one, two = [Record(START, 0, 0), *steps(0, 0, 1, 2)], [Record(END, 0, 2), Record(START, 1, 2), *steps(1, 2, 3)]
    path = write(tmp_path / "j", [*one, Record(REST, 0, 2), *two, Record(REST, 1, 3), Record(END, 1, 3)], RESTING)
    assert replayed(path) == "reset s0:1 s1:2 rest reset s2:3 rest"
    assert replayed(path, until_task=0) == "reset s0:1 s1:2 rest"
    assert replayed(path, until_step=2) == "reset s0:1 s1:2"
    assert replayed(path, until_step=3) == "reset s0:1 s1:2 rest reset s2:3"
    with Journal.open_for_append(path) as journal:
        for record in (Record(BACK, 0, 2), Record(START, 1, 2), *steps(1, 2, 9)):
            journal.append(record)
    assert replayed(path) == "reset s0:1 s1:2 rest reset s2:9"
    assert replayed(path, until_task=1) == "reset s0:1 s1:2 rest reset s2:3 rest"


def test_replay_gives_the_bits_of_the_run_that_wrote_it(tmp_path):
    header = Header(11, IDENTITY, 301, 2.0**-10, 0.9, 4)
    numbers = np.random.Generator(np.random.Philox(5))
    initial = np.rint(numbers.uniform(-1, 1, 301) * 2**22).astype(np.float32) / np.float32(2**22)

    def fresh():
        return Adapter(initial, header.seed, header.eps, header.momentum)

    run, ends = fresh(), []
    with Journal.create(tmp_path / "j", header) as journal:
        for task in range(3):
            run.reset_velocity()
            journal.append(Record(START, task, journal.next_step))
            for _ in range(10):
                values = tuple(numbers.normal(0, 1, 4).tolist())
                record = Record(STEP, task, journal.next_step, 0.01, values)
                run.apply(record.step, np.array(record.coefficients, np.float32), record.learning_rate)
                journal.append(record)
            journal.append(Record(END, task, journal.next_step))
            ends.append(run.theta.tobytes())
        journal.append(Record(BACK, 0, 10))
    for until, expected in (({"until_task": 1}, ends[1]), ({"until_task": 2}, ends[2]), ({}, ends[0])):
        again = fresh()
        replay(tmp_path / "j", again, **until)
        assert again.theta.tobytes() == expected


def test_ten_thousand_steps_are_read_in_two_seconds_and_in_bounded_memory(tmp_path):
    header = Header(0, IDENTITY, 1, 0.25, 0.5, 4)
    records = [Record(START, 0, 0), *(Record(STEP, 0, n, 0.5, (1, 2, 3, n)) for n in range(10_000))]
    path = write_fast(tmp_path / "j", records, header)
    assert path.stat().st_size == 108 + 10_001 * 40 < 500_000
    start = time.process_time()
    assert sum(1 for _ in read(path)[1]) == 10_001
    assert time.process_time() - start < 2
    tracemalloc.start()
    assert sum(1 for _ in read(path)[1]) == 10_001
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2 << 20


# --- damage ---------------------------------------------------------------------------------------------


def test_cut_off_at_any_byte_it_reads_as_the_records_that_are_whole(tmp_path):
    check_every_cut(tmp_path, write(tmp_path / "j").read_bytes(), SMALL, 32)


def test_any_wrong_byte_is_damage_that_names_its_record_or_drops_a_torn_last_one(tmp_path):
    check_every_byte(tmp_path, write(tmp_path / "j").read_bytes(), SMALL, 32)


def test_a_wrong_byte_before_a_torn_piece_is_damage_because_that_record_was_synced(tmp_path):
    raw = bytearray(write(tmp_path / "j").read_bytes())
    raw[-1] ^= 1
    outcome = verdict(tmp_path / "wrong", bytes(raw) + b"x")
    assert isinstance(outcome, DamagedFileError) and "record 3 (from 0)" in str(outcome)


def test_a_record_of_another_run_does_not_pass(tmp_path):
    one = write(tmp_path / "one").read_bytes()
    other = Header(8, IDENTITY, 3, 0.25, 0.5, 2)
    two = write(tmp_path / "two", header=other).read_bytes()
    assert isinstance(verdict(tmp_path / "mixed", two[:108] + one[108:]), DamagedFileError)
    assert verdict(tmp_path / "mixed", two[:-32] + one[-32:]) == SMALL[:-1]


@pytest.mark.parametrize("order", [(0, 1, 1, 2, 3), (0, 2, 1, 3), (0, 2, 3), (1, 2, 3), (0, 1, 2, 3, 3)])
def test_records_doubled_missing_or_swapped_are_damage(tmp_path, order):
    raw = write(tmp_path / "j").read_bytes()
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
    raw = bytearray(write(tmp_path / "j").read_bytes())
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
    raw = bytearray(write(tmp_path / "j").read_bytes())
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
    (tmp_path / "link").symlink_to(write(tmp_path / "j"))
    for name in ("pipe", "link", "."):
        with pytest.raises(DamagedFileError, match="not a plain file"):
            read(tmp_path / name)
    with pytest.raises(InputError, match="could not be read"):
        read(tmp_path / "missing")


# --- writing --------------------------------------------------------------------------------------------


def test_a_journal_is_never_overwritten(tmp_path):
    path = write(tmp_path / "j")
    with pytest.raises(InputError, match="there already"):
        Journal.create(path, HEADER)
    assert contents(path) == SMALL


def test_a_header_that_no_run_has_is_a_defect_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="queries"):
        Journal.create(tmp_path / "j", Header(0, IDENTITY, 1, 0.25, 0.5, 0))
    assert not (tmp_path / "j").exists()


def test_opening_drops_what_a_crash_tore_and_what_the_snapshot_does_not_know(tmp_path):
    path = write(tmp_path / "j")
    path.write_bytes(path.read_bytes() + b"torn")
    Journal.open_for_append(path).close()
    assert path.stat().st_size == 108 + 4 * 32
    with Journal.open_for_append(path, 2) as journal:
        assert (journal.records, journal.next_step, journal.header) == (2, 1, HEADER)
    assert contents(path) == SMALL[:2]
    with pytest.raises(DamagedFileError, match="holds 2 whole records where 3 were written"):
        Journal.open_for_append(path, 3)


def test_damage_behind_the_snapshot_does_not_matter(tmp_path):
    raw = bytearray(write(tmp_path / "j").read_bytes())
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
    path = write(tmp_path / "j", [])
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
