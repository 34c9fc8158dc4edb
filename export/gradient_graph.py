"""Writes a bundle's second graph, which goes both ways: the forward graph's ``images`` -> ``features``, and
``gradient_images`` [n, 3, S, S], ``adapters`` [1, P] and ``feature_gradients`` [n, D] -> ``adapter_gradient`` [P], the
vector-Jacobian product. One of the two numbers of pictures is 0.

torch's own autograd is traced, and its exporter writes what was traced. The backbone is frozen, so the backward half
has gradients by inputs alone: transposed convolutions and products. All operators are standard ones, but for the
products of quantised weights. Weights that the first graph
has are read from its file. What the second needs besides, such as kernels turned round, lies in a file of its own.
"""

from __future__ import annotations

from itertools import repeat
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn.attention import SDPBackend, sdpa_kernel

from edge_zofc.errors import EdgeZofcError
from edge_zofc.export.adapted import Adapted
from edge_zofc.export.both_ways import add_forward_graph
from edge_zofc.export.gradient_nodes import Linear, take_over
from edge_zofc.export.gradient_rules import NoGradientError, PlainPooling, decompositions
from edge_zofc.export.onnx_writer import BLOCKS_OPSET, OPSET, OnnxWriter, stored_tensors
from edge_zofc.export.precision import BLOCK_SIZE
from edge_zofc.export.recomputing import in_place_taken_out, recompute
from edge_zofc.export.traced_graph import silence
from edge_zofc.storage.manifest import GRADIENT_GRAPH, GRADIENT_WEIGHTS, GRAPH, Precision

INPUTS = ("gradient_images", "adapters", "feature_gradients")
OUTPUT = "adapter_gradient"
PRECISIONS: tuple[Precision, ...] = ("fp32", "w8", "w4")
"""Those that gradients are written for."""
_aten: Any = torch.ops.aten
_TRACED = 2  # pictures: a number other than 1, which tracing would take for a constant


def write_gradient_graph(model: Adapted, folder: Path, precision: Precision = "fp32") -> None:
    """Write ``gradient.onnx`` and ``gradient.onnx.data`` of ``model`` beside the first graph's files in ``folder``.

    ``model`` has the numbers of ``precision`` (``dequantised_weights``).
    Raises NoGradientError if torch cannot trace or export the network's backward half.
    """
    opset = BLOCKS_OPSET if precision in BLOCK_SIZE else OPSET
    graph = _exported(model, opset)
    writer = OnnxWriter(stored=stored_tensors(folder / GRAPH), opset=opset)
    take_over(graph, writer, Linear(model, precision))
    side, size, width = model.image_side, model.layout.size, model.feature_size
    shapes: tuple[list[str | int], ...] = (["n", 3, side, side], [1, size], ["n", width])
    inputs = [helper.make_tensor_value_info(*each) for each in zip(INPUTS, repeat(TensorProto.FLOAT), shapes)]
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [size])
    writer.write(folder / GRADIENT_GRAPH, GRADIENT_WEIGHTS, inputs, [output], "edge-zofc")
    add_forward_graph(folder)


def vjp(model: Adapted, images: Tensor, adapters: Tensor, feature_gradients: Tensor) -> Tensor:
    """What the graph computes, by torch's autograd; shapes as above."""
    adapter = adapters.detach().requires_grad_()
    features = model(images, adapter)[0]
    (found,) = torch.autograd.grad(features, adapter, feature_gradients)
    return found.reshape(-1)


def _exported(model: Adapted, opset: int) -> onnx.GraphProto:
    pictures = torch.export.Dim("n")
    try:
        traced, example = _traced(model)
        with silence():
            program: Any = torch.onnx.export(
                traced, example, dynamo=True, optimize=False, opset_version=opset, verbose=False, external_data=False,
                input_names=list(INPUTS), output_names=[OUTPUT],
                dynamic_shapes=({0: pictures}, None, {0: pictures}),
            )  # fmt: skip
    except (OSError, MemoryError, EdgeZofcError):
        raise
    except Exception as error:
        # Tracing raises whatever torch meets, exporting an OnnxExporterError.
        raise NoGradientError(f"torch cannot export this backbone's gradient ({type(error).__name__})") from error
    graph: onnx.GraphProto = program.model_proto.graph
    return graph


def _traced(model: Adapted) -> tuple[torch.fx.GraphModule, tuple[Tensor, ...]]:
    """The forward and the backward pass as one graph of torch's operators, with any number of pictures."""
    shapes = ((_TRACED, 3, model.image_side, model.image_side), (1, model.layout.size), (_TRACED, model.feature_size))
    example = tuple(torch.zeros(shape) for shape in shapes)
    fake = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    any_number: Any = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC, *[DimDynamic.STATIC] * 3])
    images = fake.from_tensor(example[0], symbolic_context=any_number)
    # Fused attention has no gradient in torch's exporter; the plain one is a product, a softmax and a product.
    with sdpa_kernel(SDPBackend.MATH), PlainPooling(), fake, silence():
        inputs = images, torch.zeros(shapes[1]), torch.zeros(images.shape[0], model.feature_size)
        traced = make_fx(
            lambda x, adapters, g: vjp(model, x, adapters, g),
            decomposition_table=decompositions(),
            tracing_mode="symbolic",
        )(*inputs)
    traced.graph.eliminate_dead_code()
    _name_sizes(traced.graph)
    in_place_taken_out(traced.graph)
    recompute(traced.graph)
    traced.recompile()
    return traced, example


def _name_sizes(graph: torch.fx.Graph) -> None:
    """Write a known size where a new shape leaves it open as -1: without pictures no other size tells it."""
    for node in graph.nodes:
        if node.target in (_aten.view.default, _aten.reshape.default) and -1 in node.args[1]:
            due = node.meta["val"].shape[node.args[1].index(-1)]
            if isinstance(due, int):
                source, shape = node.args
                node.args = source, [due if size == -1 else size for size in shape]
