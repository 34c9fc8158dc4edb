"""A graph of gradients is measured, and refused where it is not torch's autograd."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cnns import pictures
from onnx import helper
from tiny_vit import tiny_model
from torch import Tensor

from edge_zofc.export import gradient_check, gradient_graph, gradient_rules
from edge_zofc.export.gradient_check import TOLERANCE, gradient_errors, write_checked_gradient
from edge_zofc.export.gradient_rules import NoGradientError
from edge_zofc.export.onnx_graph import write_graph
from edge_zofc.export.vit import AdapterViT
from edge_zofc.storage.gradient_info import GradientMemory
from edge_zofc.storage.manifest import GRADIENT_GRAPH

IMAGES = pictures(3, 32)
MEMORY = tuple(
    GradientMemory(prepacking=packed, arena=arena, anonymous=number << 20, file=1 << 20, run=0)
    for number, (packed, arena) in enumerate(product((True, False), repeat=2), 1)
)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AdapterViT:
    """A ViT whose first graph lies in ``tmp_path``; no memory is measured."""
    monkeypatch.setattr(gradient_check, "measure_gradient_memory", lambda _folder: MEMORY)
    found = tiny_model(blocks=(0,), depth=1)
    write_graph(found, "fp32", tmp_path)
    return found


def test_a_written_graph_is_checked_measured_and_told(tmp_path: Path, model: AdapterViT) -> None:
    lines: list[str] = []
    found = write_checked_gradient(tmp_path, model, "fp32", IMAGES, lines.append)
    errors = gradient_errors(tmp_path / GRADIENT_GRAPH, model, IMAGES)
    assert errors.shape == (3,)
    assert found.error == errors.min() < TOLERANCE
    assert found.memory == MEMORY
    (line,) = lines
    assert line.startswith("exact gradients: relative error ")
    assert line.endswith(", 2 to 5 MiB more while learning")


def test_a_wrong_rule_is_refused(tmp_path: Path, model: AdapterViT, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of one GELU's gradient is missing."""
    table = gradient_rules.decompositions()
    right = table[gradient_rules._aten.gelu_backward.default]

    def wrong(gradient: Tensor, x: Tensor, **options: Any) -> Tensor:
        return 0.99 * right(gradient, x, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(
        gradient_graph, "decompositions", lambda: {**table, gradient_rules._aten.gelu_backward.default: wrong}
    )
    sentence = (
        r"the exported gradient differs from torch's by \S+ to \S+ \(relative\), above the 1e-04 to 1e-01 allowed"
    )
    with pytest.raises(NoGradientError, match=f"^{sentence}$"):
        write_checked_gradient(tmp_path, model, "fp32", IMAGES, print)


@pytest.mark.parametrize(
    ("errors", "is_good"),
    [([1e-6, 1e-6], True), ([1e-6, 3e-2], True), ([1e-6, 2e-1], False), ([2e-4, 2e-4], False), ([1e-6, np.nan], False)],
)
def test_one_picture_may_lie_on_a_kink_and_not_all(
    errors: list[float], is_good: bool, tmp_path: Path, model: AdapterViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_check, "write_gradient_graph", lambda *_: None)
    monkeypatch.setattr(gradient_check, "_check_features", lambda *_: None)
    monkeypatch.setattr(gradient_check, "gradient_errors", lambda *_: np.array(errors))
    if is_good:
        assert write_checked_gradient(tmp_path, model, "fp32", IMAGES, lambda _: None).error == errors[0]
        return
    with pytest.raises(NoGradientError, match="differs from torch's"):
        write_checked_gradient(tmp_path, model, "fp32", IMAGES, lambda _: None)


def test_other_features_beside_the_gradient_are_refused(
    tmp_path: Path, model: AdapterViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = gradient_check.write_gradient_graph

    def wrong(*arguments: Any) -> None:
        write(*arguments)
        graph = onnx.load(tmp_path / GRADIENT_GRAPH, load_external_data=False)
        last = next(node for node in graph.graph.node if "features" in node.output)
        last.output[0] = "right"
        graph.graph.node.append(helper.make_node("Neg", ["right"], ["features"]))
        (tmp_path / GRADIENT_GRAPH).write_bytes(graph.SerializeToString())

    monkeypatch.setattr(gradient_check, "write_gradient_graph", wrong)
    with pytest.raises(NoGradientError, match="beside it the forward graph gives other features"):
        write_checked_gradient(tmp_path, model, "fp32", IMAGES, print)
