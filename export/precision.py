"""The five precisions: how a frozen weight is stored, and which numbers it then stands for.

    fp32   as it is
    w8     8 bits, blocks of 64 along the input, one float32 scale a block; arithmetic in float32
    w4     4 bits, blocks of 32, the same
    int8   8 bits, one scale per output; activations are rounded to 8 bits at run time too (inference only)
    fp16   float16, and so is the arithmetic. For inference only on a ViT: on the package's its fidelity at eps 1e-3 was
           below 0.6 on all pictures tried, also with float32 between the layers. CNNs keep their gradient: 0.986 to
           0.999 (QUESTIONS.md, "On CNNs fp16 keeps it too")

w8, w4 and int8 quantise the four linear layers of each block. Embedding, norms, biases and the adapters, which
have no constant weights at all, stay float32.

The formats are those of onnxruntime's operators MatMulNBits and DynamicQuantizeMatMul (its ContribOperators.md).
Quantising is written out here, in numpy. onnxruntime's own quantiser works on a finished graph and changes from release
to release. Here the torch reference and the file get their numbers from the same arrays.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edge_zofc.errors import InputError
from edge_zofc.export.adapted import Adapted
from edge_zofc.storage.manifest import Precision

BLOCK_SIZE = {"w8": 64, "w4": 32}
BITS = {"w8": 8, "w4": 4}
EXPORT_TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "w8": 1e-4, "w4": 1e-4, "fp16": 2e-2, "int8": 0.5}
"""Largest relative error ||graph - torch|| / ||torch|| of features that an export accepts, torch with the
dequantised weights. The first three do float32 arithmetic on the same numbers; fp16 keeps 11 bits in every
activation; int8 rounds activations to 8 bits, whose error depends on the network's outliers."""


@dataclass(frozen=True)
class BlockWeights:
    """A linear layer for MatMulNBits: ``packed`` uint8 [N, blocks, block_size * bits / 8] (low bits first),
    ``scales`` float32 [N, blocks], zero point 2^(bits - 1); N outputs, ``inputs`` inputs.
    """

    packed: np.ndarray
    scales: np.ndarray
    bits: int
    block_size: int
    inputs: int

    def dequantised(self) -> np.ndarray:
        """What the codes stand for, float32 [N, inputs]."""
        codes = self.packed
        if self.bits == 4:
            codes = np.stack([codes & 15, codes >> 4], axis=-1)
        codes = codes.reshape(len(self.scales), -1, self.block_size).astype(np.float32)
        values = (codes - np.float32(1 << (self.bits - 1))) * self.scales[..., None]
        return np.ascontiguousarray(values.reshape(len(values), -1)[:, : self.inputs])


@dataclass(frozen=True)
class ColumnWeights:
    """A linear layer for DynamicQuantizeMatMul: ``codes`` int8 [inputs, N], ``scales`` float32 [N], zero point 0."""

    codes: np.ndarray
    scales: np.ndarray

    def dequantised(self) -> np.ndarray:
        """What the codes stand for, float32 [N, inputs]."""
        return np.ascontiguousarray((self.codes * self.scales).T)


def quantise_blocks(weight: np.ndarray, precision: Precision) -> BlockWeights:
    """Quantise ``weight`` float32 [N, inputs] for ``w8`` or ``w4``; a short last block is filled with zeros."""
    bits, size = BITS[precision], BLOCK_SIZE[precision]
    half = 1 << (bits - 1)
    padded = np.pad(weight, ((0, 0), (0, -weight.shape[1] % size)))
    blocks = padded.reshape(len(weight), -1, size)
    # The entry largest in magnitude becomes code 0 exactly, whatever its sign, so that all codes are used.
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1)[..., None], axis=-1)[..., 0]
    scales = np.where(largest == 0, np.float32(1), largest / np.float32(-half)).astype(np.float32)
    codes = np.clip(np.rint(blocks / scales[..., None]) + half, 0, 2 * half - 1).astype(np.uint8)
    if bits == 4:
        codes = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return BlockWeights(codes, scales, bits, size, weight.shape[1])


def quantise_columns(weight: np.ndarray) -> ColumnWeights:
    """Quantise ``weight`` float32 [N, inputs] for ``int8``, to codes within +-63.

    x86 processors without VNNI add pairs of 8-bit products in 16 bits. These would overflow with codes up to +-127, and
    the same bundle must mean the same on every processor.
    """
    largest = np.abs(weight).max(axis=1)
    scales = np.where(largest == 0, np.float32(1), largest / np.float32(63)).astype(np.float32)
    codes = np.rint(weight / scales[:, None]).astype(np.int8)
    return ColumnWeights(np.ascontiguousarray(codes.T), scales)


def linear_layers(model: Adapted) -> list[nn.Linear]:
    """The layers that ``w8``, ``w4`` and ``int8`` quantise: those of a ViT's blocks and of ConvNeXt's."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def check_precision(model: Adapted, precision: Precision) -> None:
    """Raise InputError if ``precision`` quantises linear layers and ``model`` has none."""
    if precision not in ("fp32", "fp16") and not linear_layers(model):
        raise InputError(
            f"--precision {precision} quantises matrix products, and this backbone has convolutions alone; "
            "choose fp32 or fp16."
        )


def dequantised_weights(model: Adapted, precision: Precision) -> Adapted:
    """A copy of ``model`` that computes in float32 with the numbers that a bundle of ``precision`` holds."""
    result = copy.deepcopy(model)
    with torch.no_grad():
        if precision == "fp16":
            for parameter in result.parameters():
                parameter.copy_(parameter.half().float())
        elif precision != "fp32":
            for layer in linear_layers(result):
                layer.weight.copy_(torch.from_numpy(_rounded(layer.weight.numpy(), precision)))
    return result


def _rounded(weight: np.ndarray, precision: Precision) -> np.ndarray:
    if precision == "int8":
        return quantise_columns(weight).dequantised()
    return quantise_blocks(weight, precision).dequantised()
