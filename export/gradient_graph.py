"""Writes a bundle's second graph, for exact gradients: ``images`` [b, 3, S, S], ``adapters`` [1, P] and
``feature_gradients`` [b, D] -> ``adapter_gradient`` [P], the vector-Jacobian product.

torch's own autograd is traced, and its exporter writes what was traced. The backbone is frozen, so the backward half
has gradients by inputs alone: transposed convolutions and products, in standard operators. Weights that the first graph
has are read from its file. What the second needs besides, such as kernels turned round, lies in a file of its own.

A convolution's and a bounded activation's gradient are written as onnxruntime computes them fastest on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from edge_zofc.errors import EdgeZofcError, InputError
from edge_zofc.export.adapted import Adapted
from edge_zofc.export.onnx_writer import OPSET, OnnxWriter, digest_of, stored_tensors
from edge_zofc.export.traced_graph import silence
from edge_zofc.storage.manifest import GRADIENT_GRAPH, GRADIENT_WEIGHTS, GRAPH, Precision

INPUTS = ("images", "adapters", "feature_gradients")
OUTPUT = "adapter_gradient"
PRECISIONS: tuple[Precision, ...] = ("fp32",)
"""Those that gradients are written for."""
_TRACED = 2  # pictures: a number other than 1, which tracing would take for a constant
_aten: Any = torch.ops.aten


class NoGradientError(InputError):
    """Why a backbone has no graph of gradients, as a clause: the caller says what to do."""


def write_gradient_graph(model: Adapted, folder: Path) -> None:
    """Write ``gradient.onnx`` and ``gradient.onnx.data`` of ``model`` beside the first graph's files in ``folder``.

    Raises NoGradientError if torch cannot trace or export the network's backward half.
    """
    graph = _exported(model)
    writer = OnnxWriter(stored=stored_tensors(folder / GRAPH))
    _take_over(graph, writer)
    side, size, width = model.image_side, model.layout.size, model.feature_size
    shapes: tuple[list[str | int], ...] = (["b", 3, side, side], [1, size], ["b", width])
    inputs = [helper.make_tensor_value_info(*each) for each in zip(INPUTS, repeat(TensorProto.FLOAT), shapes)]
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [size])
    writer.write(folder / GRADIENT_GRAPH, GRADIENT_WEIGHTS, inputs, [output], "edge-zofc")


def vjp(model: Adapted, images: Tensor, adapters: Tensor, feature_gradients: Tensor) -> Tensor:
    """What the graph computes, by torch's autograd; shapes as above."""
    adapter = adapters.detach().requires_grad_()
    features = model(images, adapter)[0]
    (found,) = torch.autograd.grad(features, adapter, feature_gradients)
    return found.reshape(-1)


def _exported(model: Adapted) -> onnx.GraphProto:
    pictures = torch.export.Dim("b")
    try:
        traced, example = _traced(model)
        with silence():
            program: Any = torch.onnx.export(
                traced, example, dynamo=True, optimize=False, opset_version=OPSET, verbose=False, external_data=False,
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
    with sdpa_kernel(SDPBackend.MATH), _PlainPooling(), fake, silence():
        inputs = images, torch.zeros(shapes[1]), torch.zeros(images.shape[0], model.feature_size)
        traced = make_fx(
            lambda x, adapters, g: vjp(model, x, adapters, g), decomposition_table=_table(), tracing_mode="symbolic"
        )(*inputs)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced, example


class _PlainPooling(TorchFunctionMode):
    """The mean over all pixels as one operator: torch's pooling sets strides, whose gradient has no ONNX."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is functional.adaptive_avg_pool2d and args[1] in (1, (1, 1)):
            return args[0].mean((2, 3), keepdim=True)
        return function(*args, **(kwargs or {}))


def _table() -> dict[Any, Any]:
    """How torch's operators are taken apart while they are traced."""
    table = dict(core_aten_decompositions())
    for whole in (_aten.native_layer_norm, _aten.gelu, _aten.hardswish, _aten.silu, _aten._softmax, _aten.hardtanh):
        table.pop(whole.default, None)
    table[_aten.convolution_backward.default] = _convolution_backward
    table[_aten.split_with_sizes.default] = _split_with_sizes
    table[_aten.avg_pool2d_backward.default] = _avg_pool2d_backward
    table[_aten.hardtanh_backward.default] = _hardtanh_backward
    table[_aten.threshold_backward.default] = _threshold_backward
    return table


def _split_with_sizes(x: Tensor, sizes: Sequence[int], dim: int = 0) -> list[Tensor]:
    """Slices: of a split torch's exporter makes a sequence."""
    ends = list(accumulate(sizes))
    return [x.narrow(dim, end - size, size) for size, end in zip(sizes, ends, strict=True)]


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, bias_sizes: Any, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], transposed: bool, output_padding: Any, groups: int, wanted: Sequence[bool],
) -> tuple[Tensor | None, None, None]:  # fmt: skip
    """By the input alone: the weights are frozen."""
    if transposed or wanted[1]:
        raise NoGradientError("this backbone has a convolution whose gradient is not written")
    if not wanted[0]:
        return None, None, None
    axes = range(weight.ndim - 2)
    reach = [dilation[i] * (weight.shape[2 + i] - 1) for i in axes]
    is_dense, steps = groups == 1, set(stride)
    if is_dense and steps == {1} and {*reach, *padding} == {0}:
        # A product of matrices, twice as fast as the transposed convolution of one pixel.
        rows = gradient.reshape(gradient.shape[0], weight.shape[0], -1)
        found = weight.reshape(weight.shape[:2]).t() @ rows
        return found.reshape(x.shape), None, None
    if groups == weight.shape[0] == x.shape[1] and steps == {1}:
        # One channel each: a convolution with the kernel turned round, five times as fast.
        back = [reach[i] - padding[i] for i in axes]
        turned = weight.flip([2 + i for i in axes])
        found = _aten.convolution(gradient, turned, None, stride, back, dilation, False, [0 for _ in axes], groups)
        return found, None, None
    more = [x.shape[2 + i] - ((gradient.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + reach[i] + 1) for i in axes]
    found = _aten.convolution(gradient, weight, None, stride, padding, dilation, True, more, groups)
    return found, None, None


def _avg_pool2d_backward(
    gradient: Tensor, x: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int], *_rest: Any
) -> Tensor:
    """Of windows that lie side by side, the last one cut short where the picture ends."""
    if list(stride or window) != list(window) or any(padding):
        raise NoGradientError("this backbone has pooling whose gradient is not written")
    for axis in (2, 3):
        gradient = _spread(gradient, axis, window[axis - 2], x.shape[axis])
    return gradient


def _spread(gradient: Tensor, axis: int, window: int, size: int) -> Tensor:
    """Each entry along ``axis`` shared equally by its window; what no window holds, of ``size`` in all, gets 0."""
    whole, rest = divmod(size, window)
    shape = [*gradient.shape[: axis + 1], window, *gradient.shape[axis + 1 :]]
    shape[axis] = whole
    shares = gradient.narrow(axis, 0, whole) / window
    parts = [shares.unsqueeze(axis + 1).expand(shape).flatten(axis, axis + 1)]
    if rest:
        shape = [*gradient.shape[:axis], rest, *gradient.shape[axis + 1 :]]
        is_pooled = gradient.shape[axis] > whole
        last = (gradient.narrow(axis, whole, 1) / rest).expand(shape) if is_pooled else gradient.new_zeros(shape)
        parts.append(last)
    return torch.cat(parts, axis)


def _hardtanh_backward(gradient: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """1 between the limits, 0 outside: products and a sign, as comparisons and Where are slow."""
    y = _aten.hardtanh(x, low, high)
    slope: Tensor = ((y - low) * (high - y)).sign()
    return gradient * slope


def _threshold_backward(gradient: Tensor, y: Tensor, threshold: float) -> Tensor:
    """Of ReLU, which is all that has this operator here."""
    slope: Tensor = _aten.relu(y - threshold).sign()
    return gradient * slope


def _take_over(graph: onnx.GraphProto, writer: OnnxWriter) -> None:
    """The graph's nodes and constants. A matrix that is stored turned round is read so; no values are there twice."""
    shapes = {value.name: _shape(value) for value in graph.value_info}
    nodes, constants = _simplified(graph, shapes)
    kept = _Kept(writer)
    for node in nodes:
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        operator, inputs = node.op_type, list(node.input)
        is_product = operator == "Gemm" or (operator == "MatMul" and len(shapes.get(inputs[0], ())) == 2)
        weight = constants.get(inputs[1]) if is_product else None
        if weight is not None and weight.ndim == 2 and not kept.has(weight) and kept.has(weight.T):
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
    return _needed(nodes), constants


def _needed(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Those that the output depends on."""
    read, found = {OUTPUT}, list[onnx.NodeProto]()
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
