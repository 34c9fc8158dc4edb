"""The page in a real browser: it is quiet, it asks for nothing, and no chart is empty."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_runs import make_result, make_run, make_stream
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
const boxes = [...document.querySelectorAll("svg")].map(chart => {
  const box = chart.getBoundingClientRect();
  const drawn = chart.getBBox().width * chart.getBBox().height;
  return [box.width, box.height, drawn].map(Math.round).join("x");
});
const images = [...document.images].map(image => `${image.naturalWidth}x${image.naturalHeight}`);
const wide = [...document.querySelectorAll(".card, .memory")].filter(box => box.scrollWidth > box.clientWidth);
const root = document.documentElement;
root.setAttribute("data-charts", boxes.join(" "));
root.setAttribute("data-images", images.join(" "));
root.setAttribute("data-wide", wide.length);
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


def measured(chromium: str, page: Path, folder: Path, *options: str) -> str:
    """The page's elements as the browser has them, with what MEASURE found on the root element."""
    load(chromium, page, folder / "profile", *options, "--dump-dom")
    # The page's own policy forbids scripts, so the one that measures goes into a copy without it.
    markup, count = re.subn(r"<meta http-equiv=[^>]*>", "", page.read_text(encoding="utf-8"))
    assert count == 1
    copy = folder / "measured.html"
    copy.write_text(markup.replace("</main>", "</main>" + MEASURE), encoding="utf-8")
    return load(chromium, copy, folder / "profile", *options, "--dump-dom").stdout


def test_the_console_check_would_see_a_broken_page(chromium, tmp_path):
    page = tmp_path / "broken.html"
    page.write_text("<!DOCTYPE html><script>nowhere()</script>")
    with pytest.raises(AssertionError, match="nowhere is not defined"):
        load(chromium, page, tmp_path / "profile", "--dump-dom")


@pytest.mark.parametrize(("tasks", "tested", "charts"), [(1, True, 3), (5, True, 5), (40, True, 5), (3, False, 2)])
def test_a_browser_shows_every_chart_and_complains_about_nothing(chromium, tmp_path, tasks, tested, charts):
    make_run(tmp_path, tasks, tested=tested)
    page = write_report(tmp_path)
    dom = measured(chromium, page, tmp_path)
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


@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("tasks", [1, 50])
def test_pictures_and_matrix_of_2_to_100_classes_fit_the_page(chromium, tmp_path, tasks, width):
    result = make_result(tasks)
    result["class_names"][:2] = ["w" * 80, "\u05d7\u05ea\u05d5\u05dc \U0001f600 & <b>"]
    make_stream(tmp_path / "stream", result)
    make_run(tmp_path / "run", tasks)
    (tmp_path / "run/result.json").write_text(json.dumps({**result, "stream_folder": "../stream"}))
    dom = measured(chromium, write_report(tmp_path / "run"), tmp_path, f"--window-size={width},2400")
    images = re.search(r'data-images="([^"]*)"', dom)[1].split()
    assert len(images) > 2 * tasks and set(images) == {"96x96"}
    assert 'data-overflow="0"' in dom and 'data-wide="0"' in dom and 'data-requests="0"' in dom
