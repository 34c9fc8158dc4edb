"""ViTs of every kind that export supports, with a few thousand random weights: 48 wide, 3 blocks, 32 pixels."""

from __future__ import annotations

import timm
import torch

from edge_zofc.export.adapters import adapter_layout, film_layout
from edge_zofc.export.vit import FILM_PLACES, AdapterViT

WIDTH = 48
_SIZES = {"img_size": 32, "embed_dim": WIDTH, "depth": 3, "num_heads": 3, "num_classes": 0}


def tiny_vit(name: str = "vit_tiny_patch16_224", **changes: object) -> torch.nn.Module:
    """A timm model in eval mode; small weights are spread so that every part matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = timm.create_model(name, **{**_SIZES, **changes})
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()


def tiny_film(name: str = "vit_tiny_patch16_224", blocks: tuple[int, ...] = (1, 2), **changes: object) -> AdapterViT:
    """``tiny_vit`` with films on ``blocks``."""
    return AdapterViT(tiny_vit(name, **changes), film_layout(dict.fromkeys(blocks, WIDTH), FILM_PLACES))


def tiny_model(name: str = "vit_tiny_patch16_224", blocks: tuple[int, ...] = (1, 2), **changes: object) -> AdapterViT:
    """``tiny_vit`` with adapters of rank 3 on ``blocks``."""
    return AdapterViT(tiny_vit(name, **changes), adapter_layout(WIDTH, blocks, 3, 0.1))
