"""One plain forward pass through a frozen timm ViT with whatever a method adds to it.

    tokens   prompts put between the class token's place and the patches (L2P)
    prefix   extra keys and values in a block's attention (DualPrompt, CODA-Prompt)
    lora     something added to a block's keys and values (InfLoRA)
    adapter  a small network in parallel to a block's MLP (ZO-FC, APER, EASE) or attention (LAE)

The attention is written out, because prefixes and LoRA need its query, key and value. With nothing added the result is
that of timm's forward.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Prefix = tuple[Tensor, Tensor]
"""Keys and values, each [B, length, D] or [1, length, D], already projected."""


@dataclass(frozen=True)
class Parts:
    """What is added, by block number from 0.

    ``adapters`` map [B, T, D] after ``norm2`` to [B, T, D], ``beside_attention`` the same after ``norm1``. ``lora``
    maps [B, T, D] after ``norm1`` to what is added to keys and to values, [B, T, D] each. ``prompts`` is [B, n, D] or
    None. ``watch`` is called with (block, input of qkv).
    """

    adapters: dict[int, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    beside_attention: dict[int, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    lora: dict[int, Callable[[Tensor], tuple[Tensor, Tensor]]] = field(default_factory=dict)
    prefixes: dict[int, Prefix] = field(default_factory=dict)
    prompts: Tensor | None = None
    watch: Callable[[int, Tensor], None] | None = None


NOTHING = Parts()


def tokens(vit: Any, images: Tensor, parts: Parts = NOTHING) -> Tensor:
    """All output tokens after the final norm, [B, T + prompts, D], of ``images`` float32 [B, 3, S, S].

    With prompts the order is prompts, class token, patches, as L2P has it.
    """
    x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    if parts.prompts is not None:
        x = torch.cat([parts.prompts.expand(len(x), -1, -1), x], dim=1)
    for index, block in enumerate(vit.blocks):
        n = block.norm1(x)
        if parts.watch is not None:
            parts.watch(index, n)
        mixed = block.ls1(_attention(block.attn, n, parts.lora.get(index), parts.prefixes.get(index)))
        x = x + mixed + _beside(parts.beside_attention.get(index), n)
        n = block.norm2(x)
        x = x + block.ls2(block.mlp(n)) + _beside(parts.adapters.get(index), n)
    result: Tensor = vit.norm(x)
    return result


def features(vit: Any, images: Tensor, parts: Parts = NOTHING) -> Tensor:
    """The pooled feature [B, D] that the package's runtime gives too; parts must hold no prompts."""
    result: Tensor = vit.fc_norm(vit.pool(tokens(vit, images, parts)))
    return result


def _beside(adapter: Callable[[Tensor], Tensor] | None, n: Tensor) -> Tensor | float:
    return 0.0 if adapter is None else adapter(n)


def _attention(
    attention: Any, n: Tensor, lora: Callable[[Tensor], tuple[Tensor, Tensor]] | None, prefix: Prefix | None
) -> Tensor:
    q, k, v = attention.qkv(n).chunk(3, dim=-1)  # [B, T, D] each
    if lora is not None:
        more_k, more_v = lora(n)
        k, v = k + more_k, v + more_v
    if prefix is not None:
        k, v = (torch.cat([more.expand(len(n), -1, -1), own], dim=1) for more, own in zip(prefix, (k, v), strict=True))
    heads = [t.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for t in (q, k, v)]
    mixed = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
    result: Tensor = attention.proj(mixed.transpose(1, 2).flatten(2))
    return result


class TorchAdapter(nn.Module):
    """``scale * (up(activation(down(n))))``: down kaiming_uniform(a = sqrt 5) with zero bias, up all zero.

    ``activation`` "gelu" is ZO-FC's, "relu" AdaptFormer's (arXiv 2205.13535). ``scale`` None makes the
    scale a parameter that starts at 1 (LAE). 2 D r + r + D parameters, 8,453 for D = 768 and r = 5.
    """

    def __init__(self, width: int, rank: int, activation: str, scale: float | None) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, rank), nn.Linear(rank, width)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)
        self.scale = nn.Parameter(torch.ones(())) if scale is None else scale
        self.activation = functional.gelu if activation == "gelu" else functional.relu

    def forward(self, n: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        result: Tensor = self.scale * self.up(self.activation(self.down(n)))
        return result


class Adapters(nn.Module):
    """One ``TorchAdapter`` on each of ``blocks``."""

    def __init__(self, width: int, blocks: tuple[int, ...], rank: int, activation: str, scale: float | None) -> None:
        super().__init__()
        self.blocks = blocks
        self.adapters = nn.ModuleList([TorchAdapter(width, rank, activation, scale) for _ in blocks])

    def parts(self) -> Parts:
        """These adapters beside the MLPs, as parts of a forward pass."""
        return Parts(adapters=self.by_block())

    def by_block(self) -> dict[int, Callable[[Tensor], Tensor]]:
        """Block number -> adapter."""
        return dict(zip(self.blocks, self.adapters, strict=True))
