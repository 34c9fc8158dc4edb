"""The charts are drawn wherever matplotlib is, say nothing, and hold plain words and numbers only."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from made_runs import make_run, moved, write_events

from edge_zofc.report.charts import VARIABLES, draw_charts
from edge_zofc.report.curves import read_log
from edge_zofc.report.summary import write_report
from edge_zofc.storage.result import read_result

WRITE_REPORT = "import sys; from pathlib import Path; from edge_zofc.report.summary import write_report\n"
WRITE_REPORT += "write_report(Path(sys.argv[1]))"


def charts_of(folder):
    charts = draw_charts(read_result(folder), read_log(folder))
    assert charts is not None
    return charts


def labels(svg: str) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg)


def test_a_loss_of_many_sizes_has_plain_numbers_on_its_axis(tmp_path):
    """FAULTS C6."""
    make_run(tmp_path, 2)
    losses = [30.0, 3.0, *[0.03] * 30]
    write_events(tmp_path, *({"event": "step", "step": k, "task": 0, "loss": loss} for k, loss in enumerate(losses)))
    assert {"0.1", "1", "10"} <= set(labels(charts_of(tmp_path)["loss"]))


def test_a_loss_within_one_power_of_ten_has_more_than_one_number_on_its_axis(tmp_path):
    """FAULTS C6."""
    make_run(tmp_path, 2)
    losses = [5.0, *[0.22] * 30]
    write_events(tmp_path, *({"event": "step", "step": k, "task": 0, "loss": loss} for k, loss in enumerate(losses)))
    assert {"0.5", "1", "2", "5"} <= set(labels(charts_of(tmp_path)["loss"]))


@pytest.mark.parametrize("tasks", [1, 2, 12, 30])
@pytest.mark.parametrize("losses", [(0.5, 0.4), (1e-9, 1e-3, 1e11), (-5.0, 1e12), (1e6, 1.0, 1.0, 1.0)])
def test_no_chart_holds_a_formula(tmp_path, tasks, losses):
    make_run(tmp_path, tasks)
    steps = ({"event": "step", "step": k, "task": 0, "loss": loss} for k, loss in enumerate(losses))
    write_events(tmp_path, *({**step, "rss_mib": 1e5 * step["loss"]} for step in steps))
    for svg in charts_of(tmp_path).values():
        assert "mathdefault" not in svg and "$" not in svg
        assert len(labels(svg)) >= 5


def test_every_colour_of_a_chart_is_one_of_the_pages(tmp_path):
    make_run(tmp_path, 5)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    charts = charts_of(tmp_path)
    assert list(charts) == ["accuracy", "matrix", "forgetting", "memory", "loss"]
    used = {name for svg in charts.values() for name in re.findall(r"var\(--(\w+)\)", svg)}
    assert used == set(VARIABLES)
    for name in VARIABLES:
        assert page.count(f"--{name}: #") == 2  # once a scheme
    for name in ("accuracy", "forgetting", "memory", "loss"):
        assert not re.search(r"#[0-9a-f]{6}", charts[name])


@pytest.mark.parametrize("state", ["moved", "rests"])
def test_the_head_alone_is_a_line_where_the_adapter_left_its_start(tmp_path, state):
    result = make_run(tmp_path, 3, **moved(3, state))
    svg = charts_of(tmp_path)["accuracy"]
    assert {"learner", "head alone", "class means, no training"} < set(labels(svg))
    assert "var(--third)" in svg
    last = f"{100 * result['frozen_head']['stage_accuracy'][-1]:.1f}"
    assert last in labels(svg)
    assert f"head alone ends at {last} %" in svg


def test_there_is_no_line_of_a_head_alone_where_the_adapter_stayed(tmp_path):
    make_run(tmp_path, 3, **{**moved(3), "adapter": {"state": "start"}})
    assert "head alone" not in charts_of(tmp_path)["accuracy"]


def test_without_matplotlib_the_page_says_how_to_get_charts_and_has_all_the_rest(tmp_path, monkeypatch):
    """FAULTS C2."""
    make_run(tmp_path, 3)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<svg" not in page and "<figure" not in page
    assert page.count("pip install &#39;edge-zofc[report]&#39;") + page.count("pip install 'edge-zofc[report]'") == 1
    for words in ("The accuracy matrix in numbers", "What it cost", "option batch_size", "Notes (0)"):
        assert words in page


@pytest.mark.parametrize("home", ["/proc/nowhere", None])
def test_a_home_that_cannot_be_written_neither_stops_the_charts_nor_is_it_told(tmp_path, home):
    make_run(tmp_path, 2)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "MPL", "HOME"))}
    if home is None:
        (tmp_path / "file").write_text("")
        home = str(tmp_path / "file")
    done = subprocess.run(
        [sys.executable, "-c", WRITE_REPORT, str(tmp_path)],
        env={**kept, "HOME": home},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("<svg") == 5


def test_the_users_own_matplotlib_settings_change_nothing(tmp_path):
    make_run(tmp_path / "run", 2)
    page = write_report(tmp_path / "run").read_bytes()
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\naxes.facecolor: red\nno.such.key: 1\n")
    done = subprocess.run(
        [sys.executable, "-c", WRITE_REPORT, str(tmp_path / "run")],
        env={**os.environ, "MPLCONFIGDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert (tmp_path / "run" / "report.html").read_bytes() == page
