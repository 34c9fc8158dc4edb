"""Collects ONNX nodes and constants and writes them as a graph file beside one file of weights.

Large constants start at multiples of the page size in the weights file, so that onnxruntime can map each where it
lies. Small ones (shapes, scalars) stay in the graph file, because onnxruntime folds constants before it opens external
data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from edge_zofc.storage.manifest import GRAPH, WEIGHTS

OPSET = 20
"""The first with Gelu as one operator; onnxruntime reads it since 1.17."""
IR_VERSION = 9
BLOCKS_OPSET, BLOCKS_IR_VERSION = 21, 10
"""The first with DequantizeLinear by blocks; onnxruntime reads it since 1.18."""
_EXTERNAL_BYTES = 1024
_PAGE = 4096
Attribute = Any
"""int, float, str or a list of int; onnx's own stub takes it for its other keywords."""


class Stored(NamedTuple):
    """Where a large constant lies: a file beside the graph, and the first byte there."""

    location: str
    offset: int


@dataclass
class OnnxWriter:
    """A graph under construction; ``node`` and ``constant`` return the names of values.

    ``stored``: constants that another graph's file holds, by ``digest_of``; they are not written again.
    ``nibbles``: the shapes of those constants that hold 4-bit numbers, two in a byte.
    """

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    stored: dict[str, Stored] = field(default_factory=dict)
    nibbles: dict[str, tuple[int, ...]] = field(default_factory=dict)
    opset: int = OPSET

    def node(self, operator: str, inputs: Sequence[str], name: str, domain: str = "", **attributes: Attribute) -> str:
        """Append a node with one output, called ``name`` like the node itself."""
        return self.nodes_out(operator, inputs, [name], domain, **attributes)[0]

    def nodes_out(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Attribute
    ) -> list[str]:
        """Append a node with several outputs."""
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], domain=domain, **attributes))
        return list(outputs)

    def constant(self, name: str, values: np.ndarray) -> str:
        """Keep ``values`` as an initializer. The same name twice must mean the same values."""
        self.constants.setdefault(name, np.ascontiguousarray(values))
        return name

    def shape(self, *sizes: int) -> str:
        """An int64 shape constant, shared by all its users."""
        return self.constant("shape_" + "x".join(map(str, sizes)), np.array(sizes, dtype=np.int64))

    def write_bundle(self, folder: Path, side: int, parameters: int, width: int) -> None:
        """Write a bundle's two files: ``images`` [B, 3, side, side], ``adapters`` [K, P] -> ``features`` [K, B, D]."""
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["B", 3, side, side])
        adapters = helper.make_tensor_value_info("adapters", TensorProto.FLOAT, ["K", parameters])
        features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["K", "B", width])
        # Without a version: the graph's bytes are part of the bundle's identity.
        self.write(folder / GRAPH, WEIGHTS, [images, adapters], [features], "edge-zofc")

    def write(
        self,
        path: Path,
        weights_name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        producer: str,
    ) -> None:
        """Write the graph to ``path`` and its weights beside it, to the file ``weights_name``, the same bytes once."""
        tensors, places = [], dict(self.stored)
        with (path.parent / weights_name).open("wb") as file:
            for name, values in self.constants.items():
                tensor = self._tensor(name, values)
                tensors.append(tensor)
                if values.nbytes < _EXTERNAL_BYTES:
                    tensor.raw_data = values.tobytes()
                    continue
                digest = digest_of(values)
                if digest not in places:
                    file.write(bytes(-file.tell() % _PAGE))
                    places[digest] = Stored(weights_name, file.tell())
                    file.write(values.data)
                _put_outside(tensor, places[digest], values.nbytes)
        graph = helper.make_graph(self.nodes, "backbone", list(inputs), list(outputs), tensors)
        model = helper.make_model(
            graph,
            producer_name=producer,
            ir_version=IR_VERSION if self.opset < BLOCKS_OPSET else BLOCKS_IR_VERSION,
            opset_imports=[helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)],
        )
        path.write_bytes(model.SerializeToString(deterministic=True))

    def _tensor(self, name: str, values: np.ndarray) -> onnx.TensorProto:
        """Without its data."""
        if name in self.nibbles:
            return TensorProto(name=name, data_type=TensorProto.UINT4, dims=self.nibbles[name])
        return TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(values.dtype), dims=values.shape)


def digest_of(values: np.ndarray) -> str:
    """SHA-256 of a C-contiguous array's bytes. Two arrays of other types or shapes may have the same."""
    return hashlib.sha256(values.data).hexdigest()


def stored_tensors(graph: Path) -> dict[str, Stored]:
    """The large constants of a graph file that ``OnnxWriter`` wrote, by ``digest_of``."""
    found = {}
    for tensor in onnx.load(graph, load_external_data=False).graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if place:
            with (graph.parent / place["location"]).open("rb") as file:
                file.seek(int(place["offset"]))
                digest = hashlib.sha256(file.read(int(place["length"]))).hexdigest()
            found[digest] = Stored(place["location"], int(place["offset"]))
    return found


def _put_outside(tensor: onnx.TensorProto, stored: Stored, length: int) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", stored.location), ("offset", str(stored.offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
