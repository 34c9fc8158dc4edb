"""The page in a real browser: it is quiet, it asks for nothing, and no chart is empty."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_runs import make_run
from PIL import Image

from edge_zofc.report.summary import write_report

pytestmark = pytest.mark.browser
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--window-size=1200,2400",
]
MEASURE = """<script>
const boxes = [...document.querySelectorAll("svg, img")].map(chart => {
  const box = chart.getBoundingClientRect();
  const drawn = chart.tagName === "IMG" ? chart.naturalWidth * chart.naturalHeight
    : chart.getBBox().width * chart.getBBox().height;
  return [box.width, box.height, drawn].map(Math.round).join("x");
});
const root = document.documentElement;
root.setAttribute("data-charts", boxes.join(" "));
root.setAttribute("data-overflow", root.scrollWidth - root.clientWidth);
root.setAttribute("data-requests", performance.getEntriesByType("resource").length);
</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium here: apt-get install chromium")
    return found


def load(chromium: str, page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [chromium, *FLAGS, f"--user-data-dir={profile}", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done


def test_the_console_check_would_see_a_broken_page(chromium, tmp_path):
    page = tmp_path / "broken.html"
    page.write_text("<!DOCTYPE html><script>nowhere()</script>")
    with pytest.raises(AssertionError, match="nowhere is not defined"):
        load(chromium, page, tmp_path / "profile", "--dump-dom")


@pytest.mark.parametrize(("tasks", "tested", "charts"), [(1, True, 3), (5, True, 5), (40, True, 5), (3, False, 2)])
def test_a_browser_shows_every_chart_and_complains_about_nothing(chromium, tmp_path, tasks, tested, charts):
    make_run(tmp_path, tasks, tested=tested)
    page = write_report(tmp_path)
    load(chromium, page, tmp_path / "profile", "--dump-dom")
    # The page's own policy forbids scripts, so the one that measures goes into a copy without it.
    markup, count = re.subn(r"<meta http-equiv=[^>]*>", "", page.read_text(encoding="utf-8"))
    assert count == 1
    copy = tmp_path / "measured.html"
    copy.write_text(markup.replace("</main>", "</main>" + MEASURE), encoding="utf-8")
    dom = load(chromium, copy, tmp_path / "profile", "--dump-dom").stdout
    sizes = re.search(r'data-charts="([^"]*)"', dom)[1].split()
    assert len(sizes) == charts
    for size in sizes:
        width, height, drawn = map(int, size.split("x"))
        assert width > 300 and height > 150 and drawn > 10_000, sizes
    assert 'data-overflow="0"' in dom and 'data-requests="0"' in dom


@pytest.mark.parametrize("scheme", [0, 1])  # dark, light
def test_the_drawn_page_has_the_series_colours_of_its_scheme(chromium, tmp_path, scheme):
    make_run(tmp_path, 5)
    screenshot = tmp_path / "page.png"
    options = (f"--screenshot={screenshot}", f"--blink-settings=preferredColorScheme={scheme}")
    load(chromium, write_report(tmp_path), tmp_path / "profile", *options)
    with Image.open(screenshot) as image:
        colours = {colour for count, colour in image.convert("RGB").getcolors(1 << 24) if count > 200}
    page, learner, floor = (
        ((20, 23, 27), (86, 180, 233), (230, 159, 0)) if scheme == 0 else ((246, 247, 249), (0, 114, 178), (213, 94, 0))
    )
    assert {page, learner, floor} <= colours
