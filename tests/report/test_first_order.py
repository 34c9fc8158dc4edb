"""First order's memory is what was measured, for the backbone that it was measured with, and said to be that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_runs import make_result, make_run
from pages import page_of

from edge_zofc.report.first_order import MACHINE, MEASURED_MIB, bars
from edge_zofc.storage.result import check_result

RESULTS = Path(__file__).parents[2] / "benchmarks/results"


@pytest.mark.parametrize(
    ("key", "name"), list(zip(MEASURED_MIB, ("memory_vit_ti.json", "memory_vit_b.json"), strict=True))
)
def test_the_numbers_are_those_of_the_benchmark(key: tuple[str, int], name: str) -> None:
    found = json.loads((RESULTS / name).read_text())
    measured = {row["arm"]: row["peak_rss_mib"] for row in found["rows"]}
    assert {arm: measured[arm] for arm in MEASURED_MIB[key]} == MEASURED_MIB[key]
    assert f"batch {found['setup']['batch_size']}" in MACHINE and found["machine"]["time"][:10] in MACHINE


def test_a_run_stands_beside_the_numbers_of_its_own_backbone(tmp_path: Path) -> None:
    found = bars(check_result(make_result(1)))
    assert [bar.mib for bar in found] == [431.2, 818.9, 912.8, 1017.8] and found[0].is_this_run
    assert max(bar.share for bar in found) == 1.0
    make_run(tmp_path, 1)
    assert "not measured here but once" in page_of(tmp_path).text


def test_nothing_is_made_up_for_another_backbone(tmp_path: Path) -> None:
    make_run(tmp_path, 1, backbone="vit_small_patch16_224", image_size=224)
    assert "First order was not measured for this backbone and image size" in page_of(tmp_path).text
    assert bars(check_result(make_result(1, peak_rss_mib=None))) == []
