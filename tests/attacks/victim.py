"""What a victim is, and the smallest bundle that every reader takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from edge_zofc.storage import bundle, manifest
from edge_zofc.storage.bundle import read_bundle
from edge_zofc.storage.manifest import ImageSpec

P, D, SIDE = 12, 4, 8
SPEC = ImageSpec(size=SIDE, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_fraction=1.0)

Seal = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Victim:
    """``file`` is attacked, ``read`` reads it; ``codes`` are the exit codes that a bare change may end in (0: it is
    still good), ``sealed_codes`` those of a change whose hashes ``seal`` made right again; ``forged``: whole files that
    only somebody with bad intent writes.
    """

    name: str
    file: Path
    read: Callable[[], object]
    codes: set[int]
    sealed_codes: set[int] = field(default_factory=set)
    seal: Seal | None = None
    forged: Callable[[], Iterator[tuple[str, bytes]]] = lambda: iter(())

    def __str__(self) -> str:
        return self.name


def tiny_bundle(folder: Path) -> bundle.Bundle:
    """A bundle that every reader takes and no onnxruntime: its graph is three bytes."""
    folder.mkdir(parents=True)
    (folder / manifest.GRAPH).write_bytes(b"abc")
    (folder / manifest.WEIGHTS).write_bytes(bytes(40))
    (folder / manifest.GRADIENT_GRAPH).write_bytes(b"abcd")
    (folder / manifest.GRADIENT_WEIGHTS).write_bytes(bytes(8))
    theta = (np.arange(P, dtype=np.float32) - 5) * np.float32(2.0**-10)
    for name in (manifest.ADAPTER, manifest.UNTUNED):
        (folder / name).write_bytes(save({"adapter": theta}))
    probe = {
        "images": np.ones((1, 3, SIDE, SIDE), np.float32),
        "adapters": theta[None],
        "features": np.ones((1, 1, D), np.float32),
    }
    (folder / manifest.PROBE).write_bytes(save(probe))
    layout = {"blocks": [0], "rank": 1, "scale": 0.1, "pieces": [{"name": "down", "shape": [3, 4], "offset": 0}]}
    manifest.write_manifest(
        folder,
        manifest.Manifest.model_validate({
            "format_version": 7,
            "written_by": {"edge-zofc": "0.1.0"},
            "backbone": {"name": "tiny", "source": "random", "weights_sha256": "a" * 64, "depth": 1, "pooling": "avg"},
            "image": SPEC.model_dump(),
            "adapter": layout,
            "feature_size": D,
            "precision": "fp32",
            "fidelity": {"eps": 0.001, "directions": 64, "one_sided": 0.99, "two_sided": 1.0},
            "activation_bytes": {"fixed": 1, "per_image": 2, "per_image_and_adapter": 3},
            "gradient": {
                "error": 1e-6,
                "memory": [
                    {"prepacking": packed, "arena": arena, "anonymous": 1, "file": 2, "run": 3}
                    for packed in (True, False) for arena in (True, False)
                ],
            },
            "tuning": {
                "classes": 6, "held_back": 2, "pictures": 36, "steps": 100, "strength": 0.5, "seed": 1,
                "on_held_back": {"pictures": 16, "untuned": 0.5, "gain": 0.1, "low": -0.1, "high": 0.3},
                "on_all": {"pictures": 28, "untuned": 0.5, "gain": 0.1, "low": 0.0, "high": 0.2},
            },
            "files": {
                name: entry((folder / name).read_bytes())
                for name in (*manifest.FILES, *manifest.GRADIENT_FILES, manifest.UNTUNED)
            },
        }),
    )  # fmt: skip
    return read_bundle(folder)


def entry(raw: bytes) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}


def rewrite_manifest(folder: Path, name: str, raw: bytes) -> None:
    """Make the manifest agree with a file that was changed."""
    path = folder / manifest.MANIFEST
    data = json.loads(path.read_text())
    data["files"][name] = entry(raw)
    path.write_text(json.dumps(data))
