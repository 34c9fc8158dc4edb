"""Both graphs of the own ViT are timed on the same pictures and adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_zofc.benchmarks.costs import traced


@pytest.mark.slow
def test_both_graphs_are_timed_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced, "SHAPES", ((1, 2),))
    (row,) = traced.compare(tmp_path, threads=1, repeats=1)
    assert (row["pictures"], row["adapters"]) == (1, 2)
    assert 0.2 < float(str(row["ratio"])) < 20
