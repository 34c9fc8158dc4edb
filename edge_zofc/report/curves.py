"""``events.jsonl.1`` and ``events.jsonl`` -> curves of bounded length, and the notes in it.

The file is read line by line and never held in memory: a run of a month writes gigabytes of it, and a board may make
the report. A resumed run logs some steps twice; the later line counts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from edge_zofc.errors import printable
from edge_zofc.storage.reading import open_plain

CURVE_POINTS = 2000
LISTED_LINES = 50  # skipped pictures and notes that are kept word for word; the rest is counted
LINE_LIMIT_BYTES = 1 << 20  # a power cut can leave a tail of zeros without any line end
DRAWN_LIMIT = 1e12  # larger values are left out: no axis shows them beside ordinary ones

_SENTENCES = {
    "image_skipped": "{path}: {reason}",
    "note": "{text}",
    "micro_batch_halved": "Micro-batch cut from {from} to {to}: {reason}",
    "stopped": "Stopped by {signal}",
}


@dataclass(slots=True)
class Bucket:
    """The steps from ``first`` on that one point of a curve stands for."""

    first: int
    count: int
    total: float
    low: float
    high: float

    @property
    def mean(self) -> float:
        """Mean over the bucket's steps."""
        return self.total / self.count

    def absorb(self, other: Bucket) -> None:
        """Take ``other``'s steps in; changes this bucket."""
        self.count += other.count
        self.total += other.total
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)


@dataclass
class Curve:
    """At most ``capacity`` buckets of equally many steps; their size doubles when they run out."""

    capacity: int = CURVE_POINTS
    stride: int = 1
    buckets: list[Bucket] = field(default_factory=list)

    def add(self, step: int, value: float) -> None:
        """Append one step; a step that is not beyond the last ones replaces them (a resumed run)."""
        buckets = self.buckets
        while buckets and buckets[-1].first >= step:
            buckets.pop()
        new = Bucket(step, 1, value, value, value)
        if buckets and buckets[-1].count < self.stride:
            buckets[-1].absorb(new)
            return
        buckets.append(new)
        if len(buckets) > self.capacity:
            for left, right in zip(buckets[::2], buckets[1::2], strict=False):
                left.absorb(right)
            del buckets[1::2]
            self.stride *= 2


@dataclass
class Log:
    """What the charts and the lists need of ``events.jsonl``.

    ``task_starts``: (first step, task index) in step order; ``skipped`` and ``notes``: the first
    ``LISTED_LINES`` of them as sentences, beside their full numbers.
    """

    loss: Curve = field(default_factory=Curve)
    rss_mib: Curve = field(default_factory=Curve)
    anonymous_mib: Curve = field(default_factory=Curve)
    file_mib: Curve = field(default_factory=Curve)
    task_starts: list[tuple[int, int]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    skipped_count: int = 0
    notes: list[str] = field(default_factory=list)
    note_count: int = 0
    starts: int = 0
    unreadable_lines: int = 0
    found: bool = True

    def take(self, event: dict[str, Any]) -> None:
        """Take one event in; kinds and values that make no sense here are passed over."""
        kind = event.get("event")
        if kind == "step":
            self._take_step(event)
        elif kind == "run_started":
            self.starts += 1
        elif isinstance(kind, str) and kind in _SENTENCES:
            is_skip = kind == "image_skipped"
            self.skipped_count += is_skip
            self.note_count += not is_skip
            lines = self.skipped if is_skip else self.notes
            if len(lines) < LISTED_LINES:
                lines.append(printable(_SENTENCES[kind].format_map(defaultdict(type(None), event))))

    def _take_step(self, event: dict[str, Any]) -> None:
        step, task = event.get("step"), event.get("task")
        if type(step) is not int or not 0 <= step <= 2**53:
            return
        for name in ("loss", "rss_mib", "anonymous_mib", "file_mib"):
            value: Any = event.get(name)
            # NaN fails the comparison; a bool is no measurement.
            if type(value) in (int, float) and abs(value) <= DRAWN_LIMIT:
                getattr(self, name).add(step, float(value))
        while self.task_starts and self.task_starts[-1][0] >= step:
            self.task_starts.pop()
        if type(task) is int and task >= 0 and (not self.task_starts or self.task_starts[-1][1] < task):
            self.task_starts.append((step, task))


def read_log(run_folder: Path) -> Log:
    """Read ``R/events.jsonl.1``, the older part of a long log, and ``R/events.jsonl`` line by line.

    A missing log is an empty one, unreadable lines are counted.
    """
    log = Log()
    paths = [path for name in ("events.jsonl.1", "events.jsonl") if (path := run_folder / name).exists()]
    log.found = bool(paths)
    for line in chain.from_iterable(map(_lines, paths)):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict):
            log.take(event)
        else:
            log.unreadable_lines += 1
    return log


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the complete lines, each cut at the limit. A torn last line is left out."""
    with open_plain(path) as file:
        while line := file.readline(LINE_LIMIT_BYTES):
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = file.readline(LINE_LIMIT_BYTES)
            if rest:
                yield line
