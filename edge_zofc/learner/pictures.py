"""What a person gives as a picture -> what is read, and what is kept."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from edge_zofc.errors import ImageError
from edge_zofc.inference.decode import read_file

Picture: TypeAlias = "np.ndarray | Image.Image | bytes | str | Path"
"""RGB pixels uint8 [H, W, 3], a Pillow picture, the bytes of a picture file, or its path."""
Pictures: TypeAlias = "list[Picture] | tuple[Picture, ...]"
JPEG_QUALITY = 95


def as_list(pictures: Picture | Pictures) -> list[Picture]:
    """One picture or several, as a list; pixels uint8 [n, H, W, 3] are several."""
    if isinstance(pictures, np.ndarray):
        return list(pictures) if pictures.ndim == 4 else [pictures]
    return [pictures] if isinstance(pictures, (Image.Image, bytes, str, Path)) else list(pictures)


def as_input(picture: Picture, name: str) -> tuple[bytes | np.ndarray, str]:
    """Bytes of a picture file, or RGB pixels uint8 [H, W, 3], and what to call it."""
    if isinstance(picture, (str, Path)):
        return read_file(Path(picture)), str(picture)
    if isinstance(picture, bytes):
        return picture, name
    pixels = np.asarray(picture.convert("RGB") if isinstance(picture, Image.Image) else picture)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ImageError(f"{name} is {pixels.dtype} {pixels.shape}; give RGB pixels as uint8 [height, width, 3].")
    return pixels, name


def as_file(picture: Picture, name: str) -> bytes:
    """The bytes that are kept of a picture."""
    found = as_input(picture, name)[0]
    if isinstance(found, bytes):
        return found
    file = io.BytesIO()
    Image.fromarray(found).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
