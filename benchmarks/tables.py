"""Tables of results: for a terminal, as Markdown, as CSV and as JSON.

A row is a dictionary of what was measured. A column is a key of the row with a heading and a format. A key that has no
column is in the JSON file only. The row of a measurement that failed has the reason under "failed".
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from edge_zofc.errors import EdgeZofcError
from edge_zofc.storage.writing import write_atomic

Columns = Mapping[str, Sequence[str]]
"""Key in a row -> (heading, format for ``format()``, or "" for text)."""
Row = Mapping[str, Any]
MISSING = "-"


def for_terminal(columns: Columns, rows: Sequence[Row]) -> str:
    """Aligned columns: the first to the left, the others to the right. The reason of a failure ends its line."""
    lines = _table("plain", columns, [_texts(columns, row, ("",)) for row in rows]).splitlines()
    for number, row in enumerate(rows, start=1):
        if row.get("failed"):
            lines[number] = f"{lines[number].rstrip()}  {_reason(row)}"
    return "\n".join(lines)


def as_markdown(columns: Columns, rows: Sequence[Row]) -> str:
    """A Markdown table. The reason of a failure stands in the second column."""
    return _table("pipe", columns, [_texts(columns, row, (_reason(row),)) for row in rows]) + "\n"


def print_measured(columns: Columns, rows: Iterable[Row]) -> int:
    """Print rows that are measured one after another as a Markdown table; returns the exit code.

    A measurement that raises EdgeZofcError ends all: its sentence goes to stderr, and nothing to stdout.
    """
    try:
        text = as_markdown(columns, list(rows))
    except EdgeZofcError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(text)
    return 0


def write_csv(path: Path, keys: Sequence[str], rows: Sequence[Row]) -> None:
    """Write the values under ``keys``, unformatted; an empty field for None. The first line holds the keys."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, keys, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, data: object) -> None:
    """Write ``data`` as indented JSON. The file is whole or not there. Raises as ``write_atomic``."""
    write_atomic(path, (json.dumps(data, indent=1) + "\n").encode())


def _table(style: str, columns: Columns, lines: list[list[str]]) -> str:
    headings = [column[0] for column in columns.values()]
    sides = ["left", *["right"] * (len(headings) - 1)]
    # tabulate takes no alignment for a table without lines.
    return tabulate(lines, headings, tablefmt=style, disable_numparse=True, colalign=sides if lines else None)


def _texts(columns: Columns, row: Row, instead: tuple[str, ...]) -> list[str]:
    """The cells of a row. A failed row has its first value, then ``instead``, then nothing."""
    if row.get("failed"):
        found = [_text(row.get(next(iter(columns))), ""), *instead]
        return found + [""] * (len(columns) - len(found))
    return [_text(row.get(key), column[1]) for key, column in columns.items()]


def _text(value: object, form: str) -> str:
    return MISSING if value is None else format(value, form)


def _reason(row: Row) -> str:
    return f"did not run: {row.get('failed')}"
