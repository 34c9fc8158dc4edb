"""Alone against together, on the small bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import write_small_stream

from edge_zofc.benchmarks.accuracy.fleet import main, measure
from edge_zofc.storage.bundle import Bundle


def test_a_fleet_is_one_run_that_saw_all_and_each_device_alone_is_not(small_bundle: Bundle, tmp_path: Path) -> None:
    pictures = write_small_stream(tmp_path / "stream", tasks=1, classes=5) / "000_task"
    row = measure(small_bundle.folder, pictures, devices=2, seed=1993, out=tmp_path / "out")
    assert (row["name"], row["devices"], row["classes"]) == ("000_task", 2, "2 to 3")
    assert row["together"] == row["one"] > row["alone"] > 0
    assert row["alone"] <= 50, "alone it can name its own classes only"


def test_too_few_classes_are_told(small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = write_small_stream(tmp_path / "stream", tasks=1, classes=2) / "000_task"
    words = ["--bundle", small_bundle.folder, "--out", tmp_path / "out", pictures]
    assert main([str(word) for word in words]) == 2
    assert "has 2 classes for 8 devices; take fewer devices." in capsys.readouterr().err
