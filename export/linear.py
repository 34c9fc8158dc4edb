"""The nodes of a linear layer whose weights are quantised, and of its gradient, for whoever writes a graph."""

from __future__ import annotations

import numpy as np

from edge_zofc.export.onnx_writer import OnnxWriter
from edge_zofc.export.precision import quantise_blocks, quantise_columns
from edge_zofc.storage.manifest import Precision

CONTRIB = "com.microsoft"
_ZERO = {"w8": 128, "w4": 0x88}
"""A byte of zero points: of one code, or of two."""
_FP32_ARITHMETIC = 1  # MatMulNBits' accuracy_level: weights are expanded, activations are not rounded


def quantised_linear(
    to: OnnxWriter, precision: Precision, x: str, weight: np.ndarray, name: str, bias: str = ""
) -> str:
    """[..., in] -> [..., out], called ``name``, with ``weight`` float32 [out, in] in ``w8``, ``w4`` or ``int8``.

    ``bias`` names a constant float32 [out].
    """
    if precision == "int8":
        columns = quantise_columns(weight)
        parts = [
            to.constant(f"{name}.codes", columns.codes),
            to.constant(f"{name}.scales", columns.scales),
            to.constant(f"{name}.zeros", np.zeros(len(columns.scales), dtype=np.int8)),
        ]
        return to.node("DynamicQuantizeMatMul", _trim([x, *parts, bias]), name, CONTRIB)
    blocks = quantise_blocks(weight, precision)
    parts = [to.constant(f"{name}.codes", blocks.packed), to.constant(f"{name}.scales", blocks.scales.reshape(-1))]
    return to.node(
        "MatMulNBits", _trim([x, *parts, "", "", bias]), name, CONTRIB,
        K=blocks.inputs, N=len(blocks.scales), bits=blocks.bits, block_size=blocks.block_size,
        accuracy_level=_FP32_ARITHMETIC,
    )  # fmt: skip


def quantised_gradient(to: OnnxWriter, precision: Precision, gradient: str, weight: np.ndarray, name: str) -> str:
    """``gradient`` [rows, out] @ ``weight`` [out, in] -> [rows, in], called ``name``, in ``w8`` or ``w4``.

    The codes and scales are those of ``quantised_linear``, and are expanded just before they are used: the shape of
    the scales is read from ``gradient``, as onnxruntime computes what depends on no input at the start, for all layers.
    """
    blocks = quantise_blocks(weight, precision)
    outputs, count = blocks.scales.shape
    width = count * blocks.block_size
    codes = to.constant(f"{name}.codes", blocks.packed)
    zeros = to.constant(f"{name}.zeros", np.full((outputs, count * blocks.bits // 8), _ZERO[precision], np.uint8))
    if blocks.bits == 4:
        to.nibbles |= {codes: (outputs, width), zeros: (outputs, count)}
    else:
        to.constants[codes] = blocks.packed.reshape(outputs, width)
    rows = to.node("Shape", [gradient], f"{name}.rows", start=0, end=1)
    nothing = to.node("Sub", [rows, rows], f"{name}.nothing")
    shape = to.node("Add", [to.shape(outputs, count), nothing], f"{name}.scales_shape")
    flat = to.constant(f"{name}.scales", blocks.scales.reshape(-1))
    scales = to.node("Reshape", [flat, shape], f"{name}.scales_of_rows")
    values = to.node("DequantizeLinear", [codes, scales, zeros], f"{name}.values", axis=1, block_size=blocks.block_size)
    if width == blocks.inputs:
        return to.node("MatMul", [gradient, values], name)
    padded = to.node("MatMul", [gradient, values], f"{name}.padded")
    return to.node("Slice", [padded, to.shape(0), to.shape(blocks.inputs), to.shape(1)], name)


def _trim(inputs: list[str]) -> list[str]:
    """Inputs without the empty names at the end: optional inputs that are not given."""
    while inputs and not inputs[-1]:
        inputs = inputs[:-1]
    return inputs
