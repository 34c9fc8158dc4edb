"""What a run left behind for its readers: ``result.json`` and ``events.jsonl``, checked.

The surprise: ``events.jsonl`` is never held in memory. A run of a month writes gigabytes of it, and the
report may be made on the board itself, so every curve is thinned while its line is read: at most
``CURVE_POINTS`` buckets, each of which knows the mean, the lowest and the highest value of the steps that it
stands for. A run that was cut and resumed logs some steps twice; the later line counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.plain import open_plain, read_bounded

CURVE_POINTS = 2000
LISTED_LINES = 50  # skipped pictures and notes that are kept word for word; the rest is counted
RESULT_LIMIT_BYTES = 64 << 20  # 1,000 tasks make a matrix of about 10 MB
LINE_LIMIT_BYTES = 1 << 20  # a power cut can leave a tail of zeros without any line end
PICTURE_LIMIT = 1e12  # larger losses are drawn nowhere: axes cannot show them beside ordinary ones

Fraction = Annotated[float, Field(ge=0, le=1)]
Change = Annotated[float, Field(ge=-1, le=1)]
Mebibytes = Annotated[float, Field(ge=0, le=1e9)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Loss = Annotated[float, Field(ge=-1e300, le=1e300)]


class _Record(BaseModel):
    # Unknown keys are let through: a newer edge-zofc may say more, and a report needs only what it knows.
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class TaskResult(_Record):
    """One learnt task; ``class_ids`` index ``RunResult.class_names``."""

    name: str
    class_ids: list[Count]
    train_images: Count
    test_images: Count
    skipped_images: Count = 0
    steps: Count
    seconds: Seconds | None = None
    first_loss: Loss | None = None
    last_loss: Loss | None = None


class Scores(_Record):
    """Fractions; ``accuracy_matrix[i][j]`` is task j after task i, None without test pictures."""

    accuracy_matrix: list[list[Fraction | None]]
    stage_accuracy: list[Fraction | None]
    average_accuracy: Fraction | None = None
    last_accuracy: Fraction | None = None
    mean_per_class_accuracy: Fraction | None = None
    forgetting: Change | None = None
    backward_transfer: Change | None = None

    @model_validator(mode="after")
    def _is_a_triangle(self) -> Scores:
        for index, row in enumerate(self.accuracy_matrix):
            if len(row) != index + 1:
                raise ValueError(f"row {index} of an accuracy matrix has {len(row)} entries, not {index + 1}")
        if len(self.stage_accuracy) != len(self.accuracy_matrix):
            raise ValueError(
                f"{len(self.stage_accuracy)} stage accuracies beside {len(self.accuracy_matrix)} matrix rows"
            )
        return self

    def task_forgetting(self) -> list[float | None]:
        """Best accuracy over all stages minus the last one, for every task but the last."""
        matrix = self.accuracy_matrix
        lost: list[float | None] = []
        for task, last in enumerate(matrix[-1][:-1] if matrix else []):
            seen = [value for row in matrix[task:] if (value := row[task]) is not None]
            lost.append(None if last is None else max(seen) - last)
        return lost


class RunResult(Scores):
    """``result.json`` as ``learn`` writes it; forward passes are images x adapters."""

    format_version: Literal[1]
    edge_zofc: str
    completed: bool
    class_names: list[str]
    tasks: list[TaskResult]
    steps: Count
    forgetting_definition: str | None = None
    class_mean_floor: Scores | None = None
    beats_class_mean_floor: bool | None = None
    forward_passes: Count | None = None
    evaluation_forward_passes: Count | None = None
    floor_forward_passes: Count | None = None
    seconds: Seconds | None = None
    seconds_per_step: Seconds | None = None
    peak_rss_mib: Mebibytes | None = None
    peak_anonymous_mib: Mebibytes | None = None
    peak_file_mib: Mebibytes | None = None
    predicted_peak_mib: Mebibytes | None = None
    memory_budget_mib: Mebibytes | None = None
    micro_batch: Count | None = None
    parallel_queries: Count | None = None
    queries: Count | None = None
    query_form: str | None = None
    head_backend: str | None = None
    backbone: str | None = None
    image_size: Count | None = None
    feature_size: Count | None = None
    bundle_identity: str | None = None
    stream: str | None = None
    preset: str | None = None
    precision: str | None = None
    device_profile: str | None = None
    seed: int | None = None
    skipped_images: Count | None = None
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _parts_agree(self) -> RunResult:
        if len(self.accuracy_matrix) > len(self.tasks):
            raise ValueError(f"{len(self.accuracy_matrix)} matrix rows for {len(self.tasks)} tasks")
        floor = self.class_mean_floor
        if floor is not None and len(floor.accuracy_matrix) > len(self.tasks):
            raise ValueError(f"{len(floor.accuracy_matrix)} class-mean rows for {len(self.tasks)} tasks")
        for task in self.tasks:
            if max(task.class_ids, default=-1) >= len(self.class_names):
                raise ValueError(
                    f"a task names class {max(task.class_ids)} of {len(self.class_names)} classes"
                )
        return self


def check_result(result: dict[str, Any] | bytes, where: str = "result.json") -> RunResult:
    """The checked result from its JSON text or object; raises DamagedFileError with the first thing wrong."""
    try:
        if isinstance(result, bytes):
            return RunResult.model_validate_json(result)
        return RunResult.model_validate(result)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise DamagedFileError(
            f"{where} is damaged at {printable(place)}: {printable(first['msg'])}; run learn again."
        ) from error


def read_result(run_folder: Path) -> RunResult:
    """Read ``R/result.json``; raises InputError if there is none, DamagedFileError if it is wrong."""
    path = run_folder / "result.json"
    if not path.exists():
        raise InputError(f"{run_folder} holds no result.json: run edge-zofc learn first.")
    return check_result(read_bounded(path, RESULT_LIMIT_BYTES), str(path))


def printable(text: str, limit: int = 300) -> str:
    """``text`` on one line without control characters, lone surrogates or direction marks, cut at ``limit``.

    Names of files and classes come from outside; a terminal and a page must both survive them.
    """
    # The two joiners are part of ordinary words in Persian, Hindi and others.
    clean = "".join(c if c.isprintable() or c in "\u200c\u200d" else "\ufffd" for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


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
    """What the pictures and the lists need of ``events.jsonl``.

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
        elif kind == "image_skipped":
            self.skipped_count += 1
            if len(self.skipped) < LISTED_LINES:
                self.skipped.append(printable(f"{event.get('path')}: {event.get('reason')}"))
        elif kind == "note":
            self._note(str(event.get("text")))
        elif kind == "micro_batch_halved":
            self._note(
                f"Micro-batch cut from {event.get('from')} to {event.get('to')}: {event.get('reason')}"
            )
        elif kind == "stopped":
            self._note(f"Stopped by {event.get('signal')}")
        elif kind == "run_started":
            self.starts += 1

    def _note(self, text: str) -> None:
        self.note_count += 1
        if len(self.notes) < LISTED_LINES:
            self.notes.append(printable(text))

    def _take_step(self, event: dict[str, Any]) -> None:
        step, task = event.get("step"), event.get("task")
        if type(step) is not int or not 0 <= step <= 2**53:
            return
        for name in ("loss", "rss_mib", "anonymous_mib", "file_mib"):
            value = event.get(name)
            # NaN fails the comparison; a bool is an int, but no measurement.
            if (
                isinstance(value, (int, float))
                and not isinstance(value, bool)
                and abs(value) <= PICTURE_LIMIT
            ):
                getattr(self, name).add(step, float(value))
        while self.task_starts and self.task_starts[-1][0] >= step:
            self.task_starts.pop()
        if type(task) is int and task >= 0 and (not self.task_starts or self.task_starts[-1][1] < task):
            self.task_starts.append((step, task))


def _lines(path: Path) -> Iterator[bytes | None]:
    """Yield the complete lines; None for one longer than the limit. A torn last line is left out."""
    with open_plain(path) as file:
        while line := file.readline(LINE_LIMIT_BYTES):
            if line.endswith(b"\n"):
                yield line
                continue
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = file.readline(LINE_LIMIT_BYTES)
            if rest:
                yield None


def read_log(run_folder: Path) -> Log:
    """Read ``R/events.jsonl`` line by line; a missing log is an empty one, unreadable lines are counted."""
    log, path = Log(), run_folder / "events.jsonl"
    log.found = path.exists()
    for line in _lines(path) if log.found else ():
        try:
            event = None if line is None else json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict):
            log.take(event)
        else:
            log.unreadable_lines += 1
    return log
