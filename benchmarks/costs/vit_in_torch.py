"""The forward pass of a ViT with adapters in torch, block by block, as first order at its best runs it.

Nothing below the first adapter records a graph. A block can be computed again in the backward pass. The last block
computes the class token alone where nothing else is read, as the exported graph does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint as recompute

from edge_zofc.export.adapters import cut
from edge_zofc.export.vit import AdapterViT


def vit_features(
    model: AdapterViT, images: Tensor, adapter: Tensor | None, checkpoint: bool, whole_last_block: bool = False
) -> Tensor:
    """Features [n, D] of ``images`` [n, 3, S, S]; the numbers of the model's own forward under ``adapter`` [P].

    None: without adapters, and every block may have a gradient. ``checkpoint``: blocks from the first adapter on are
    computed again in the backward pass. ``whole_last_block``: it computes every token.
    """
    vit: Any = model.timm_model
    first = 0 if adapter is None else min(model.layout.blocks)
    pieces = None if adapter is None else cut(adapter[None], model.layout)
    x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    for index in range(len(vit.blocks)):
        is_last = index == len(vit.blocks) - 1
        block = _block(model, index, pieces, is_last and vit.global_pool == "token" and not whole_last_block)
        is_recomputed = checkpoint and index >= first and torch.is_grad_enabled()
        x = recompute(block, x, use_reentrant=False) if is_recomputed else block(x)
    features: Tensor = vit.fc_norm(vit.pool(vit.norm(x)))
    return features


def _block(
    model: AdapterViT, index: int, pieces: dict[str, Tensor] | None, class_token_alone: bool
) -> Callable[[Tensor], Tensor]:
    block = model.timm_model.blocks[index]

    def film(place: str, n: Tensor) -> Tensor:
        return n if pieces is None else model._film(index, place, n[None], pieces)[0]

    def run(x: Tensor) -> Tensor:
        n = film("norm1.", block.norm1(x))
        mixed = _attention_of_class_token(block.attn, n) if class_token_alone else block.attn(n)
        x = (x[:, :1] if class_token_alone else x) + block.ls1(mixed)
        n = film("norm2.", block.norm2(x))
        x = x + block.ls2(block.mlp(n))
        if pieces is not None and model.layout.kind == "bottleneck" and index in model.layout.blocks:
            x = x + model._bottleneck(index, n[None], pieces)[0]
        return x

    return run


def _attention_of_class_token(attention: Any, n: Tensor) -> Tensor:
    """[B, T, D] -> the attention's output for the first token alone, [B, 1, D]."""
    width = n.shape[-1]
    weight, bias = attention.qkv.weight, attention.qkv.bias
    above, below = (None, None) if bias is None else (bias[:width], bias[width:])
    query = functional.linear(n[:, :1], weight[:width], above)
    keys, values = functional.linear(n, weight[width:], below).chunk(2, dim=-1)

    def heads(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], attention.num_heads, -1).transpose(1, 2)

    mixed = functional.scaled_dot_product_attention(heads(query), heads(keys), heads(values), scale=attention.scale)
    found: Tensor = attention.proj(mixed.transpose(1, 2).flatten(2))
    return found
