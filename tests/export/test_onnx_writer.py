"""The graph file holds the network, the weights file its numbers, where they can be mapped."""

from __future__ import annotations

from pathlib import Path

import onnx
from tiny_vit import tiny_model

from edge_zofc.export.onnx_graph import write_graph
from edge_zofc.storage.manifest import GRAPH, WEIGHTS


def test_weights_lie_outside_the_graph_on_page_boundaries(tmp_path: Path) -> None:
    write_graph(tiny_model(), "fp32", tmp_path)
    tensors = onnx.load(str(tmp_path / GRAPH), load_external_data=False).graph.initializer
    outside = [{entry.key: entry.value for entry in tensor.external_data} for tensor in tensors if tensor.external_data]
    assert {entry["location"] for entry in outside} == {WEIGHTS}
    assert all(int(entry["offset"]) % 4096 == 0 for entry in outside)
    inside = sum(tensor.ByteSize() for tensor in tensors if not tensor.external_data)
    assert inside < 40_000 < (tmp_path / WEIGHTS).stat().st_size
