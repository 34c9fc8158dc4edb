"""How torch's operators are taken apart while a backward pass is traced.

torch's own decompositions, but for what they leave whole. A convolution's and a bounded activation's gradient are
written as onnxruntime computes them fastest on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from edge_zofc.errors import InputError

_aten: Any = torch.ops.aten


class NoGradientError(InputError):
    """Why a backbone has no graph of gradients, as a clause: the caller says what to do."""


class PlainPooling(TorchFunctionMode):
    """The mean over all pixels as one operator: torch's pooling sets strides, whose gradient has no ONNX."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is functional.adaptive_avg_pool2d and args[1] in (1, (1, 1)):
            return args[0].mean((2, 3), keepdim=True)
        return function(*args, **(kwargs or {}))


def decompositions() -> dict[Any, Any]:
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
