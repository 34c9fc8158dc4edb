"""One picture file -> one network input: crop, resize, normalise; and augment, from a key."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from edge_zofc.algorithm.directions import uniform
from edge_zofc.inference.decode import decode, open_picture, pillow_errors
from edge_zofc.storage.manifest import ImageSpec

MAX_STRIP = 8
"""Of a longer strip only the middle, this many times as long as wide, is enlarged to be cropped."""
CROP_TRIES = 10
CROP_SCALE = (0.05, 1.0)
MILD_CROP_SCALE = (0.4, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
"""RandomResizedCrop as the authors of ZO-FC use it; the algorithm is torchvision's."""

_DRAWS = 4 * CROP_TRIES + 1
_TAG = int.from_bytes(b"image\0\0\0", "big")


class Crop(NamedTuple):
    """A rectangle in whole pixels of the upright picture."""

    left: int
    top: int
    width: int
    height: int


class Cropped(NamedTuple):
    """What the test transform cuts out of a picture, uint8 [S, S, 3], and how many pixels the whole picture has."""

    pixels: np.ndarray
    source_pixels: int


def load_test(path: Path, spec: ImageSpec, *, normalise: bool = True, out: np.ndarray | None = None) -> np.ndarray:
    """The test transform: short side to floor(size / crop_fraction), centre crop of S = size, x / 255, then
    (x - mean) / std unless ``normalise`` is False.

    Returns float32 [3, S, S], RGB, C-contiguous: ``out`` if given, which is written only if the picture is good.
    Raises ImageError. The numbers are those of timm's and torchvision's transforms on Pillow pictures; for strips and
    for JPEGs that are decoded smaller they are close to them.
    """
    return to_input(decode_test(path, spec).pixels, spec, normalise, out)


def decode_test(path: Path, spec: ImageSpec, data: bytes | None = None) -> Cropped:
    """The first half of ``load_test``, which takes most of its time; ``data``: the file's bytes, if they are there
    already, and ``path`` is then only its name. Raises ImageError.
    """
    scaled = math.floor(spec.size / spec.crop_fraction)
    with pillow_errors(path):
        opened = open_picture(path, data)
        width, height = opened.size
        pixels = _middle(decode(opened, min(width, height) / scaled, path), scaled, spec)
        return Cropped(np.asarray(pixels), width * height)


def crop_test(pixels: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """What the test transform cuts out of a picture that is decoded already: uint8 [H, W, 3] to uint8 [S, S, 3]."""
    return np.asarray(_middle(Image.fromarray(pixels), math.floor(spec.size / spec.crop_fraction), spec))


def load_train(
    path: Path,
    spec: ImageSpec,
    key: tuple[int, ...],
    *,
    normalise: bool = True,
    scale: tuple[float, float] = CROP_SCALE,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The training transform: RandomResizedCrop to S = size and a horizontal flip with probability 1/2, both fixed by
    ``key`` (see ``random_crop``); the rest as in ``load_test``. ``scale``: the share of a picture that a crop has.
    """
    with pillow_errors(path):
        opened = open_picture(path)
        width, height = opened.size
        crop, flip = random_crop(width, height, key, scale)
        pixels = decode(opened, min(crop.width, crop.height) / spec.size, path)
        x, y = pixels.width / width, pixels.height / height
        left, top = round(crop.left * x), round(crop.top * y)
        right, bottom = round((crop.left + crop.width) * x), round((crop.top + crop.height) * y)
        # Cut first, as torchvision does: pixels outside of the crop do not count at its edges.
        pixels = _resized(pixels.crop((left, top, right, bottom)), (spec.size, spec.size), spec)
        if flip:
            pixels = pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return to_input(np.asarray(pixels), spec, normalise, out)


def random_crop(
    width: int, height: int, key: tuple[int, ...], scale: tuple[float, float] = CROP_SCALE
) -> tuple[Crop, bool]:
    """The training crop of a ``width`` x ``height`` picture, in whole pixels, and whether it is flipped.

    The algorithm of torchvision's RandomResizedCrop: ten tries of area (uniform) and ratio (log-uniform); if none fits,
    the largest centred crop with an allowed ratio. ``key`` is (seed, task, epoch, image index), one to four integers:
    Philox key (key[0], tag + number of integers) and counter (0, key[1], key[2], key[3]). Try t uses words 4t to 4t + 3
    (area, ratio, top, left), the flip is word 40.
    """
    if not 1 <= len(key) <= 4:
        raise ValueError(f"a key has one to four integers, not {len(key)}")
    draws = uniform((key[0], _TAG + len(key)), key[1:], _DRAWS).tolist()
    flip = draws[-1] < 0.5
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    for first in range(0, 4 * CROP_TRIES, 4):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * draws[first])
        ratio = math.exp(low + (high - low) * draws[first + 1])
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(draws[first + 2] * (height - h + 1)), int(draws[first + 3] * (width - w + 1))
            return Crop(left, top, w, h), flip
    w, h = min(width, round(height * CROP_RATIO[1])), min(height, round(width / CROP_RATIO[0]))
    return Crop((width - w) // 2, (height - h) // 2, w, h), flip


def _middle(pixels: Image.Image, scaled: int, spec: ImageSpec) -> Image.Image:
    """Resize the short side to ``scaled``, cut out the middle: rounded as torchvision's Resize and CenterCrop do."""
    short, long = min(pixels.size), max(pixels.size)
    if long > MAX_STRIP * short:
        spare = (long - MAX_STRIP * short) // 2
        x, y = (spare, 0) if pixels.width > pixels.height else (0, spare)
        pixels = pixels.crop((x, y, pixels.width - x, pixels.height - y))
        long -= 2 * spare
    scaled_long = int(scaled * long / short)
    size = (scaled, scaled_long) if pixels.width <= pixels.height else (scaled_long, scaled)
    left, top = round((size[0] - spec.size) / 2.0), round((size[1] - spec.size) / 2.0)
    return _resized(pixels, size, spec).crop((left, top, left + spec.size, top + spec.size))


def _resized(pixels: Image.Image, size: tuple[int, int], spec: ImageSpec) -> Image.Image:
    return pixels.resize(size, Image.Resampling[spec.interpolation.upper()])


def to_input(pixels: np.ndarray, spec: ImageSpec, normalise: bool, out: np.ndarray | None) -> np.ndarray:
    """The second half of ``load_test``: ``pixels`` uint8 [S, S, 3] to float32 [3, S, S]."""
    shape = (3, spec.size, spec.size)
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(f"out must be C-contiguous float32 {shape}, not {out.dtype} {out.shape}")
    out[...] = pixels.transpose(2, 0, 1)
    out /= np.float32(255)
    if normalise:
        out -= np.array(spec.mean, np.float32)[:, None, None]
        out /= np.array(spec.std, np.float32)[:, None, None]
    return out
