"""Shares of devices that saw made-up features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.fleet.sharing import adapter_sha256
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.share import Share, encode

NAMES = ("cup", "fork", "jar", "pot", "thé")


def seen(features: np.ndarray, labels: np.ndarray) -> tuple[tuple[str, ...], Statistics]:
    """What a device knows that saw these pictures: its classes in the order that it met them, its own ids."""
    ids = list(dict.fromkeys(labels.tolist()))
    statistics = Statistics.empty(len(ids), features.shape[1])
    statistics.add(features.astype(np.float32), np.array([ids.index(label) for label in labels.tolist()], np.int64))
    return tuple(NAMES[i] for i in ids), statistics


def made_share(
    name: str = "d7", classes: Sequence[int] = (0, 1), each: int = 12, size: int = 6, seed: int = 0, **changes: Any
) -> Share:
    """A device that saw ``each`` pictures of each class; classes are clouds around means that all devices share.

    ``changes``: other fields of the share; ``scale`` makes all features longer.
    """
    scale = changes.pop("scale", 1.0)
    generator = np.random.default_rng([seed, *name.encode()])
    means = 2 * np.random.default_rng(0).normal(size=(len(NAMES), size))
    labels = np.repeat(np.array(classes, np.int64), each)
    names, statistics = seen(scale * (means[labels] + generator.normal(size=(len(labels), size))), labels)
    given: dict[str, Any] = {
        "name": name,
        "number": 4,
        "bundle_identity": "ab" * 32,
        "adapter_sha256": "cd" * 32,
        "normalise": True,
        "class_names": names,
        "statistics": statistics,
    }
    return Share(**{**given, **changes})


def write_share(folder: Path, bundle: Bundle, name: str = "d7", **more: Any) -> Path:
    """The file of ``made_share`` for a bundle; ``more`` are its arguments."""
    size = bundle.manifest.feature_size
    given = {"bundle_identity": bundle.identity, "adapter_sha256": adapter_sha256(bundle), "size": size}
    path = folder / f"{name}-{more.get('number', 4)}.share"
    path.write_bytes(encode(made_share(name, **{**given, **more})))
    return path
