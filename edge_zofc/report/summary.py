"""The report of a run: the page, and about 20 lines for a terminal that say the same in the same words."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tabulate import tabulate

from edge_zofc.errors import printable
from edge_zofc.report import text
from edge_zofc.report.curves import read_log
from edge_zofc.report.page import page
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
    write_atomic(path, page(result, log).encode())
    return path


def summary(result: dict[str, Any], width: int = 100) -> str:
    """The same in about 20 lines of plain ASCII, of ``width`` (at least 60) columns, without a final newline.

    Raises DamagedFileError for an object that is not a result.
    """
    run = check_result(result)
    width = max(60, width)
    facts = [f"{name}: {value}" for name, value in _facts(run)]
    lines = [text.headline(run), text.verdict(run)[1], "", *_matrix_lines(run, width), "", *facts]
    # Only what is too long is wrapped: wrapping would close up the columns of the matrix.
    wrapped = (textwrap.wrap(line, width, subsequent_indent="    ") if len(line) > width else [line] for line in lines)
    return "\n".join(line.replace(text.NOTHING, "-") for group in wrapped for line in group)


def _matrix_lines(result: RunResult, width: int) -> list[str]:
    """The accuracy matrix, thinned to ``SUMMARY_ROWS`` tasks and the columns that ``width`` has room for."""
    matrix, base = result.accuracy_matrix, text.baseline_of(result).stage_accuracy
    if not any(value is not None for row in matrix for value in row):
        why = "no task has test pictures" if matrix else text.no_accuracy(result)
        return [f"No accuracy matrix: {why}."]
    tasks = _spread(len(matrix), min(SUMMARY_ROWS, (width - 25) // 7))
    left_out = "" if len(tasks) == len(matrix) else f" ({len(tasks)} of {len(matrix)} tasks shown)"
    rows = []
    for row in tasks:
        cells: list[float | None] = [matrix[row][task] for task in tasks if task <= row]
        ends = [result.stage_accuracy[row], base[row] if row < len(base) else None]
        blank = [""] * (len(tasks) - len(cells))
        shown, totals = ([text.percent(value, unit="") for value in values] for values in (cells, ends))
        rows.append([str(row + 1), *shown, *blank, *totals])
    head = ["task", *(str(task + 1) for task in tasks), "all", "class means"]
    table = tabulate(rows, head, "plain", disable_numparse=True, colalign=["right"] * len(head))
    title = f"Accuracy in % after each task (row) on each task (column){left_out}"
    return [title, *table.splitlines()]


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` indices of ``range(count)``, evenly spread, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})


def _facts(result: RunResult) -> Iterable[tuple[str, str]]:
    if not result.completed:
        yield "Not finished", "the numbers stand where the run stopped; learn --resume goes on"
    last, transfer = text.percent(result.last_accuracy), text.points(result.backward_transfer, signed=True)
    yield "Average accuracy over the stages", f"{text.percent(result.average_accuracy)}; last {last}"
    yield "Forgetting", f"{text.points(result.forgetting)}; backward transfer {transfer}"
    yield "Memory", text.memory_sentence(result)
    held, mapped = text.number(result.peak_anonymous_mib, "MiB"), text.number(result.peak_file_mib, "MiB")
    yield "Memory by kind", f"{held} anonymous, {mapped} file-backed, each at its peak"
    step = text.number(result.seconds_per_step, "s", 3)
    yield "Work", f"{text.count(result.steps, 'step')} in {text.duration(result.seconds)}, {step} a step"
    passes = text.number(result.evaluation_forward_passes)
    yield "Forward passes", f"{text.number(result.forward_passes)} for training, {passes} for evaluation"
    yield "Skipped pictures", text.number(result.skipped_images)
    names = (result.backbone, result.precision, result.preset, result.device_profile)
    yield "Settings", ", ".join(ascii(printable(n, 60))[1:-1] for n in names if n) + f", seed {result.seed}"
