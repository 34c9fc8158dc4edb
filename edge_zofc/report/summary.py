"""The report of a run: a page to keep (``page.py``) and some lines for the terminal.

The surprise: both say the same, in the same words (``words.py``), from ``result.json`` alone; the log adds the
curves and what was skipped.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge_zofc.errors import printable
from edge_zofc.report.curves import read_log
from edge_zofc.report.page import page
from edge_zofc.report.text import (
    NOTHING,
    count,
    duration,
    headline,
    memory_sentence,
    number,
    percent,
    points,
    verdict,
)
from edge_zofc.storage.result import RunResult, check_result, read_result
from edge_zofc.storage.writing import write_atomic

SUMMARY_ROWS = 8  # rows of the matrix on the terminal


def write_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write the page of a run to ``out`` (by default ``report.html`` in the run folder) and return its path.

    Raises InputError where the folder holds no result or the page cannot be written, DamagedFileError where
    ``result.json`` is not what ``learn`` writes.
    """
    result, log = read_result(run_folder), read_log(run_folder)
    path = run_folder / "report.html" if out is None else out
    write_atomic(path, page(result, log).encode("utf-8", "replace"))
    return path


def summary(result: dict[str, Any], width: int = 100) -> str:
    """The same in about 20 lines of plain ASCII, of ``width`` (at least 60) columns, without a final newline.

    Raises DamagedFileError for an object that is not a result.
    """
    run = check_result(result)
    width = max(60, width)
    lines = [headline(run), verdict(run)[1], "", *_matrix_lines(run, width), ""]
    lines += [f"{name}: {value}" for name, value in _terminal_facts(run)]
    wrapped = (
        textwrap.wrap(line, width, subsequent_indent="    ") if len(line) > width else [line]
        for line in lines
    )
    return "\n".join(line.replace(NOTHING, "-") for group in wrapped for line in group)


def _matrix_lines(result: RunResult, width: int) -> list[str]:
    """The accuracy matrix, thinned to ``SUMMARY_ROWS`` tasks and the columns that ``width`` has room for."""
    matrix, stages = result.accuracy_matrix, result.stage_accuracy
    if not any(value is not None for row in matrix for value in row):
        return ["No accuracy matrix: no task has test pictures."]
    floor = [] if result.class_mean_floor is None else result.class_mean_floor.stage_accuracy
    tasks = _spread(len(matrix), min(SUMMARY_ROWS, (width - 26) // 6))
    left_out = "" if len(tasks) == len(matrix) else f" ({len(tasks)} of {len(matrix)} tasks shown)"

    def cell(value: float | None) -> str:
        return f"{NOTHING if value is None else format(100 * value, '.1f'):>6}"

    lines = [f"Accuracy in % after each task (row) on each task (column){left_out}"]
    lines.append("  task" + "".join(f"{task + 1:>6}" for task in tasks) + "  |   all  floor")
    for row in tasks:
        cells = "".join(cell(matrix[row][task]) if task <= row else " " * 6 for task in tasks)
        floor_cell = cell(floor[row]) if row < len(floor) else cell(None)
        lines.append(f"{row + 1:>6}{cells}  |{cell(stages[row])} {floor_cell}")
    return lines


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` indices of ``range(count)``, evenly spread, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})


def _terminal_facts(result: RunResult) -> Iterable[tuple[str, str]]:
    if not result.completed:
        yield "Not finished", "the numbers stand where the run stopped; learn --resume goes on"
    yield (
        "Average accuracy over the stages",
        f"{percent(result.average_accuracy)}; last {percent(result.last_accuracy)}",
    )
    yield (
        "Forgetting",
        f"{points(result.forgetting)}; backward transfer {points(result.backward_transfer, signed=True)}",
    )
    yield "Memory", memory_sentence(result)
    held = number(result.peak_anonymous_mib, "MiB")
    yield (
        "Memory by kind",
        f"{held} anonymous, {number(result.peak_file_mib, 'MiB')} file-backed, each at its peak",
    )
    step = number(result.seconds_per_step, "s", 3)
    yield "Work", f"{count(result.steps, 'step')} in {duration(result.seconds)}, {step} a step"
    passes = number(result.evaluation_forward_passes)
    yield "Forward passes", f"{number(result.forward_passes)} for training, {passes} for evaluation"
    yield "Skipped pictures", number(result.skipped_images)
    names = (result.backbone, result.precision, result.preset, result.device_profile)
    yield "Settings", ", ".join(ascii(printable(n, 60))[1:-1] for n in names if n) + f", seed {result.seed}"
