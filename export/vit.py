"""A frozen timm ViT with small parallel adapters whose weights come from outside, as one flat vector each.

Block by block this is ZO-FC's adapter (arXiv 2510.21019: ``x + LS(MLP(n)) + scale * (W2 GELU(W1 n +
b1) + b2)`` with ``n`` the output of ``norm2``), but for K adapters at once on the same B pictures.

Patch embedding, every block before the first adapter, and that block's own attention and MLP run once on B pictures.
Only from the first adapter's output on are there K * B. With adapters on late blocks the K queries of a step share most
of the network.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import vision_transformer as timm_vit
from torch import nn
from torch.nn import functional

from edge_zofc.errors import InputError
from edge_zofc.export.adapters import cut, pieces_at
from edge_zofc.storage.manifest import AdapterLayout

SUPPORTED = (
    "timm VisionTransformer models (ViT, DeiT, AugReg, DINO, DINOv2) with plain pre-norm blocks, LayerNorm, "
    "GELU and class-token or average pooling"
)
# timm is typed in part only. Names move between its modules from version to version; this module has them all.
_timm: Any = timm_vit
FILM_PLACES = ("norm1.", "norm2.")
"""Where a block's films are: after each of its norms."""


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

    @property
    def image_side(self) -> int:
        """S: inputs are [B, 3, S, S]."""
        return int(self.timm_model.patch_embed.img_size[0])

    @property
    def feature_size(self) -> int:
        """D."""
        return int(self.timm_model.embed_dim)

    def forward(self, images: torch.Tensor, adapters: torch.Tensor) -> torch.Tensor:
        """Features float32 [K, B, D] of ``images`` float32 [B, 3, S, S] under ``adapters`` float32 [K, P]."""
        vit, pieces = self.timm_model, cut(adapters, self.layout)
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))[None]  # [1, B, T, D], from the first adapter on K
        for index, block in enumerate(vit.blocks):
            x = x + block.ls1(self._attention(block, self._film(index, "norm1.", block.norm1(x), pieces)))
            n = self._film(index, "norm2.", block.norm2(x), pieces)
            x = x + block.ls2(block.mlp(n))
            if index in self.layout.blocks and self.layout.kind == "bottleneck":
                x = x + self._bottleneck(index, n, pieces)
        features: torch.Tensor = vit.fc_norm(vit.pool(vit.norm(x.flatten(0, 1))))
        # len() would make a traced size a constant.
        return features.reshape(adapters.shape[0], images.shape[0], self.feature_size)

    def _attention(self, block: Any, n: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = block.attn(n.flatten(0, 1))
        return mixed.reshape(n.shape)

    def _film(self, block: int, place: str, n: torch.Tensor, pieces: dict[str, torch.Tensor]) -> torch.Tensor:
        """``n`` [1 or K, B, T, D] scaled and shifted, [K, B, T, D]; ``n`` itself where there is no film."""
        if block not in self.layout.blocks or self.layout.kind != "film":
            return n
        scale, shift = (pieces[piece.name] for piece in pieces_at(self.layout, block, place))
        return n * (1.0 + scale)[:, None, None] + shift[:, None, None]

    def _bottleneck(self, block: int, n: torch.Tensor, pieces: dict[str, torch.Tensor]) -> torch.Tensor:
        """The adapter's output [K, B, T, D] for ``n`` [1 or K, B, T, D]."""
        down, down_bias, up, up_bias = (pieces[piece.name] for piece in pieces_at(self.layout, block))
        rows = n.flatten(1, 2)
        hidden = functional.gelu(rows @ down.transpose(1, 2) + down_bias[:, None])
        out = self.layout.scale * (hidden @ up.transpose(1, 2) + up_bias[:, None])
        return out.reshape(-1, *n.shape[1:])


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
