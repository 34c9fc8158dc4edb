"""Writes a network as an ONNX graph by torch's own exporter, so that a family needs no writer of its own.

Batch norms are folded before (``folding``). The exporter's nodes and constants are taken over into a bundle's two
files, and nothing else: what it notes beside them names places on this machine.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from edge_zofc.errors import InputError
from edge_zofc.export.adapted import Adapted
from edge_zofc.export.linear import quantised_linear
from edge_zofc.export.onnx_writer import OPSET, OnnxWriter
from edge_zofc.export.precision import check_precision
from edge_zofc.export.quiet import quiet
from edge_zofc.storage.manifest import Precision

INPUTS = ("images", "adapters")
_TRACED = (2, 3)  # pictures, adapters: two numbers other than 1, which the exporter would take for a constant


def write_traced_graph(model: Adapted, precision: Precision, folder: Path) -> None:
    """Write ``backbone.onnx`` and ``backbone.onnx.data`` of ``model`` in ``precision`` to ``folder``.

    Raises InputError if the exporter cannot follow the network, or the precision has nothing to quantise.
    """
    check_precision(model, precision)
    graph = _traced(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    writer = OnnxWriter()
    half = precision == "fp16"
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is not None and weight.ndim == 2 and precision not in ("fp32", "fp16"):
            quantised_linear(writer, precision, node.input[0], np.ascontiguousarray(weight.T), node.output[0])
            continue
        for name in set(node.input) & constants.keys():
            writer.constant(name, _halved(constants[name]) if half else constants[name])
        inputs = [f"{name}_half" if half and name in INPUTS else name for name in node.input]
        outputs = [f"{name}_half" if half and name == "features" else name for name in node.output]
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        writer.nodes_out(node.op_type, inputs, outputs, node.domain, **attributes)
    if half:
        _cast(writer)
    writer.write_bundle(folder, model.image_side, model.layout.size, model.feature_size)


def _halved(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16) if values.dtype == np.float32 else values


def _cast(writer: OnnxWriter) -> None:
    """Inputs to float16 before everything else, features back at the end."""
    body, writer.nodes = writer.nodes, []
    for name in INPUTS:
        writer.node("Cast", [name], f"{name}_half", to=TensorProto.FLOAT16)
    writer.nodes += body
    writer.node("Cast", ["features_half"], "features", to=TensorProto.FLOAT)


@contextmanager
def silence() -> Iterator[None]:
    """Nothing of what the exporter warns, logs and prints about itself."""
    with quiet(), warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _traced(model: Adapted) -> onnx.GraphProto:
    images, adapters = _TRACED
    # A copy: what torch traced keeps traces, which can neither be copied nor run.
    example = (torch.zeros(images, 3, model.image_side, model.image_side), torch.zeros(adapters, model.layout.size))
    try:
        with silence():
            program: Any = torch.onnx.export(
                copy.deepcopy(model), example, dynamo=True, opset_version=OPSET, verbose=False, external_data=False,
                input_names=list(INPUTS), output_names=["features"],
                dynamic_shapes=({0: "B"}, {0: "K"}),
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(f"torch cannot export this backbone ({type(error).__name__}); choose another.") from error
    graph: onnx.GraphProto = program.model_proto.graph
    return graph
