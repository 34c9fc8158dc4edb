"""The report is written and summarised, or says why not."""

from __future__ import annotations

import re

import pytest
from made_runs import make_result, make_run

from edge_zofc.errors import InputError
from edge_zofc.report.summary import summary, write_report


@pytest.mark.parametrize("tasks", [1, 2, 5, 8, 9, 40])
@pytest.mark.parametrize("width", [20, 60, 100, 200])
def test_the_summary_fits_a_terminal_and_holds_the_numbers(tasks, width):
    result = make_result(tasks)
    lines = summary(result, width).splitlines()
    assert 12 <= len(lines) <= 36 and (width < 100 or len(lines) <= 26)
    assert max(map(len, lines)) <= max(60, width)
    text = "\n".join(lines)
    assert text.isascii()
    flat = " ".join(text.split())
    last = result["accuracy_matrix"][-1]
    assert f"{100 * last[0]:.1f}" in lines[-1 - lines[::-1].index("") - 1]
    assert f"{100 * result['last_accuracy']:.1f} %" in flat and "431 MiB" in flat and "0.550 s a step" in flat
    assert ("tasks shown" in flat) == (tasks > 8 or (tasks > 5 and width <= 60))


def test_the_matrix_of_the_summary_is_a_triangle_beside_the_two_totals():
    matrix, stages = [[1.0], [0.5, None], [0.25, None, 0.125]], [1.0, 0.5, 0.1875]
    floor = {"accuracy_matrix": [[0.9]], "stage_accuracy": [0.9]}
    result = make_result(3, accuracy_matrix=matrix, stage_accuracy=stages, class_mean_floor=floor)
    lines = [line.split() for line in summary(result).splitlines()]
    start = lines.index(["task", "1", "2", "3", "all", "class", "means"])
    assert lines[start + 1 : start + 4] == [
        ["1", "100.0", "100.0", "90.0"],
        ["2", "50.0", "-", "50.0", "-"],
        ["3", "25.0", "-", "12.5", "18.8", "-"],
    ]


def test_the_summary_survives_names_that_are_no_ascii_or_drive_a_terminal():
    text = summary(make_result(2, backbone="\x1b[31mред\u202e", device_profile="\ud800"))
    assert text.isascii() and "\x1b" not in text


def test_the_summary_of_a_run_without_test_pictures_has_no_matrix():
    text = summary(make_result(3, tested=False))
    assert "no task has test pictures" in text and not re.search(r"\bnan\b", text.lower()) and "None" not in text


def test_the_page_replaces_the_old_one_or_says_why_not(tmp_path):
    make_run(tmp_path, 1)
    (tmp_path / "report.html").write_text("old")
    assert write_report(tmp_path).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    with pytest.raises(InputError):
        write_report(tmp_path, tmp_path / "no" / "such" / "report.html")


def test_a_folder_without_a_run_says_what_to_do(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="run edge-zofc learn first"):
            write_report(folder)
