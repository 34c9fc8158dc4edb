"""One table in four forms: a terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_zofc.benchmarks.tables import Row, as_markdown, for_terminal, print_measured, write_csv, write_json
from edge_zofc.errors import DoesNotFitError

COLUMNS = {"name": ("method", ""), "loss": ("loss", ".2f"), "passes": ("passes", ",d")}
ROWS = [{"name": "one", "loss": 0.125, "passes": 12345, "more": 1}, {"name": "another", "loss": None}]


def test_on_a_terminal_names_stand_left_and_numbers_right() -> None:
    assert [line.split() for line in for_terminal(COLUMNS, ROWS).splitlines()] == [
        ["method", "loss", "passes"],
        ["one", "0.12", "12,345"],
        ["another", "-", "-"],
    ]
    heading, first, second = for_terminal(COLUMNS, ROWS).splitlines()
    assert heading.startswith("method ") and first.startswith("one ") and second.startswith("another ")
    assert len(heading) == len(first) == len(second)


def test_markdown_has_a_line_for_each_row_below_the_rule() -> None:
    heading, rule, *lines = as_markdown(COLUMNS, ROWS).splitlines()
    assert heading.split() == ["|", "method", "|", "loss", "|", "passes", "|"]
    assert set(rule) == set("|:-")
    assert lines[0].split() == ["|", "one", "|", "0.12", "|", "12,345", "|"]


def test_a_table_without_rows_is_its_headings() -> None:
    assert for_terminal(COLUMNS, []).split() == ["method", "loss", "passes"]
    assert len(as_markdown(COLUMNS, []).splitlines()) == 2


def test_a_failed_row_says_why_in_both_forms() -> None:
    rows = [ROWS[0], {"name": "large", "failed": "no room"}]
    assert for_terminal(COLUMNS, rows).splitlines()[2].split() == ["large", "did", "not", "run:", "no", "room"]
    assert [text.strip() for text in as_markdown(COLUMNS, rows).splitlines()[3].split("|")] == [
        "", "large", "did not run: no room", "", "",
    ]  # fmt: skip


def test_rows_that_are_measured_are_printed_once_all_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> Iterator[Row]:
        yield ROWS[0]
        raise DoesNotFitError("No room.")

    assert print_measured(COLUMNS, iter(ROWS)) == 0
    assert capsys.readouterr() == (as_markdown(COLUMNS, ROWS), "")
    assert print_measured(COLUMNS, fails()) == 3
    assert capsys.readouterr() == ("", "No room.\n")


def test_csv_holds_the_chosen_values_as_they_are(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", ["name", "loss"], ROWS)
    assert (tmp_path / "t.csv").read_text() == "name,loss\none,0.125\nanother,\n"


def test_json_replaces_the_file_before(tmp_path: Path) -> None:
    for data in ({"rows": ROWS}, {"rows": []}):
        write_json(tmp_path / "t.json", data)
        assert json.loads((tmp_path / "t.json").read_text()) == data
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]
