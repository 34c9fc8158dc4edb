"""What the adapter won, from result.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_runs import make_run

from edge_zofc.benchmarks.accuracy.gains import gain_of, main, table
from edge_zofc.storage.result import read_result

PAIRED = {"pictures": 100, "right_frozen": 60, "right_moved": 66, "gain": 0.06, "low": 0.01, "high": 0.11}


def run_of(folder: Path, average: float, frozen_average: float) -> Path:
    adapter: dict[str, Any] = {"state": "moved", "held_out": None, "tested": PAIRED}
    cost = {"predicted_image_forwards": 9000, "image_forwards": 8000, "seconds": 61.0}
    made = make_run(folder, tasks=1)
    frozen = {**made["class_mean_floor"], "average_accuracy": frozen_average, "last_accuracy": frozen_average}
    changed = {"average_accuracy": average, "last_accuracy": average, "frozen_head": frozen, "adapter": adapter}
    make_run(folder, tasks=1, **changed, last_learn=cost, peak_rss_mib=200.0)
    return folder


def test_a_gain_is_the_difference_to_the_head_under_the_adapters_start(tmp_path: Path) -> None:
    found = gain_of("run", read_result(run_of(tmp_path / "run", 0.66, 0.60)))
    assert found.rest == pytest.approx((60, 60))
    assert found.won == pytest.approx((6, 6))
    assert found.interval == pytest.approx((1, 11))
    assert (found.image_forwards, found.seconds, found.peak_mib) == (8000, 61.0, 200.0)


def test_the_table_ends_with_the_mean_over_the_runs(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / str(index), average, 0.60) for index, average in enumerate((0.62, 0.66))]
    lines = table([gain_of(run.name, read_result(run)) for run in runs]).splitlines()
    assert len(lines) == 5
    assert "+4.0 ± 2.8 / +4.0 ± 2.8" in lines[-1]


def test_a_run_that_did_not_measure_it_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "old", tasks=1)
    assert main([str(tmp_path / "old")]) == 2
    assert "old did not measure what its adapter won" in capsys.readouterr().err


def test_a_folder_without_a_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "result.json" in capsys.readouterr().err
