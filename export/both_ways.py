"""Puts a bundle's forward graph beside its gradient in ``gradient.onnx``, so that one session goes both ways.

The two halves share no value but ``adapters`` and the weights: each weight is read, and packed by onnxruntime, once. A
half whose pictures are none computes next to nothing.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from edge_zofc.export.gradient_rules import NoGradientError
from edge_zofc.storage.manifest import GRADIENT_GRAPH, GRAPH

_SHARED = ("images", "adapters", "features", "")
"""Names that the forward graph's values keep. An input that is left out has no name."""


def add_forward_graph(folder: Path) -> None:
    """Write ``gradient.onnx`` of ``folder`` anew with the nodes of ``backbone.onnx`` before its own.

    Raises NoGradientError if the two do not go together.
    """
    forward, both = (onnx.load(folder / name, load_external_data=False) for name in (GRAPH, GRADIENT_GRAPH))
    names = _names(forward.graph, both.graph)
    nodes = [_renamed(node, names) for node in forward.graph.node] + list(both.graph.node)
    if len({name for node in nodes for name in node.output}) < sum(len(node.output) for node in nodes):
        raise NoGradientError("the forward graph and the gradient use the same names")
    del both.graph.node[:]
    both.graph.node.extend(nodes)
    both.graph.input.insert(0, next(value for value in forward.graph.input if value.name == "images"))
    both.graph.output.insert(0, forward.graph.output[0])
    (folder / GRADIENT_GRAPH).write_bytes(both.SerializeToString(deterministic=True))


def _names(forward: onnx.GraphProto, both: onnx.GraphProto) -> dict[str, str]:
    """The new name of each value of ``forward``; its constants that ``both`` lacks are added to it."""
    known = {_content(tensor): tensor.name for tensor in both.initializer}
    names = {name: name for name in _SHARED}
    for tensor in forward.initializer:
        if _content(tensor) not in known:
            known[_content(tensor)] = f"forward.{tensor.name}"
            both.initializer.add().CopyFrom(tensor)
            both.initializer[-1].name = f"forward.{tensor.name}"
        names[tensor.name] = known[_content(tensor)]
    for node in forward.node:
        for name in node.output:
            names.setdefault(name, f"forward.{name}")
    return names


def _content(tensor: onnx.TensorProto) -> bytes:
    """All of a constant but its name: its type and shape, and its values or where they lie."""
    bare = onnx.TensorProto()
    bare.CopyFrom(tensor)
    bare.ClearField("name")
    content: bytes = bare.SerializeToString(deterministic=True)
    return content


def _renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    found = onnx.NodeProto()
    found.CopyFrom(node)
    found.name = f"forward.{node.name}"
    found.input[:] = [names[name] for name in node.input]
    found.output[:] = [names[name] for name in node.output]
    return found
