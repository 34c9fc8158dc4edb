"""A fleet's steps on the small bundle, with lists in place of a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import write_small_stream

from edge_zofc.benchmarks.accuracy.fleet_steps import Split, main, measure
from edge_zofc.fleet.stepping import Estimator, Plan
from edge_zofc.storage.bundle import Bundle


@pytest.mark.parametrize(("split", "estimator"), [("unlike", "exact"), ("like", "spsa")])
def test_a_row_tells_of_the_head_before_and_after_and_of_the_verdict(
    exact_bundle: Bundle, tmp_path: Path, split: Split, estimator: Estimator
) -> None:
    pictures = write_small_stream(tmp_path / "stream", tasks=1, classes=5, train=20, alike=True) / "000_task"
    plan = Plan(2, estimator, pictures=4)
    row = measure(exact_bundle.folder, pictures, split, 2, plan, tmp_path / "out")
    assert row["split"] == f"2 {split}"
    assert row["steps"].startswith(f"2 {estimator}, 4 pictures")
    assert 0 < row["rest"] <= 100
    assert row["verdict"] in ("moved", "rests")
    assert (row["moved"] == row["rest"]) or row["verdict"] == "moved"
    assert row["up_kib"] > 0


def test_a_folder_that_is_none_is_told(
    exact_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--bundle", exact_bundle.folder, "--out", tmp_path / "out", tmp_path / "nothing"]
    assert main([str(word) for word in words]) == 2
    assert "nothing" in capsys.readouterr().err
