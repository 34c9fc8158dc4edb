"""Exports that take a second: a ViT of two blocks at 32 pixels, with random weights."""

from __future__ import annotations

TINY = {"backbone": "vit_tiny_patch16_224", "random_weights": True, "img_size": 32, "depth": 2, "adapter_blocks": "1"}
TINY_COMMAND = [
    "--backbone", "vit_tiny_patch16_224", "--random-weights", "--img-size", "32", "--depth", "2", "--no-gradient",
]  # fmt: skip
