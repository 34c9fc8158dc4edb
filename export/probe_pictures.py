"""The pictures that an export is checked on: photographs of the package, or the user's own.

Noise would not do: it spreads the activations less than photographs do, and fidelity would look better than it is.
"""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path

import numpy as np

from edge_zofc.data.folders import SUFFIXES
from edge_zofc.errors import ImageError, InputError
from edge_zofc.inference.transforms import load_test
from edge_zofc.storage.manifest import ImageSpec


def probe_pictures(spec: ImageSpec, count: int, folder: Path | None = None) -> np.ndarray:
    """``count`` network inputs float32 [count, 3, S, S] from ``folder``, or from the package's eight photographs.

    The folder is searched in name order, sub-folders included. The pictures are taken evenly over that order, so that
    several classes are seen. Raises InputError if fewer than ``count`` can be read.
    """
    if folder is None:
        with importlib.resources.as_file(importlib.resources.files(__package__) / "pictures") as own:
            return _read(own, spec, count)
    if not folder.is_dir():
        raise InputError(f"--pictures {folder} is not a folder.")
    return _read(folder, spec, count)


def _read(folder: Path, spec: ImageSpec, count: int) -> np.ndarray:
    paths = sorted(
        Path(parent) / name for parent, _, names in os.walk(folder) for name in names if name.lower().endswith(SUFFIXES)
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
    raise InputError(f"--pictures {folder} holds {len(found)} readable pictures (jpg, png, webp), not {count}.")
