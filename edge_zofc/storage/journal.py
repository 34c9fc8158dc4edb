"""The append-only log of a run, from which the adapter can be rebuilt to the last bit.

``journal_format.py`` has the bytes; this is what they mean and how they are kept.

Tasks are numbered from 0 in the order they were learnt, steps from 0 over the whole run. A task start resets the
velocity. Steps of that task follow. A task end makes it a place to come back to. A rollback to task N says that the
state is now that of the *latest* end of task N, step number included (N = -1: the initial adapter). A rest, within a
task, sets the adapter to its initial values: the steps so far did harm. What follows
equals a run that never went further. Nothing is deleted, and a later rollback may go forward again.

Every record is fsynced before ``append`` returns, so only the very last one can be torn: a short one, or a whole one
with a wrong CRC, is dropped. Anything else that does not fit is an error that names the record.

A journal cut off after a whole record is a valid, shorter journal. Only the snapshot knows that it is too short, hence
``keep_records``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.errors import DamagedFileError, DivergedError, InputError, explained
from edge_zofc.storage import journal_format
from edge_zofc.storage.journal_format import HEADER_BYTES, Header
from edge_zofc.storage.journal_record import INITIAL, Kind, Record
from edge_zofc.storage.reading import is_there, open_plain
from edge_zofc.storage.writing import DISK, AppendFile, Files, write_atomic

__all__ = ["INITIAL", "Header", "Journal", "Kind", "Record", "read", "replay"]

_BLOCK_BYTES = 1 << 18


def read(path: Path) -> tuple[Header, Iterator[Record]]:
    """The header and a lazy iterator over the records, which reads a quarter of a mebibyte at a time.

    A torn last record is left out. Raises InputError if there is no journal or a newer edge-zofc wrote it;
    DamagedFileError, from here or from the iterator, for any other damage.
    """
    walk = _Walk(path)
    return walk.header, walk.records()


def replay(path: Path, adapter: Adapter, until_step: int | None = None, until_task: int | None = None) -> int:
    """Drive ``adapter``, fresh from the bundle's initial values, to the state the journal ends in.

    Or to where ``until_step`` steps were done, or to the latest end of task ``until_task``. Steps that a rollback undid
    do not count and are not applied. Returns how many were applied.
    Raises as ``read``, InputError if the journal does not reach so far, DamagedFileError if it is one of an adapter of
    another size.
    """
    if until_step is not None and until_task is not None:
        raise InputError("A replay ends at a step or at a task, not both; give one of the two.")
    walk = _Walk(path)
    if walk.header.adapter_size != adapter.theta.size:
        raise DamagedFileError(
            f"{path} is damaged: its header names {walk.header.adapter_size} adapter parameters where the adapter has "
            f"{adapter.theta.size}; put back a good copy."
        )
    for _ in walk.records():
        pass
    done, initial = 0, adapter.theta.copy() if walk.header.rests else None
    for record in walk.history(until_task):
        if done == until_step:
            break
        if record.kind is Kind.STEP:
            if record.gradient is not None:
                adapter.apply_gradient(record.gradient, record.learning_rate)
            else:
                adapter.apply(record.step, np.array(record.coefficients, np.float32), record.learning_rate)
            done += 1
        elif record.kind is Kind.TASK_START:
            adapter.reset_velocity()
        elif record.kind is Kind.REST and initial is not None:
            adapter.rest(initial)
    if until_step is not None and done != until_step:
        raise InputError(f"{path} holds {done} steps, so it cannot be replayed to step {until_step}.")
    return done


class Journal:
    """A journal of ``records`` records, open for appending under the run's lock."""

    def __init__(self, path: Path, keep_records: int | None, files: Files) -> None:
        walk = _Walk(path)
        for _ in islice(walk.records(), keep_records):
            pass
        self.header, self.records = walk.header, walk.count
        if keep_records is not None and self.records < keep_records:
            raise DamagedFileError(
                f"{path} holds {self.records} whole records where {keep_records} were written; put back a good copy."
            )
        self._order = walk.order
        self._file = AppendFile(path, HEADER_BYTES + self.records * self.header.record_bytes, files)

    @classmethod
    def create(cls, path: Path, header: Header, files: Files = DISK) -> Journal:
        """Write a new journal without records. Raises InputError if there is one, else as ``write_atomic``."""
        if is_there(path):
            raise InputError(f"{path} is there already and is not overwritten; choose another run folder.")
        write_atomic(path, journal_format.encode_header(header), files)
        return cls(path, 0, files)

    @classmethod
    def open_for_append(cls, path: Path, keep_records: int | None = None, files: Files = DISK) -> Journal:
        """Open a journal, cut back durably to its first ``keep_records`` (None: to all whole ones).

        What lies behind them is not looked at. Raises as ``read``, DamagedFileError if there are fewer.
        """
        return cls(path, keep_records, files)

    @property
    def next_step(self) -> int:
        """The number that the next step must have."""
        return self._order.next_step

    def records_at_end(self, task: int) -> int | None:
        """How many records there were at the latest end of task number ``task``; None if none is in the journal."""
        _, span = self._order.ends.get(task, (0, None))
        return None if span is None else span.stop

    def append(self, record: Record) -> None:
        """Add one record; it is on the disk when this returns. After a failure the journal is closed.

        Raises DivergedError for values that are not finite, ValueError for a record out of order, else as
        ``AppendFile.append``.
        """
        if (wild := record.not_finite) is not None:
            what, way_out = ("coefficient", " or raise eps") if record.gradient is None else ("gradient", "")
            raise DivergedError(
                f"Step {record.step} has a learning rate or {what} of {wild}, which is not finite; "
                f"lower the learning rate{way_out}."
            )
        if fault := journal_format.record_fault(record, self.header) or self._order.fault(record):
            raise ValueError(f"{record} cannot follow: {fault}")
        self._file.append(journal_format.encode_record(record, self.header))
        self._order.follow(record, self.records)
        self.records += 1

    def close(self) -> None:
        """Give the file back; closing twice is nothing."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True)
class _Span:
    """Records first..stop-1, reached through ``before``: one piece of the history that counts."""

    before: _Span | None
    first: int
    stop: int


class _Order:
    """Where a run stands after the records so far, and what may come next.

    ``ends`` has, for each task that was ever finished, the step number and the history at its latest end.
    """

    def __init__(self) -> None:
        self.next_step = 0
        self.finished = INITIAL
        self.running = False
        self.before: _Span | None = None
        self.first = 0
        self.ends: dict[int, tuple[int, _Span | None]] = {INITIAL: (0, None)}

    def fault(self, record: Record) -> str | None:
        """Why ``record`` cannot come next, or None."""
        if record.kind is Kind.ROLLBACK:
            if record.task not in self.ends:
                return f"there is no end of task {record.task} to go back to"
            expected_step = self.ends[record.task][0]
        else:
            expected_step = self.next_step
            if record.task != self.finished + 1:
                return f"task {record.task} where task {self.finished + 1} is due"
            if (record.kind is Kind.TASK_START) == self.running:
                return "the task has started already" if self.running else "the task has not started"
        if record.step != expected_step:
            return f"step {record.step} where step {expected_step} is due"
        return None

    def follow(self, record: Record, index: int) -> None:
        """Take over ``record``, the ``index``-th of the file, which has no fault."""
        self.next_step = record.step + (record.kind is Kind.STEP)
        self.running = record.kind in (Kind.TASK_START, Kind.STEP, Kind.REST)
        if record.kind is Kind.TASK_END:
            self.finished = record.task
            self.ends[record.task] = (record.step, _Span(self.before, self.first, index + 1))
        elif record.kind is Kind.ROLLBACK:
            self.finished = record.task
            self.before, self.first = self.ends[record.task][1], index + 1


class _Walk:
    """One pass over a journal, checking every record; afterwards ``history`` knows which records count."""

    def __init__(self, path: Path) -> None:
        self.path, self.order, self.count = path, _Order(), 0
        with open_plain(path) as file, explained(path, "read"):
            self.header = journal_format.decode_header(file.read(HEADER_BYTES), path)

    def records(self) -> Iterator[Record]:
        """The records in file order. A torn last one is left out."""
        with open_plain(self.path) as file:
            whole, rest = divmod(os.fstat(file.fileno()).st_size - HEADER_BYTES, self.header.record_bytes)
            for raw in self._raw_records(file, 0, whole):
                # Whatever follows a record was written after that record was on the disk: only the last may be torn.
                if self.count == whole - 1 and rest == 0 and not journal_format.crc_fits(raw, self.header.crc):
                    return
                record = journal_format.decode_record(raw, self.count, self.header, self.path)
                if fault := self.order.fault(record):
                    raise journal_format.damaged(self.path, self.count, fault)
                self.order.follow(record, self.count)
                self.count += 1
                yield record

    def history(self, until_task: int | None) -> Iterator[Record]:
        """The records that lead to the end of the file or to the latest end of a task; their CRC is checked again."""
        span: _Span | None = _Span(self.order.before, self.order.first, self.count)
        if until_task is not None:
            if until_task not in self.order.ends:
                finished = sorted(self.order.ends)[1:]
                raise InputError(f"{self.path} has no end of task {until_task}; the tasks with one are {finished}.")
            span = self.order.ends[until_task][1]
        spans: list[_Span] = []
        while span is not None:
            spans.append(span)
            span = span.before
        with open_plain(self.path) as file:
            for span in reversed(spans):
                for index, raw in enumerate(self._raw_records(file, span.first, span.stop), span.first):
                    yield journal_format.decode_record(raw, index, self.header, self.path)

    def _raw_records(self, file: BinaryIO, first: int, stop: int) -> Iterator[bytes]:
        """The bytes of records first..stop-1, read many at a time."""
        size = self.header.record_bytes
        many = max(1, _BLOCK_BYTES // size)
        for start in range(first, stop, many):
            length = min(many, stop - start) * size
            with explained(self.path, "read"):
                file.seek(HEADER_BYTES + start * size)
                block = file.read(length)
            if len(block) != length:
                raise DamagedFileError(
                    f"{self.path} became shorter while it was read; stop what writes it, then try again."
                )
            yield from (block[at : at + size] for at in range(0, length, size))
