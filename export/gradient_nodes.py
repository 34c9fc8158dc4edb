"""Takes over the exported nodes of a gradient, simplified, with the weights that the first graph's file holds."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edge_zofc.export.adapted import Adapted
from edge_zofc.export.linear import quantised_gradient, quantised_linear
from edge_zofc.export.onnx_writer import OnnxWriter, digest_of
from edge_zofc.export.precision import BLOCK_SIZE, linear_layers
from edge_zofc.storage.manifest import Precision


class Linear:
    """The linear layers that are quantised in ``precision``: ``model`` has the numbers that their codes stand for."""

    def __init__(self, model: Adapted, precision: Precision) -> None:
        self.precision = precision
        layers = linear_layers(model) if precision in BLOCK_SIZE else []
        self.digests = {digest_of(layer.weight.detach().numpy()) for layer in layers}

    def write(self, node: onnx.NodeProto, matrix: np.ndarray, writer: OnnxWriter, inputs: list[str]) -> bool:
        """Write ``inputs[0]`` @ ``matrix`` + ``inputs[2]``; False if it is no product of a layer or of its gradient."""
        if not self.digests:
            return False
        matrix, turned = np.ascontiguousarray(matrix), np.ascontiguousarray(matrix.T)
        if digest_of(turned) in self.digests:
            quantised_linear(writer, self.precision, inputs[0], turned, node.output[0], "".join(inputs[2:]))
            return True
        if digest_of(matrix) in self.digests:
            quantised_gradient(writer, self.precision, inputs[0], matrix, node.output[0])
            return True
        return False


def take_over(graph: onnx.GraphProto, writer: OnnxWriter, linear: Linear) -> None:
    """The graph's nodes and constants. A matrix that is stored turned round is read so; no values are there twice."""
    shapes = {value.name: _shape(value) for value in graph.value_info}
    nodes, constants = _simplified(graph, shapes)
    kept = _Kept(writer)
    for node in nodes:
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        operator, inputs = node.op_type, list(node.input)
        is_product = operator == "Gemm" or (operator == "MatMul" and len(shapes.get(inputs[0], ())) == 2)
        weight = constants.get(inputs[1]) if is_product else None
        if weight is not None and weight.ndim == 2:
            others = [kept.name(name, constants[name]) if name in constants else name for name in inputs[2:]]
            matrix = weight.T if attributes.get("transB") else weight
            if linear.write(node, matrix, writer, [*inputs[:2], *others]):
                continue
            if not kept.has(weight) and kept.has(weight.T):
                operator, inputs[1] = "Gemm", f"{inputs[1]}.turned"
                constants[inputs[1]] = weight.T
                attributes["transB"] = 1 - int(attributes.get("transB", 0))
        inputs = [kept.name(name, constants[name]) if name in constants else name for name in inputs]
        writer.nodes_out(operator, inputs, node.output, node.domain, **attributes)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Its sizes, 0 for one that is only known when the graph runs."""
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _simplified(
    graph: onnx.GraphProto, shapes: dict[str, tuple[int, ...]]
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """The nodes that compute the output, and the constants. What depends on constants alone is computed here.

    A matrix that is repeated for each picture, so that a product has as many of both, is read as it is: ONNX's MatMul
    needs no copies.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    repeated = dict[str, str]()
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" or (node.input and all(name in constants for name in node.input)):
            values = ReferenceEvaluator(node).run(None, {name: constants[name] for name in node.input})
            constants |= dict(zip(node.output, (np.asarray(value) for value in values), strict=True))
            continue
        if node.op_type in ("Expand", "Reshape"):
            source = repeated.get(node.input[0], node.input[0])
            matrix = constants.get(source)
            if matrix is not None and matrix.ndim == 2 and shapes.get(node.output[0], ())[-2:] == matrix.shape:
                repeated[node.output[0]] = source
        elif node.op_type == "MatMul":
            node.input[:] = [repeated.get(name, name) for name in node.input]
        nodes.append(node)
    return _needed(nodes, {value.name for value in graph.output}), constants


def _needed(nodes: list[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """Those that the outputs depend on."""
    read, found = set(outputs), list[onnx.NodeProto]()
    for node in reversed(nodes):
        if not read.isdisjoint(node.output):
            read.update(node.input)
            found.append(node)
    return found[::-1]


class _Kept:
    """The constants that the writer has, each once, and those that the first graph's file holds."""

    def __init__(self, writer: OnnxWriter) -> None:
        self.writer = writer
        self.digests = set(writer.stored)
        self.names = dict[tuple[str, tuple[int, ...], str], str]()

    def has(self, values: np.ndarray) -> bool:
        return digest_of(np.ascontiguousarray(values)) in self.digests

    def name(self, name: str, values: np.ndarray) -> str:
        """The name under which the writer has ``values``: ``name`` where they are new."""
        values = np.ascontiguousarray(values)
        digest = digest_of(values)
        self.digests.add(digest)
        return self.writer.constant(self.names.setdefault((str(values.dtype), values.shape, digest), name), values)
