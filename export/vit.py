"""A frozen timm ViT with small parallel adapters whose weights come from outside, as one flat vector each.

Block by block this is ZO-FC's adapter (arXiv 2510.21019: ``x + LS(MLP(n)) + scale * (W2 GELU(W1 n +
b1) + b2)`` with ``n`` the output of ``norm2``), but for K adapters at once on the same B pictures.

Patch embedding, every block before the first adapter, and that block's own attention and MLP run once on B pictures.
Only from the first adapter's output on are there K * B. With adapters on late blocks the K queries of a step share most
of the network.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from timm.models import vision_transformer as timm_vit
from torch import nn
from torch.nn import functional

from edge_zofc.algorithm.adapter import LATTICE_STEP
from edge_zofc.errors import InputError
from edge_zofc.storage.manifest import AdapterLayout, AdapterPiece

SUPPORTED = (
    "timm VisionTransformer models (ViT, DeiT, AugReg, DINO, DINOv2) with plain pre-norm blocks, LayerNorm, "
    "GELU and class-token or average pooling"
)
MAX_RANK = 256
# timm is typed in part only. Names move between its modules from version to version; this module has them all.
_timm: Any = timm_vit
_ADAPTER_KEY = 0x41444150  # keeps the initial adapter apart from other Philox streams of the same seed


class AdapterViT(nn.Module):
    """``vit`` (its classifier ignored) with adapters of ``layout`` in parallel to the MLPs; all frozen.

    ``vit`` is used as it is: put into eval mode, its parameters set to need no gradient. Raises InputError
    if its architecture is not supported.
    """

    def __init__(self, vit: nn.Module, layout: AdapterLayout) -> None:
        super().__init__()
        check_supported(vit)
        self.add_module("vit", vit.eval().requires_grad_(False))
        self.layout = layout
        if max(layout.blocks) >= len(self.timm_model.blocks):
            raise InputError(f"An adapter is on block {max(layout.blocks)}, of {len(self.timm_model.blocks)} blocks.")

    @property
    def timm_model(self) -> Any:
        """The wrapped model. Any, because timm's attributes are typed too vaguely to be used."""
        return self.vit

    def forward(self, images: torch.Tensor, adapters: torch.Tensor) -> torch.Tensor:
        """Features float32 [K, B, D] of ``images`` float32 [B, 3, S, S] under ``adapters`` float32 [K, P]."""
        vit, count = self.timm_model, len(adapters)
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))  # [B, T, D], from the first adapter on [K*B, T, D]
        tokens, width = x.shape[1:]
        for index, block in enumerate(vit.blocks):
            x = x + block.ls1(block.attn(block.norm1(x)))
            n = block.norm2(x)
            x = x + block.ls2(block.mlp(n))
            if index in self.layout.blocks:
                shape = (-1, len(images) * tokens, width)  # [1 or K, B*T, D]
                x = x.reshape(shape) + self._adapter(index, n.reshape(shape), adapters)
                x = x.reshape(count * len(images), tokens, width)
        features: torch.Tensor = vit.fc_norm(vit.pool(vit.norm(x)))
        return features.reshape(count, len(images), width)

    def _adapter(self, block: int, n: torch.Tensor, adapters: torch.Tensor) -> torch.Tensor:
        """The adapter's output [K, rows, D] for ``n`` [1 or K, rows, D]."""
        down, down_bias, up, up_bias = (
            adapters[:, piece.offset : piece.offset + piece.size].reshape(-1, *piece.shape)
            for piece in pieces_of_block(self.layout, block)
        )
        hidden = functional.gelu(n @ down.transpose(1, 2) + down_bias[:, None])
        return self.layout.scale * (hidden @ up.transpose(1, 2) + up_bias[:, None])


def pieces_of_block(layout: AdapterLayout, block: int) -> tuple[AdapterPiece, ...]:
    """The four pieces of one block in the order down.weight, down.bias, up.weight, up.bias."""
    return tuple(piece for piece in layout.pieces if piece.name.startswith(f"blocks.{block}."))


def adapter_layout(width: int, blocks: tuple[int, ...], rank: int, scale: float) -> AdapterLayout:
    """Where the pieces of adapters of ``rank`` on ``blocks`` of a ViT of ``width`` D lie in the flat vector.

    Raises InputError if there is no block, a block twice or a rank outside 1..MAX_RANK.
    """
    if not blocks or len(set(blocks)) != len(blocks) or min(blocks) < 0:
        raise InputError(f"Adapter blocks must be distinct block numbers from 0, got {list(blocks)}.")
    if not 1 <= rank <= MAX_RANK:
        raise InputError(f"The adapter's rank must be 1 to {MAX_RANK}, got {rank}.")
    if not math.isfinite(scale) or scale == 0.0:
        raise InputError(f"The adapter's scale must be a finite number other than 0, got {scale}.")
    pieces: list[AdapterPiece] = []
    offset = 0
    for block in sorted(blocks):
        for name, shape in (
            ("down.weight", (rank, width)),
            ("down.bias", (rank,)),
            ("up.weight", (width, rank)),
            ("up.bias", (width,)),
        ):
            pieces.append(AdapterPiece(name=f"blocks.{block}.{name}", shape=shape, offset=offset))
            offset += pieces[-1].size
    return AdapterLayout(blocks=tuple(sorted(blocks)), rank=rank, scale=scale, pieces=tuple(pieces))


def initial_adapter(layout: AdapterLayout, seed: int) -> np.ndarray:
    """The starting point, float32 [P] on the lattice: the identity, since every up-projection is zero.

    ``down.weight`` is uniform on +-1/sqrt(D), which is kaiming_uniform with a = sqrt(5); the rest is zero.
    """
    flat = np.zeros(layout.size, dtype=np.float64)
    for index, piece in enumerate(layout.pieces):
        if piece.name.endswith("down.weight"):
            bound = 1.0 / math.sqrt(piece.shape[1])
            flat[piece.offset : piece.offset + piece.size] = bound * _uniform(seed, index, piece.size)
    return on_lattice(flat)


def on_lattice(values: np.ndarray) -> np.ndarray:
    """``values`` rounded to multiples of 2^-22, as float32."""
    return np.asarray(np.rint(values / LATTICE_STEP) * LATTICE_STEP, dtype=np.float32)


def _uniform(seed: int, stream: int, size: int) -> np.ndarray:
    """float64 [size], uniform on [-1, 1), from raw Philox words: the same under every numpy version."""
    key = np.array([seed, _ADAPTER_KEY], dtype=np.uint64)
    counter = np.array([0, stream, 0, 0], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(size)
    return np.asarray((words >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0)


def check_supported(vit: nn.Module) -> None:
    """Raise InputError unless the graph writer knows every part of ``vit``."""
    reason = _unsupported_part(vit)
    if reason is not None:
        raise InputError(f"This backbone has {reason}, which is not supported; supported are {SUPPORTED}.")


def _unsupported_part(vit: Any) -> str | None:
    if type(vit) is not _timm.VisionTransformer:
        return f"the class {type(vit).__name__}"
    if vit.attn_pool is not None or vit.global_pool not in ("token", "avg"):
        return f"'{vit.global_pool}' pooling"
    embed = vit.patch_embed
    if type(embed) is not _timm.PatchEmbed or embed.dynamic_img_pad:
        return f"a {type(embed).__name__} as patch embedding"
    if embed.img_size[0] != embed.img_size[1] or embed.proj.in_channels != 3:
        return f"inputs of {embed.proj.in_channels} x {embed.img_size[0]} x {embed.img_size[1]}"
    for norm in (embed.norm, vit.norm_pre, vit.norm, vit.fc_norm):
        if not isinstance(norm, nn.LayerNorm | nn.Identity):
            return f"a {type(norm).__name__}"
    return next((reason for block in vit.blocks if (reason := _unsupported_in_block(block))), None)


def _unsupported_in_block(block: Any) -> str | None:
    if type(block) is not _timm.Block:
        return f"a {type(block).__name__}"
    attention, mlp = block.attn, block.mlp
    if type(attention) is not _timm.Attention:
        return f"a {type(attention).__name__}"
    if attention.num_heads * attention.head_dim != attention.qkv.in_features:
        return "attention heads whose widths do not add up to the model's"
    for name in ("q_norm", "k_norm", "norm", "gate"):
        if not isinstance(getattr(attention, name, None), nn.Identity | None):
            return f"an attention with {name}"
    if type(mlp) is not _timm.Mlp or not isinstance(mlp.norm, nn.Identity):
        return f"a {type(mlp).__name__} with {type(getattr(mlp, 'norm', None)).__name__} as MLP"
    if gelu_form(mlp.act) is None:
        return f"the activation {type(mlp.act).__name__}"
    for norm in (block.norm1, block.norm2):
        if not isinstance(norm, nn.LayerNorm):
            return f"a {type(norm).__name__}"
    for scale in (block.ls1, block.ls2):
        if not isinstance(scale, nn.Identity | _timm.LayerScale):
            return f"a {type(scale).__name__}"
    return None


def gelu_form(activation: nn.Module) -> str | None:
    """The ``approximate`` attribute of ONNX Gelu for a timm activation, or None if it is not a GELU."""
    if type(activation).__name__ == "GELUTanh":
        return "tanh"
    if type(activation).__name__ == "GELU":
        return str(getattr(activation, "approximate", "none"))
    return None
