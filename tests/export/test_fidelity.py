"""Fidelity tells graphs that can be learnt through from graphs that cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_vit import tiny_model

from edge_zofc.export.adapters import adapter_layout
from edge_zofc.export.backbones import BackboneRequest, load_backbone
from edge_zofc.export.fidelity import DIRECTIONS, correlation, measure_fidelity
from edge_zofc.export.onnx_graph import write_graph
from edge_zofc.export.precision import dequantised_weights
from edge_zofc.export.probe_pictures import probe_pictures
from edge_zofc.export.session import open_session
from edge_zofc.export.shipped import OWN_VIT
from edge_zofc.export.vit import AdapterViT
from edge_zofc.storage.manifest import GRAPH, Precision


def noise(images: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((images, 3, 32, 32)).astype(np.float32)


def test_the_fp32_graph_can_be_trained_through_and_int8_is_measured_as_worse(tmp_path: Path) -> None:
    model = tiny_model()
    images = noise(4)
    found = {}
    for precision in ("fp32", "w8", "int8"):
        (tmp_path / precision).mkdir()
        write_graph(model, precision, tmp_path / precision)
        session = open_session(tmp_path / precision / GRAPH)
        found[precision] = measure_fidelity(session, dequantised_weights(model, precision), images)
    assert found["fp32"].directions == 64
    assert min(found["fp32"].one_sided, found["fp32"].two_sided) > 0.99
    assert min(found["w8"].one_sided, found["w8"].two_sided) > 0.99
    assert found["int8"].one_sided < 0.9


def test_fidelity_notices_a_gradient_of_another_network(tmp_path: Path) -> None:
    model, other = tiny_model(), tiny_model()
    torch.nn.init.normal_(other.timm_model.blocks[2].mlp.fc2.weight, generator=torch.Generator().manual_seed(1))
    write_graph(model, "fp32", tmp_path)
    images = noise(4)
    assert measure_fidelity(open_session(tmp_path / GRAPH), other, images).two_sided < 0.9


@pytest.mark.parametrize("precision", ["fp32", "w8"])
def test_the_packages_backbone_can_be_trained_through_on_the_packages_photographs(
    tmp_path: Path, precision: Precision
) -> None:
    loaded = load_backbone(BackboneRequest(OWN_VIT))
    model = AdapterViT(loaded.model, adapter_layout(loaded.width, (0, 1, 2, 3, 4), 5, 0.1))
    write_graph(model, precision, tmp_path)
    images = probe_pictures(loaded.image, 2)
    found = measure_fidelity(open_session(tmp_path / GRAPH), dequantised_weights(model, precision), images)
    assert found.directions == DIRECTIONS == 64
    assert min(found.one_sided, found.two_sided) > 0.999


def test_the_correlation_of_a_constant_is_zero_and_of_a_multiple_is_one() -> None:
    ramp = np.arange(5.0)
    assert correlation(ramp, 3 * ramp + 1) == pytest.approx(1.0)
    assert correlation(ramp, -ramp) == pytest.approx(-1.0)
    assert correlation(ramp, np.ones(5)) == 0.0
    assert correlation(ramp, np.full(5, np.nan)) == 0.0
