"""The node of a linear layer whose weights are quantised, for whoever writes a graph."""

from __future__ import annotations

import numpy as np

from edge_zofc.export.onnx_writer import OnnxWriter
from edge_zofc.export.precision import quantise_blocks, quantise_columns
from edge_zofc.storage.manifest import Precision

CONTRIB = "com.microsoft"
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


def _trim(inputs: list[str]) -> list[str]:
    """Inputs without the empty names at the end: optional inputs that are not given."""
    while inputs and not inputs[-1]:
        inputs = inputs[:-1]
    return inputs
