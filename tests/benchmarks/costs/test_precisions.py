"""Each precision that a backbone has is a row, with the fidelity that an export would measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_zofc.benchmarks.costs import precisions


def test_a_precision_is_measured_as_an_export_measures_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "RUNS", 1)
    monkeypatch.setattr(precisions, "get_args", lambda _type: ("fp32",))
    (row,) = precisions.measure("package-vit", "film", tmp_path)
    assert (row["backbone"], row["kind"], row["precision"]) == ("package-vit", "film", "fp32")
    assert 20 < float(str(row["mib"])) < 22
    assert float(str(row["error"])) < 1e-4
    assert float(str(row["one_sided"])) > 0.9


def test_convolutions_alone_have_no_rows_of_precisions_for_matrices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precisions, "get_args", lambda _type: ("w8", "w4", "int8"))
    assert list(precisions.measure("mobilenetv3_small_050", None, tmp_path)) == []
