"""Simulated fleets whose pictures are clouds of made-up features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_zofc.fleet.dealing import Wanted
from edge_zofc.fleet.world import Looked, World
from edge_zofc.storage.bundle import Bundle

CLASSES = 6


def made_world(bundle: Bundle, home: Path, each: int = 40, **wanted: Any) -> World:
    """``each`` training and a quarter as many test pictures of six classes; ``wanted`` are fields of ``Wanted``."""
    home.mkdir(parents=True, exist_ok=True)
    size, generator = bundle.manifest.feature_size, np.random.default_rng(0)
    means = generator.normal(size=(CLASSES, size))

    def looked(count: int) -> Looked:
        labels = np.repeat(np.arange(CLASSES), count)
        return Looked((means[labels] + generator.normal(size=(len(labels), size))).astype(np.float32), labels)

    names = tuple(f"class{number}" for number in range(CLASSES))
    given = Wanted(**{"devices": 12, "rounds": 3, "min_pictures": 1, **wanted})
    given.check()
    return World(home, given, bundle, names, looked(each), looked(each // 4))
