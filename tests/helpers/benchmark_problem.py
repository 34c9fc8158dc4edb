"""A stream of coloured squares and a tiny random ViT: what the benchmark tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

from edge_zofc.benchmarks.methods.problem import Problem, read_tasks
from edge_zofc.data.stream import read_stream
from edge_zofc.export.adapters import adapter_layout
from edge_zofc.export.vit import AdapterViT
from edge_zofc.storage.manifest import ImageSpec

SPEC = ImageSpec(size=16, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_fraction=1.0)
COLOURS = {"blue": (40, 60, 200), "green": (60, 180, 70), "red": (210, 50, 40), "yellow": (230, 220, 60)}
PER_CLASS = 12


def tiny_vit(width: int = 32, depth: int = 3) -> Any:
    """A ViT on 16 x 16 pictures with 4 patches and random weights, the same every time.

    Its linear layers are as large as a trained one's: with timm's initial 0.02 a block adds next to nothing to
    a token, and what a prompt's output says of the picture is lost.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        vit = timm.models.VisionTransformer(
            img_size=16, patch_size=8, embed_dim=width, depth=depth, num_heads=2, num_classes=0
        )
        with torch.no_grad():
            for parameter in vit.blocks.parameters():
                if parameter.ndim == 2:
                    parameter.normal_(0, 1 / parameter.shape[1] ** 0.5)
    return vit.eval()


def write_stream(root: Path) -> Path:
    """Two tasks of two colours, 12 training and 4 test pictures a class, each a noisy plain square."""
    noise = np.random.default_rng(5)
    for index, (name, colour) in enumerate(COLOURS.items()):
        for number in range(PER_CLASS + 4):
            part = "train" if number < PER_CLASS else "test"
            folder = root / f"{index // 2:03}_task" / part / name
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.clip(np.array(colour) + noise.normal(0, 25, (16, 16, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
    return root


def tiny_model(vit: Any, blocks: tuple[int, ...] = (0, 1, 2), rank: int = 5) -> AdapterViT:
    """The ViT with the paper's adapters."""
    return AdapterViT(vit, adapter_layout(vit.num_features, blocks, rank, 0.1))


def tiny_problem(root: Path, seed: int = 3, blocks: tuple[int, ...] = (0, 1, 2), rank: int = 5) -> Problem:
    """The problem of ``write_stream``'s folder."""
    torch.manual_seed(seed)
    return Problem(tiny_model(tiny_vit(), blocks, rank), SPEC, read_tasks(read_stream(root)), seed)
