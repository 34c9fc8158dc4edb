"""The report of a run: the page, and about 20 lines for a terminal that say the same in the same words."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from edge_zofc.errors import printable
from edge_zofc.report import text
from edge_zofc.report.classes import MOST_CARDS, cards
from edge_zofc.report.curves import read_log
from edge_zofc.report.page import page
from edge_zofc.report.pictures import Gallery, gallery
from edge_zofc.storage.result import RunResult, check_result, read_result
from edge_zofc.storage.run_folder import refuse_own
from edge_zofc.storage.writing import write_atomic

SUMMARY_ROWS = 8  # rows of the matrix on the terminal


def write_report(
    run_folder: Path, out: Path | None = None, stream: Path | None = None, with_pictures: bool = True
) -> Path:
    """Write the page of a run to ``out`` (by default ``report.html`` in the run folder) and return its path.

    ``stream``: where the stream is now, if it moved. Without ``with_pictures`` no picture is opened. Raises InputError
    where the folder holds no result, ``stream`` is no stream or the page cannot be written, DamagedFileError where
    ``result.json`` is not what ``learn`` writes.
    """
    if out is not None:
        refuse_own(out)
    result, log = read_result(run_folder), read_log(run_folder)
    path = run_folder / "report.html" if out is None else out
    pictures = Gallery(note="Pictures were left out (--no-pictures).")
    if with_pictures:
        shown = [card.class_id for card in cards(result)[:MOST_CARDS]]
        pictures = gallery(result, run_folder, stream, shown)
    write_atomic(path, page(result, log, pictures).encode())
    return path


def summary(result: dict[str, Any], width: int = 100) -> str:
    """The same in about 20 lines of plain ASCII, of ``width`` (at least 60) columns, without a final newline.

    Raises DamagedFileError for an object that is not a result.
    """
    run, width = check_result(result), max(60, width)
    lines = [text.headline(run), text.verdict(run)[1], "", *_matrix_lines(run, width), "", *_facts(run)]
    # Only what is too long is wrapped: wrapping would close up the columns of the matrix.
    wrapped = (textwrap.fill(line, width, subsequent_indent="    ") if len(line) > width else line for line in lines)
    return "\n".join(wrapped).replace(text.NOTHING, "-")


def _matrix_lines(result: RunResult, width: int) -> list[str]:
    """The accuracy matrix, thinned to ``SUMMARY_ROWS`` tasks and the columns that ``width`` has room for."""
    matrix, base = result.accuracy_matrix, text.baseline_of(result).stage_accuracy
    if not any(value is not None for row in matrix for value in row):
        why = "no task has test pictures" if matrix else text.no_accuracy(result)
        return [f"No accuracy matrix: {why}."]
    # Evenly spread, the first and the last task among them.
    most = min(len(matrix), SUMMARY_ROWS, (width - 25) // 7)
    tasks = np.linspace(0, len(matrix) - 1, most).round().astype(int).tolist()
    left_out = "" if len(tasks) == len(matrix) else f" ({len(tasks)} of {len(matrix)} tasks shown)"
    rows = [["task", *(str(task + 1) for task in tasks), "all", "class means"]]
    for row in tasks:
        cells = [text.percent(matrix[row][task], unit="") if task <= row else "" for task in tasks]
        ends = (result.stage_accuracy[row], base[row] if row < len(base) else None)
        rows.append([str(row + 1), *cells, *(text.percent(value, unit="") for value in ends)])
    title = f"Accuracy in % after each task (row) on each task (column){left_out}"
    return [title, *text.table(rows, "r" * len(rows[0])).splitlines()]


def _facts(run: RunResult) -> list[str]:
    step, passes = text.number(run.seconds_per_step, "s", 3), text.number(run.evaluation_forward_passes)
    held, mapped = text.number(run.peak_anonymous_mib, "MiB"), text.number(run.peak_file_mib, "MiB")
    average, last = text.percent(run.average_accuracy), text.percent(run.last_accuracy)
    transfer = text.points(run.backward_transfer, signed=True)
    # The names come from files and may hold any character; the terminal gets ASCII.
    names = (run.backbone, run.precision, run.preset, run.device_profile)
    settings = ", ".join(ascii(printable(name, 60))[1:-1] for name in names if name)
    stopped = "Not finished: the numbers stand where the run stopped; learn --resume goes on"
    return [
        *([] if run.completed else [stopped]),
        f"Average accuracy over the stages: {average}; last {last}",
        f"Forgetting: {text.points(run.forgetting)}; backward transfer {transfer}",
        *([] if run.adapter is None else [f"Adapter: {text.adapter_sentence(run)}"]),
        f"Memory: {text.memory_sentence(run)}",
        *([] if run.last_learn is None else [f"Time: {text.time_sentence(run)}"]),
        f"Memory by kind: {held} anonymous, {mapped} file-backed, each at its peak",
        f"Work: {text.count(run.steps, 'step')} in {text.duration(run.seconds)}, {step} a step",
        f"Forward passes: {text.number(run.forward_passes)} for training{_gradients(run)}, {passes} for evaluation",
        f"Skipped pictures: {text.number(run.skipped_images)}",
        f"Settings: {settings}, seed {run.seed}",
        *("Next: " + ascii(printable(sentence))[1:-1] for sentence in run.next_steps),
    ]


def _gradients(run: RunResult) -> str:
    """What exact gradients took beside the forward passes; "" without them."""
    return f" and {text.number(run.gradient_passes)} gradients" if run.gradient_passes else ""
