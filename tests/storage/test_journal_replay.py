"""journal.py: what a replay applies, where a rollback leads, and that the bits are those of the run."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from journals import HEADER, IDENTITY, RESTING, UnsyncedFiles, write_journal, write_small

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.errors import InputError
from edge_zofc.storage.journal import INITIAL, Header, Journal, Kind, Record, read, replay

START, STEP, END, BACK, REST = Kind.TASK_START, Kind.STEP, Kind.TASK_END, Kind.ROLLBACK, Kind.REST


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
    path = write_small(tmp_path / "j", TWO_TASKS)
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
    path = write_small(tmp_path / "j", [*TWO_TASKS, Record(BACK, 0, 2)])
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
    path = write_small(tmp_path / "j", [*TWO_TASKS, Record(BACK, 0, 2), Record(BACK, 1, 3)])
    assert replayed(path) == "reset s0:1 s1:2 reset s2:3"


def test_a_thousand_rollbacks_are_no_burden(tmp_path):
    records = [Record(START, 0, 0), *steps(0, 0, 1), Record(END, 0, 1)]
    for value in range(1000):
        records += [Record(START, 1, 1), *steps(1, 1, value), Record(END, 1, 2), Record(BACK, 0, 1)]
    path = write_journal(tmp_path / "j", HEADER, records, UnsyncedFiles())
    assert replayed(path) == "reset s0:1"
    assert replayed(path, until_task=1) == "reset s0:1 reset s1:999"


def test_a_rest_is_replayed_where_it_stands_and_undone_with_its_task(tmp_path):
    one, two = [Record(START, 0, 0), *steps(0, 0, 1, 2)], [Record(END, 0, 2), Record(START, 1, 2), *steps(1, 2, 3)]
    path = write_small(tmp_path / "j", [*one, Record(REST, 0, 2), *two, Record(REST, 1, 3), Record(END, 1, 3)], RESTING)
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
    path = write_journal(tmp_path / "j", header, records, UnsyncedFiles())
    assert path.stat().st_size == 108 + 10_001 * 40 < 500_000
    start = time.process_time()
    assert sum(1 for _ in read(path)[1]) == 10_001
    assert time.process_time() - start < 2
    tracemalloc.start()
    assert sum(1 for _ in read(path)[1]) == 10_001
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2 << 20
