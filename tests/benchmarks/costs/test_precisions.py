"""Each precision that a backbone has is a row, with the fidelity that an export would measure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edge_zofc.benchmarks.costs import precisions
from edge_zofc.export.backbones import BackboneRequest, load_backbone


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


def test_random_weights_make_every_block_count() -> None:
    """timm starts a ConvNeXt's layer scales at a millionth: w4 then rounds nothing that a feature shows."""

    def change(spread: bool) -> float:
        network = load_backbone(BackboneRequest("test_convnext", random_weights=True)).model
        if spread:
            precisions.fill_randomly(network)
        pictures = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            before = network(pictures)
            for layer in network.modules():
                if isinstance(layer, torch.nn.Linear):
                    layer.weight *= 0.9
            return float((network(pictures) - before).norm() / before.norm())

    assert change(spread=False) < 1e-4
    assert change(spread=True) > 1e-2


def test_random_weights_are_the_same_at_every_call() -> None:
    networks = [load_backbone(BackboneRequest("test_convnext", random_weights=True)).model for _ in range(2)]
    for network in networks:
        precisions.fill_randomly(network)
    first, second = ([p.detach().numpy().tobytes() for p in network.parameters()] for network in networks)
    assert first == second
