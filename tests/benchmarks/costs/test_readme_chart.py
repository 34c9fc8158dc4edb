"""benchmarks/costs/readme_chart.py: the committed picture shows the committed numbers, to scale and from zero."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edge_zofc.benchmarks.costs.readme_chart import BARS, OURS, draw, main, peaks
from edge_zofc.errors import InputError

PROJECT = Path(__file__).parents[3]
MEASURED = PROJECT / "benchmarks/results/memory_vit_b.json"
PICTURE = PROJECT / "benchmarks/results/peak_memory.svg"
BAR = re.compile(r'<g id="bar-([a-z-]+)">\s*<path d="(.*?)"', re.DOTALL)
ZERO = re.compile(r'text-anchor: middle[^>]* x="([0-9.]+)"[^>]*>0<')


def measured() -> dict[str, float]:
    return peaks(json.loads(MEASURED.read_text(encoding="utf-8"))["rows"])


def edges(svg: str) -> dict[str, tuple[float, float]]:
    """Arm -> (left, right) edge of its bar, in points."""
    found = {}
    for arm, path in BAR.findall(svg):
        places = [float(x) for x, _ in re.findall(r"([0-9.]+) ([0-9.]+)", path)]
        found[arm] = (min(places), max(places))
    return found


def test_the_committed_picture_shows_what_was_measured() -> None:
    svg = PICTURE.read_text(encoding="utf-8")
    for arm, label in BARS.items():
        assert f">{label}<" in svg
        assert f">{measured()[arm]:,.0f}<" in svg


def test_bars_begin_at_zero_and_are_as_long_as_their_numbers() -> None:
    svg = PICTURE.read_text(encoding="utf-8")
    found, mib = edges(svg), measured()
    assert list(found) == list(BARS)
    [zero] = ZERO.findall(svg)
    left, right = found["fo-batch"]
    scale = (right - left) / mib["fo-batch"]
    for arm, (start, end) in found.items():
        assert start == pytest.approx(float(zero), abs=0.01)
        assert end - start == pytest.approx(scale * mib[arm], abs=0.01)


def test_the_readme_and_its_alternative_text_name_the_same_numbers() -> None:
    page = (PROJECT / "README.md").read_text(encoding="utf-8")
    [alternative] = re.findall(r"!\[([^]]*)\]\(benchmarks/results/peak_memory\.svg\)", page)
    for value in measured().values():
        assert re.search(rf"\b{value:,.0f}\b", alternative)
    assert f"| {measured()[OURS]:,.0f}" in page


def test_the_command_draws_the_same_picture_twice(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        assert main([str(MEASURED), str(tmp_path / name)]) == 0
    drawn = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert drawn == (tmp_path / "two.svg").read_text(encoding="utf-8")
    assert list(edges(drawn)) == list(BARS)


def test_no_background_is_painted(tmp_path: Path) -> None:
    draw(dict.fromkeys(BARS, 100.0), tmp_path / "bars.svg")
    svg = (tmp_path / "bars.svg").read_text(encoding="utf-8")
    assert not re.search(r"#fff|white", svg, re.IGNORECASE)


def test_an_arm_that_did_not_run_is_named() -> None:
    rows = [{"arm": arm, "failed": None, "peak_rss_mib": 1.0} for arm in BARS]
    rows[1]["failed"] = "out of memory"
    with pytest.raises(InputError, match=OURS):
        peaks(rows)
