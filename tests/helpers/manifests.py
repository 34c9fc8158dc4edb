"""A bundle's manifest literally, and bundles whose manifest or files are changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from edge_zofc.storage import bundle, manifest

LITERAL = {
    "format_version": 1,
    "written_by": {"edge-zofc": "0.1.0"},
    "backbone": {"name": "n", "source": "package", "weights_sha256": "a" * 64, "depth": 1, "pooling": "token"},
    "image": {
        "size": 8, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "crop_fraction": 1.0,
    },
    "adapter": {
        "blocks": [0],
        "rank": 1,
        "scale": 0.1,
        "pieces": [{"name": "down", "shape": [1, 3], "offset": 0}, {"name": "up", "shape": [3, 1], "offset": 3}],
    },
    "feature_size": 3,
    "precision": "fp32",
    "fidelity": {"eps": 0.001, "directions": 64, "one_sided": 0.99, "two_sided": 1.0},
    "activation_bytes": {"fixed": 1, "per_image": 2, "per_image_and_adapter": 3},
    "files": {name: {"bytes": 0, "sha256": "b" * 64} for name in manifest.FILES},
}  # fmt: skip
GRADIENT = {
    "error": 0.5,
    "memory": [
        {"prepacking": True, "arena": True, "anonymous": 4, "file": 5},
        {"prepacking": True, "arena": False, "anonymous": 3, "file": 5},
        {"prepacking": False, "arena": True, "anonymous": 2, "file": 5},
        {"prepacking": False, "arena": False, "anonymous": 1, "file": 5},
    ],
}
GRADIENT_6 = {**GRADIENT, "memory": [{**way, "run": 7} for way in GRADIENT["memory"]]}  # type: ignore[attr-defined]
"""As it is where one session goes both ways."""
LITERAL_4 = {
    **LITERAL,
    "format_version": 4,
    "gradient": GRADIENT,
    "files": {
        name: {"bytes": 0, "sha256": "b" * 64}
        for name in (
            "backbone.onnx", "backbone.onnx.data", "adapter.safetensors", "probe.safetensors",
            "gradient.onnx", "gradient.onnx.data",
        )
    },
}  # fmt: skip
TUNING = {
    "classes": 6,
    "held_back": 2,
    "pictures": 36,
    "steps": 100,
    "strength": 0.5,
    "seed": 1993,
    "on_held_back": {"pictures": 16, "untuned": 0.5, "gain": 0.125, "low": -0.25, "high": 0.5},
    "on_all": {"pictures": 28, "untuned": 0.5, "gain": 0.25, "low": 0.125, "high": 0.375},
}


def tuned_bundle(plain: bundle.Bundle, folder: Path, start: np.ndarray, version: int = 7) -> bundle.Bundle:
    """A copy of ``plain`` whose adapter starts at ``start`` float32 [P], as if that had been tuned; format 5 has no
    other start.
    """
    shutil.copytree(plain.folder, folder)
    data = json.loads((folder / manifest.MANIFEST).read_text())
    names = [manifest.ADAPTER]
    if version >= manifest.UNTUNED_VERSION:
        (folder / manifest.ADAPTER).rename(folder / manifest.UNTUNED)
        names.append(manifest.UNTUNED)
    (folder / manifest.ADAPTER).write_bytes(save({"adapter": start}))
    for name in names:
        data["files"][name] = {"bytes": (folder / name).stat().st_size, "sha256": bundle.sha256_of(folder / name)}
    change(folder, {"format_version": version, "tuning": TUNING, "files": data["files"]})
    return bundle.read_bundle(folder)


def change(folder: Path, edit: dict[str, Any]) -> None:
    """Replace top-level entries of the manifest."""
    path = folder / manifest.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **edit}))


def rehash(folder: Path, name: str) -> None:
    """Make the manifest agree with a file that was changed, as somebody with bad intent would."""
    path = folder / manifest.MANIFEST
    data = json.loads(path.read_text())
    data["files"][name] = {"bytes": (folder / name).stat().st_size, "sha256": bundle.sha256_of(folder / name)}
    path.write_text(json.dumps(data))


def with_gradient(folder: Path, graph: bytes = b"graph") -> None:
    """The bundle's manifest with a gradient, and two files for it."""
    data = json.loads((folder / manifest.MANIFEST).read_text())
    for name, raw in ((manifest.GRADIENT_GRAPH, graph), (manifest.GRADIENT_WEIGHTS, b"")):
        (folder / name).write_bytes(raw)
        data["files"][name] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    change(folder, {"format_version": 4, "gradient": GRADIENT, "files": data["files"]})
