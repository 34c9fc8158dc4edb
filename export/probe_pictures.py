"""The pictures that an export is checked on: photographs and drawn ones in turn, or the user's own.

The photographs are random crops of the two that matplotlib brings along as sample data; where a packager left
them out, all are drawn.

What may surprise: the drawn ones are meant to look like photographs to a network, not to a person: smooth
light, 1/f texture, and shapes with hard edges, so that activations get the spread that real pictures give them
(pure noise gives them less, and fidelity would look better than it is).
"""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib
import numpy as np

from edge_zofc.errors import ImageError, InputError
from edge_zofc.inference.transforms import load_test, load_train
from edge_zofc.storage.bundle import ImageSpec

_KEY = 0x50524F42
_PHOTOGRAPHS = ("sample_data/grace_hopper.jpg", "sample_data/Minduka_Present_Blue_Pack.png")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def probe_pictures(spec: ImageSpec, count: int, folder: Path | None = None) -> np.ndarray:
    """``count`` network inputs float32 [count, 3, S, S]: the built-in ones, or readable ones in ``folder``.

    The folder is searched in name order, sub-folders included, and its pictures are spread evenly over the order
    so that several classes are seen. Raises InputError if it holds fewer than ``count``.
    """
    if folder is None:
        return np.stack([_built_in(index, spec) for index in range(count)])
    if not folder.is_dir():
        raise InputError(f"--pictures {folder} is not a folder.")
    paths = sorted(
        Path(parent) / name
        for parent, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(_SUFFIXES)
    )
    found: list[np.ndarray] = []
    stride = max(1, len(paths) // count)
    # Evenly spread first; the others stand in for those that cannot be read.
    for path in [path for start in range(stride) for path in paths[start::stride]]:
        try:
            found.append(load_test(path, spec))
        except ImageError:
            continue
        if len(found) == count:
            return np.stack(found)
    raise InputError(
        f"--pictures {folder} holds {len(found)} readable pictures (jpg, png, webp), not {count}."
    )


def _built_in(index: int, spec: ImageSpec) -> np.ndarray:
    photographs = [
        path for name in _PHOTOGRAPHS if (path := Path(matplotlib.get_data_path(), name)).is_file()
    ]
    if photographs and index % 2 == 0:
        return load_train(photographs[index // 2 % len(photographs)], spec, (_KEY, index))
    mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (spec.mean, spec.std))
    return np.asarray((draw_picture(index, spec.size) - mean) / std, dtype=np.float32)


def draw_picture(index: int, size: int) -> np.ndarray:
    """A deterministic picture float32 [3, size, size] in [0, 1]."""
    random = np.random.Generator(np.random.Philox(key=np.array([index, _KEY], dtype=np.uint64)))
    down, across = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    light = random.uniform(-0.4, 0.4, (3, 2))
    picture = (
        random.uniform(0.3, 0.7, 3)[:, None, None] + light[:, :1, None] * down + light[:, 1:, None] * across
    )
    picture += 0.15 * _texture(random, size)
    for _ in range(4):
        inside = _shape(random, down, across)
        colour = random.uniform(0, 1, 3)[:, None, None] + 0.1 * _texture(random, size)
        picture = np.where(inside, colour, picture)
    picture += 0.02 * random.standard_normal((3, size, size))
    return np.asarray(np.clip(picture, 0, 1), dtype=np.float32)


def _texture(random: np.random.Generator, size: int) -> np.ndarray:
    """Noise [1, size, size] of unit variance whose amplitude falls as 1 / frequency, as in natural scenes."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.standard_normal((size, size))) / frequency
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return np.asarray((noise / noise.std())[None])


def _shape(random: np.random.Generator, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """A mask [size, size] of a turned ellipse or rectangle somewhere in the picture."""
    angle, (row, column) = random.uniform(0, np.pi), random.uniform(-0.8, 0.8, 2)
    high, wide = random.uniform(0.1, 0.6, 2)
    y = (np.cos(angle) * (down - row) + np.sin(angle) * (across - column)) / high
    x = (np.cos(angle) * (across - column) - np.sin(angle) * (down - row)) / wide
    return np.asarray(np.hypot(x, y) < 1 if random.integers(2) else np.maximum(abs(x), abs(y)) < 1)
