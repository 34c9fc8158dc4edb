"""A frozen timm CNN with an adapter after each of its blocks, whose weights come from outside, as one flat vector each.

A block is what timm's stages are made of: an inverted residual, a bottleneck, a ConvNeXt block. Each is wrapped where
it stands, so that a network's own ``forward`` runs. Everything before the first adapter runs once on B pictures; from
its output on there are K * B.

A channel's spread is the standard deviation of a block's output in that channel, measured once on the probe's pictures
and kept in the graph. It gives the adapters' numbers the same meaning in every channel and every network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edge_zofc.errors import InputError
from edge_zofc.export.adapters import cut, pieces_at
from edge_zofc.storage.manifest import AdapterLayout

FAMILIES = {
    "EfficientNet": "EfficientNet(-Lite), MnasNet, MobileNetV2",
    "MobileNetV3": "MobileNetV3 and MobileNetV4",
    "ResNet": "ResNet",
    "RegNet": "RegNet",
    "ConvNeXt": "ConvNeXt(V2)",
}
"""Classes of timm whose stages are chains of blocks, and what is built of them."""
SUPPORTED = ", ".join(FAMILIES.values())
_STAGES = ("blocks", "stages", "layer1", "layer2", "layer3", "layer4", "s1", "s2", "s3", "s4")
_CHAINS = ("Sequential", "RegStage", "ConvNeXtStage")
_LEAST_SPREAD = 0.01  # of the block's mean: a channel that is silent on the probe's pictures is not divided by 0
_SPREAD_BITS = 8  # rounded, so that the same export is the same bundle whatever the order of a sum


@dataclass
class _Run:
    """What the wrapped blocks need to know of the present run: the adapters' pieces and B, the number of pictures."""

    pieces: dict[str, torch.Tensor] = field(default_factory=dict)
    pictures: int = 0


class _AdaptedBlock(nn.Module):
    """A block and the adapter behind it."""

    spread: torch.Tensor

    def __init__(self, block: nn.Module, index: int, layout: AdapterLayout, spread: torch.Tensor, run: _Run) -> None:
        super().__init__()
        self.block, self.layout, self.run = block, layout, run
        self.pieces = pieces_at(layout, index)
        self.register_buffer("spread", spread[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block(x)
        x = x.reshape(-1, self.run.pictures, *x.shape[1:])  # [1 or K, B, C, H, W]
        adapted = self._film if self.layout.kind == "film" else self._bottleneck
        return adapted(x, [self.run.pieces[piece.name] for piece in self.pieces]).flatten(0, 1)

    def _film(self, x: torch.Tensor, pieces: list[torch.Tensor]) -> torch.Tensor:
        scale, shift = (piece[:, None, :, None, None] for piece in pieces)
        return x * (1.0 + scale) + shift * self.spread

    def _bottleneck(self, x: torch.Tensor, pieces: list[torch.Tensor]) -> torch.Tensor:
        down, down_bias, up, up_bias = (piece[:, None] for piece in pieces)
        hidden = down @ (x / self.spread).flatten(3) + down_bias[..., None]  # [K, B, r, H * W]
        out = up @ functional.gelu(hidden) + up_bias[..., None]
        return x + self.layout.scale * self.spread * out.reshape(-1, *x.shape[1:])


class AdapterCnn(nn.Module):
    """``network`` (its classifier taken off) with adapters of ``layout`` behind its blocks; all frozen.

    ``spreads`` are those of all blocks, as ``channel_spreads`` measures them; ``image_side`` is S and ``width`` D. The
    network is changed: its blocks are wrapped.
    """

    def __init__(
        self, network: nn.Module, layout: AdapterLayout, spreads: list[torch.Tensor], image_side: int, width: int
    ) -> None:
        super().__init__()
        self.layout, self.image_side, self.feature_size = layout, image_side, width
        self.network = network.eval().requires_grad_(False)
        self._present = _Run()
        names = list(blocks_of(network))
        for index in layout.blocks:
            block = network.get_submodule(names[index])
            network.set_submodule(names[index], _AdaptedBlock(block, index, layout, spreads[index], self._present))

    def forward(self, images: torch.Tensor, adapters: torch.Tensor) -> torch.Tensor:
        """Features float32 [K, B, D] of ``images`` float32 [B, 3, S, S] under ``adapters`` float32 [K, P]."""
        self._present.pieces, self._present.pictures = cut(adapters, self.layout), images.shape[0]
        try:
            features: torch.Tensor = self.network(images)
        finally:
            # A tensor made while torch traces must not outlive its trace.
            self._present.pieces = {}
        return features.reshape(adapters.shape[0], images.shape[0], self.feature_size)


def check_supported(network: nn.Module) -> None:
    """Raise InputError unless the network is a chain of blocks that end in one feature a picture."""
    kind = type(network).__name__
    if kind not in FAMILIES or not blocks_of(network):
        raise InputError(
            f"This backbone is a {kind}, which is not supported; supported are {SUPPORTED} and plain ViTs."
        )


def blocks_of(network: nn.Module) -> dict[str, nn.Module]:
    """The blocks by their names in the network, in the order in which they run."""
    stages = [(name, getattr(network, name)) for name in _STAGES if hasattr(network, name)]
    return {name: block for stage in stages for name, block in _chained(*stage)}


def _chained(name: str, module: Any) -> list[tuple[str, nn.Module]]:
    if hasattr(module, "blocks"):
        return _chained(f"{name}.blocks", module.blocks)  # a stage that first makes the picture smaller
    if type(module).__name__ not in _CHAINS:
        return [(name, module)]
    return [found for child in module.named_children() for found in _chained(f"{name}.{child[0]}", child[1])]


def channel_spreads(network: nn.Module, images: np.ndarray) -> list[torch.Tensor]:
    """The spread of each channel of each block's output, float32 [C], over ``images`` float32 [n, 3, S, S]."""
    found: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        found.append(_spread(output))

    hooks = [block.register_forward_hook(keep) for block in blocks_of(network).values()]
    try:
        with torch.no_grad():
            network.eval()(torch.from_numpy(images))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _spread(output: torch.Tensor) -> torch.Tensor:
    spread = output.double().std(dim=(0, 2, 3), correction=0)
    spread = spread.clamp(min=max(_LEAST_SPREAD * float(spread.mean()), 1e-6))
    mantissa, exponent = torch.frexp(spread)
    return torch.ldexp(torch.round(mantissa * 2**_SPREAD_BITS) / 2**_SPREAD_BITS, exponent).float()


def feature_size(network: nn.Module, side: int) -> int:
    """D, found by a run at S = ``side``. Raises InputError if the network gives no such vector."""
    try:
        with torch.no_grad():
            features: torch.Tensor = network.eval()(torch.zeros(1, 3, side, side))
    except RuntimeError as error:
        raise InputError(f"This backbone cannot be run at {side} pixels; choose a larger --img-size.") from error
    return int(features.shape[-1])
