"""benchmarks/costs/readme_chart.py: the committed picture shows the committed numbers, to scale and from zero."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from edge_zofc.benchmarks.costs.readme_chart import BARS, OURS, PANELS, Measured, alternative, draw, main, peaks
from edge_zofc.errors import InputError

PROJECT = Path(__file__).parents[3]
RESULTS = PROJECT / "benchmarks/results"
FILES = (RESULTS / "estimators_lite0_vit.json", RESULTS / "estimators_vit_b.json")
PICTURE = RESULTS / "peak_memory.svg"
BAR = re.compile(r'<g id="bar-([a-z0-9]+)-([a-z-]+)">\s*<path d="(.*?)"', re.DOTALL)
SPSA = ("lite0", "spsa-balanced-fast", 64)
ZERO = re.compile(r'text-anchor: middle[^>]* x="([0-9.]+)"[^>]*>0<')


def rows() -> list[dict[str, Any]]:
    return [row for path in FILES for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def measured() -> Measured:
    return peaks(rows())


def edges(svg: str) -> dict[tuple[str, str], tuple[float, float]]:
    """(bundle, bar) -> (left, right) edge of its bar, in points."""
    found = {}
    for bundle, bar, path in BAR.findall(svg):
        places = [float(x) for x, _ in re.findall(r"([0-9.]+) ([0-9.]+)", path)]
        found[bundle, bar] = (min(places), max(places))
    return found


def test_the_committed_picture_shows_what_was_measured() -> None:
    svg = PICTURE.read_text(encoding="utf-8")
    for panel in PANELS:
        for line in panel.title.splitlines():
            assert f">{line}<" in svg
        for bar, label in BARS.items():
            assert f">{label}<" in svg
            assert f">{measured()[panel.bundle][bar]:,.0f}<" in svg


def test_bars_begin_at_zero_and_are_as_long_as_their_numbers() -> None:
    """Both panels have the same scale, so their bars can be compared."""
    svg = PICTURE.read_text(encoding="utf-8")
    found, mib = edges(svg), measured()
    assert list(found) == [(panel.bundle, bar) for panel in PANELS for bar in BARS]
    zeros = dict(zip((panel.bundle for panel in PANELS), map(float, ZERO.findall(svg)), strict=True))
    left, right = found["lite0", "torch-batch"]
    scale = (right - left) / mib["lite0"]["torch-batch"]
    for (bundle, bar), (start, end) in found.items():
        assert start == pytest.approx(zeros[bundle], abs=0.01)
        assert end - start == pytest.approx(scale * mib[bundle][bar], abs=0.01)


def test_first_order_at_its_best_is_the_least_of_its_four_arms() -> None:
    mine = [row for row in rows() if row["bundle"] == "vitb" and row["arm"].startswith("torch")]
    assert len(mine) == 4
    assert measured()["vitb"]["torch-best"] == min(row["peak_rss_mib"] for row in mine)


def test_the_readme_and_its_alternative_text_name_the_same_numbers() -> None:
    page = (PROJECT / "README.md").read_text(encoding="utf-8")
    [found] = re.findall(r"!\[([^]]*)\]\(benchmarks/results/peak_memory\.svg\)", page)
    assert found == alternative(measured())
    for mib in measured().values():
        for bar in OURS:
            assert f"| {mib[bar]:,.0f}" in page


def test_the_command_draws_the_same_picture_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one.svg", "two.svg"):
        assert main([*map(str, FILES), str(tmp_path / name)]) == 0
    assert capsys.readouterr().out.splitlines() == [alternative(measured())] * 2
    drawn = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert drawn == (tmp_path / "two.svg").read_text(encoding="utf-8")
    assert edges(drawn) == edges(PICTURE.read_text(encoding="utf-8"))


def test_no_background_is_painted(tmp_path: Path) -> None:
    draw({panel.bundle: dict.fromkeys(BARS, 100.0) for panel in PANELS}, tmp_path / "bars.svg")
    svg = (tmp_path / "bars.svg").read_text(encoding="utf-8")
    assert not re.search(r"#fff|white", svg, re.IGNORECASE)


def test_forward_passes_are_shown_with_shifts_where_they_were_measured() -> None:
    found = rows()
    [balanced] = [row for row in found if (row["bundle"], row["arm"], row["batch_size"]) == SPSA]
    shifts = balanced | {"arm": "spsa-shifts-fast", "peak_rss_mib": 1.0}
    assert peaks([*found, shifts])["lite0"]["spsa"] == 1.0
    assert peaks([*found, shifts | {"batch_size": 16}]) == measured()
    assert peaks([*found, shifts | {"failed": "no room"}]) == measured()


def test_an_arm_that_did_not_run_is_named() -> None:
    found = rows()
    [row] = [row for row in found if (row["bundle"], row["arm"]) == ("vitb", "exact-thrifty")]
    row["failed"] = "out of memory"
    with pytest.raises(InputError, match="no measured arm exact-thrifty of vitb with batch 4"):
        peaks(found)
