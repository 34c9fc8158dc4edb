"""The methods in torch get the bundle's backbone and adapters, and no other's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_zofc.benchmarks.accuracy.request import CellRequest
from edge_zofc.benchmarks.accuracy.torch_cell import load
from edge_zofc.errors import InputError
from edge_zofc.export.adapted import AdapterRequest, adapted
from edge_zofc.export.backbones import BackboneRequest, load_backbone
from edge_zofc.export.options import ExportOptions
from edge_zofc.export.probe_pictures import probe_pictures
from edge_zofc.export.shipped import DEFAULT, OWN_VIT
from edge_zofc.export.writer import export_bundle


def request(**changes: Any) -> CellRequest:
    values: dict[str, Any] = {
        "method": "fo-fc", "seed": 1993, "stream": Path("s"), "bundle": None, "backbone": None, "checkpoint": None,
        "img_size": None, "preset": "edge", "epochs": 1, "epoch_factor": 1, "search": 1, "threads": 1,
        "work": Path("w"),
    }  # fmt: skip
    return CellRequest(**{**values, **changes})


def test_the_adapters_and_the_pictures_are_the_bundles(tmp_path: Path) -> None:
    options = ExportOptions(
        tmp_path / "bundle", OWN_VIT, img_size=32, rank=2, adapter_blocks="0,3", scale=0.2, mean=(0.4, 0.5, 0.6)
    )
    manifest = export_bundle(options).manifest
    model, image = load(request(bundle=options.out, backbone=OWN_VIT, img_size=32))
    assert model.layout == manifest.adapter
    assert image == manifest.image
    with pytest.raises(InputError, match=r"\(12 blocks, 32 px\), not .* \(12 blocks, 96 px\); give the same"):
        load(request(bundle=options.out, backbone=OWN_VIT))
    with pytest.raises(InputError, match=r"holds vit_tiny_patch16_96 .* backbone efficientnet_lite0"):
        load(request(bundle=options.out))


def test_without_a_bundle_they_are_those_of_the_default_backbone() -> None:
    model, image = load(request(img_size=64))
    plain = load_backbone(BackboneRequest(DEFAULT, img_size=64))
    expected = adapted(plain, AdapterRequest(), probe_pictures(plain.image, 4))
    assert image == plain.image
    assert (model.layout, model.layout.kind, model.layout.size) == (expected.layout, "film", 3616)
