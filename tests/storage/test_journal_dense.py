"""journal.py with gradients in its records: damage at every byte, order, memory, and replay to the same bits."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from journals import (
    DENSE,
    IDENTITY,
    UnsyncedFiles,
    check_any_journal,
    check_every_byte,
    check_every_cut,
    check_power_cuts,
    contents,
    dense_step,
    journals,
    overwritten,
    verdict,
    write_journal,
)

from edge_zofc.algorithm.adapter import Adapter, Optimizer
from edge_zofc.algorithm.directions import BALANCED, GRADIENT
from edge_zofc.errors import DamagedFileError, DivergedError
from edge_zofc.storage.journal import INITIAL, Header, Journal, Kind, Record, read, replay

START, STEP, END, BACK, REST = Kind.TASK_START, Kind.STEP, Kind.TASK_END, Kind.ROLLBACK, Kind.REST
SIZE = 36
SMALL = [
    Record(START, 0, 0),
    dense_step(0, 0, 1.0, -2.0, -0.0),
    Record(REST, 0, 1),
    dense_step(0, 1, 0.0, 0.25, 3.0),
    Record(END, 0, 2),
]


@given(journals(is_dense=True))
def test_any_gradients_come_back_in_one_piece_and_after_a_cut_anywhere(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[Header, list[Record]]
) -> None:
    check_any_journal(tmp_path_factory.mktemp("any"), *drawn)


def test_gradients_are_read_to_the_same_bits_and_cannot_be_written_to(tmp_path: Path) -> None:
    found = contents(write_journal(tmp_path / "j", DENSE, SMALL))
    for record, wanted in zip(found, SMALL, strict=True):
        if wanted.gradient is None:
            assert record.gradient is None
        else:
            assert record.gradient is not None and record.gradient.dtype == np.float32
            assert record.gradient.tobytes() == wanted.gradient.tobytes()
            assert not record.gradient.flags.writeable


# --- damage ---------------------------------------------------------------------------------------------


def test_cut_off_at_any_byte_it_reads_as_the_records_that_are_whole(tmp_path: Path) -> None:
    check_every_cut(tmp_path, write_journal(tmp_path / "j", DENSE, SMALL).read_bytes(), SMALL, SIZE)


def test_any_wrong_byte_is_damage_that_names_its_record_or_drops_a_torn_last_one(tmp_path: Path) -> None:
    check_every_byte(tmp_path, write_journal(tmp_path / "j", DENSE, SMALL).read_bytes(), SMALL, SIZE)


def test_a_power_cut_anywhere_leaves_every_record_that_was_promised_and_no_garbage(tmp_path: Path) -> None:
    """Of records that lie on two pages of a disk."""
    header = Header(7, IDENTITY, 1500, 0.25, 0.5, 0, GRADIENT, "adam")
    gradients = [np.full(1500, value, np.float32) for value in (0.5, -1.0)]
    steps = [Record(STEP, 0, number, 0.5, gradient=gradient) for number, gradient in enumerate(gradients)]
    assert check_power_cuts(tmp_path, header, [SMALL[0], *steps, SMALL[-1]]) > 400


@pytest.mark.parametrize(
    ("number", "offset", "layout", "value"),
    [
        *[(1, offset, "<f", value) for offset in (20, 24, 28) for value in (float("nan"), float("inf"), -float("inf"))],
        *[(1, 16, "<f", value) for value in (float("nan"), float("inf"), -1.0)],
        *[(0, offset, "<B", 1) for offset in (16, 19, 20, 31)],
        *[(2, offset, "<B", 0x80) for offset in (16, 19, 20, 31)],
        *[(1, 0, "<I", kind) for kind in (0, 2, 3, 5, 6)],
    ],
)
def test_impossible_fields_of_a_record_are_refused_even_with_a_right_crc(
    tmp_path: Path, number: int, offset: int, layout: str, value: float
) -> None:
    raw = write_journal(tmp_path / "j", DENSE, SMALL).read_bytes()
    outcome = verdict(tmp_path / "x", overwritten(raw, 108 + SIZE * number + offset, layout, value, SIZE))
    assert isinstance(outcome, DamagedFileError) and f"record {number} (from 0)" in str(outcome)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_a_gradient_that_is_not_finite_is_divergence_and_never_written(tmp_path: Path, value: float) -> None:
    path = write_journal(tmp_path / "j", DENSE, SMALL[:1])
    with Journal.open_for_append(path) as journal:
        with pytest.raises(
            DivergedError, match=r"^Step 0 has .* gradient of .* not finite; lower the learning rate\.$"
        ):
            journal.append(Record(STEP, 0, 0, 0.5, gradient=np.array([1.0, value, 1.0])))
        with pytest.raises(DivergedError, match="not finite"):
            journal.append(Record(STEP, 0, 0, value, gradient=np.ones(3)))
        journal.append(SMALL[1])
    assert contents(path) == SMALL[:2]


ONES = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (Record(STEP, 0, 0, 0.5), r"shape None where \(3,\) is due"),
        (Record(STEP, 0, 0, 0.5, gradient=ONES[:2]), r"shape \(2,\) where \(3,\)"),
        (Record(STEP, 0, 0, 0.5, gradient=ONES[None]), r"shape \(1, 3\) where \(3,\)"),
        (Record(STEP, 0, 0, 0.5, (1.0,), ONES), "1 coefficients where 0 are due"),
        (Record(END, 0, 0, gradient=ONES), r"shape \(3,\) where None"),
        (Record(STEP, 0, 1, 0.5, gradient=ONES), "step 1 where step 0 is due"),
        (Record(STEP, 0, 0, -0.5, gradient=ONES), "learning rate -0.5"),
    ],
)
def test_a_record_that_does_not_fit_is_never_written(tmp_path: Path, record: Record, why: str) -> None:
    path = write_journal(tmp_path / "j", DENSE, SMALL[:1])
    with Journal.open_for_append(path) as journal, pytest.raises(ValueError, match=why):
        journal.append(record)
    assert contents(path) == SMALL[:1]


@pytest.mark.parametrize("directions", ["philox4x64-10/1", BALANCED])
def test_a_journal_of_coefficients_takes_no_gradient(tmp_path: Path, directions: str) -> None:
    path = write_journal(tmp_path / "j", Header(7, IDENTITY, 3, 0.25, 0.5, 3, directions), SMALL[:1])
    with Journal.open_for_append(path) as journal:
        with pytest.raises(ValueError, match="0 coefficients where 3 are due"):
            journal.append(SMALL[1])
        with pytest.raises(ValueError, match=r"shape \(3,\) where None is due"):
            journal.append(Record(STEP, 0, 0, 0.5, (1.0, 2.0, 3.0), ONES))


# --- memory and time ------------------------------------------------------------------------------------


def test_large_gradients_are_written_and_read_fast_and_in_the_memory_of_a_few(tmp_path: Path) -> None:
    header = Header(0, IDENTITY, 100_000, 0.25, 0.5, 0, GRADIENT, "adam")
    gradient = np.linspace(-1, 1, 100_000, dtype=np.float32)
    steps = [Record(STEP, 0, number, 0.5, gradient=gradient) for number in range(40)]
    begun = time.process_time()
    path = write_journal(tmp_path / "j", header, [Record(START, 0, 0), *steps], UnsyncedFiles())
    assert sum(1 for _ in read(path)[1]) == 41
    assert time.process_time() - begun < 2
    assert path.stat().st_size == 108 + 41 * 400_024
    assert peak_bytes(lambda: sum(1 for _ in read(path)[1])) < 5 * header.record_bytes
    with Journal.open_for_append(path, files=UnsyncedFiles()) as journal:
        assert peak_bytes(lambda: journal.append(Record(STEP, 0, 40, 0.5, gradient=gradient))) < 5 * header.record_bytes


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- replay ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "sign", "adam"])
def test_replay_gives_the_bits_of_the_run_that_wrote_it(tmp_path: Path, optimizer: Optimizer) -> None:
    """Three tasks, the second of which sends the adapter back to its start, then back to the end of the first."""
    numbers = np.random.Generator(np.random.Philox(5))
    initial = np.rint(numbers.uniform(-1, 1, 301) * 2**22).astype(np.float32) / np.float32(2**22)
    run = Adapter(initial, 11, 2.0**-10, 0.9, optimizer)
    header, start = Header(11, IDENTITY, 301, run.eps, run.momentum, 0, GRADIENT, optimizer), run.theta.copy()
    ends: dict[int, bytes] = {}
    with Journal.create(tmp_path / "j", header, UnsyncedFiles()) as journal:
        for task in range(3):
            run.reset_velocity()
            journal.append(Record(START, task, journal.next_step))
            for number in range(10):
                if (task, number) == (1, 5):
                    journal.append(Record(REST, task, journal.next_step))
                    run.rest(start)
                record = Record(STEP, task, journal.next_step, 0.01, gradient=numbers.normal(0, 1, 301))
                assert record.gradient is not None
                run.apply_gradient(record.gradient, record.learning_rate)
                journal.append(record)
            journal.append(Record(END, task, journal.next_step))
            ends[task] = bits(run)
        journal.append(Record(BACK, 0, 10))
    assert len(set(ends.values())) == 3
    for until, steps, expected in ((1, 20, ends[1]), (2, 30, ends[2]), (None, 10, ends[0])):
        again = Adapter(initial, 11, header.eps, header.momentum, optimizer)
        assert replay(tmp_path / "j", again, until_task=until) == steps
        assert bits(again) == expected
    untouched = Adapter(initial, 11, header.eps, header.momentum, optimizer)
    assert replay(tmp_path / "j", untouched, until_task=INITIAL) == 0
    assert untouched.theta.tobytes() == start.tobytes()


def bits(adapter: Adapter) -> bytes:
    return b"".join(array.tobytes() for array in (adapter.theta, *adapter.moments().values()))


@pytest.mark.parametrize("header", [DENSE, Header(7, IDENTITY, 3, 0.25, 0.5, 1)])
def test_a_journal_of_an_adapter_of_another_size_is_not_replayed(tmp_path: Path, header: Header) -> None:
    path = write_journal(tmp_path / "j", header, SMALL[:1])
    with pytest.raises(DamagedFileError, match="names 3 adapter parameters where the adapter has 4; put back"):
        replay(path, Adapter(np.zeros(4, np.float32), 7, 0.25, 0.5, header.optimizer))
