"""Pictures for tests of decoding and transforming: smooth noise, encoded as wanted, and a small input's spec."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from PIL import Image

from edge_zofc.storage.manifest import ImageSpec

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


def spec(size: int = 16, crop_fraction: float = 1.0, interpolation: Interpolation = "bicubic") -> ImageSpec:
    return ImageSpec(
        size=size, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2), interpolation=interpolation, crop_fraction=crop_fraction
    )


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth noise: big soft blots, as pictures have."""
    rows = np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    return Image.fromarray(rows).resize((width, height), Image.Resampling.BICUBIC)


def blocks(seed: int = 0) -> bytes:
    """A JPEG of 96 x 96 pixels with hard edges, as sharp as a picture can be; two seeds have nothing in common."""
    rows = np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    return encoded(Image.fromarray(rows).resize((96, 96), Image.Resampling.NEAREST), "JPEG")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
