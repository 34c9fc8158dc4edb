"""A provider of onnxruntime against the CPU: ``python -m edge_zofc.benchmarks.costs.gpu_features BUNDLE PROVIDER``.

Prints one JSON object. For each setting of ``use_tf32``: how far its features are from the CPU's on the same pictures,
and how its one-sided loss differences over random directions correlate with the CPU's. These differences are what
learning lives on. Then seconds for a batch of 48 pictures under 5 adapters, by micro-batch and adapters a run.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_zofc.algorithm.adapter import LATTICE_STEP, Adapter
from edge_zofc.algorithm.heads import Head
from edge_zofc.algorithm.spsa import BASE, queries
from edge_zofc.benchmarks.costs.setup import SEED
from edge_zofc.device.system import board
from edge_zofc.errors import InputError
from edge_zofc.inference.backbone import Backbone
from edge_zofc.inference.features import Pictures, query_features
from edge_zofc.inference.graph import CPU, Providers
from edge_zofc.inference.providers import choose_providers
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.settings import Placement

PICTURES, DIRECTIONS, CLASSES, EPS = 4, 32, 4, 1e-3
BATCH, QUERIES = 48, 4
MOVE = 0.02
"""The adapter is moved by up to this much first: at the start half of its gradient is exactly zero."""
OPTIONS: dict[str, dict[str, str]] = {"as it is": {}, "TF32 off": {"use_tf32": "0"}, "TF32 on": {"use_tf32": "1"}}


def main(arguments: list[str]) -> None:
    """Compare and time. Raises InputError if the provider does not start."""
    bundle, provider = read_bundle(Path(arguments[0])), arguments[1]
    is_cpu = provider == CPU[0][0]
    expected = measured(bundle, CPU)
    found: dict[str, Any] = {"compared": {}, "seconds": {"CPU 8 x 5": seconds(bundle, CPU, 8, 5)}}
    for name, options in OPTIONS.items():
        providers = _opened(provider, {} if is_cpu else options)
        found["compared"][name] = compared(measured(bundle, providers), expected)
        for micro, parallel in ((1, 1), (8, 5), (48, 5)) if name != "TF32 on" else ():
            found["seconds"][f"{name} {micro} x {parallel}"] = seconds(bundle, providers, micro, parallel)
    sys.stdout.write(json.dumps(found) + "\n")


def _opened(provider: str, options: dict[str, str]) -> Providers:
    chosen = choose_providers([(provider, options)])
    if chosen[0][0] != provider:
        raise InputError(f"{provider} does not start here; choose another with --provider.")
    return chosen


def measured(bundle: Bundle, providers: Providers) -> np.ndarray:
    """Features float32 [1 + DIRECTIONS, PICTURES, D] at a moved adapter and beside it."""
    backbone = Backbone(bundle, _placement(PICTURES, 1), providers)
    wanted = (BASE, *queries("one-sided", DIRECTIONS))
    return query_features(backbone, _moved(bundle), 1, wanted, _pictures(bundle, PICTURES))


def compared(found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Largest and relative error of the features, and the correlation of the loss differences."""
    first, second = _differences(found), _differences(expected)
    return {
        "largest_error": float(np.abs(found - expected).max()),
        "largest_feature": float(np.abs(expected).max()),
        "relative_error": float(np.linalg.norm(found - expected) / np.linalg.norm(expected)),
        "correlation_of_differences": float(np.corrcoef(first, second)[0, 1]),
        "relative_error_of_differences": float(np.linalg.norm(first - second) / np.linalg.norm(second)),
    }


def _differences(features: np.ndarray) -> np.ndarray:
    """L(theta + eps z) - L(theta), float64 [DIRECTIONS], under a fixed random head."""
    head = Head.empty(features.shape[-1])
    head.grow(np.random.default_rng(SEED).standard_normal((CLASSES, features.shape[-1])))
    losses = head.losses(features, np.arange(features.shape[1]) % CLASSES, np.arange(CLASSES))
    return np.asarray(losses[1:] - losses[0], np.float64)


def seconds(bundle: Bundle, providers: Providers, micro: int, parallel: int) -> float:
    """The fastest of two rounds, after one picture to warm up, of what a one-sided step runs."""
    backbone = Backbone(bundle, _placement(micro, parallel), providers)
    wanted, adapter = (BASE, *queries("one-sided", QUERIES)), _moved(bundle)
    query_features(backbone, adapter, 1, wanted, _pictures(bundle, 1))
    rounds = []
    for _ in range(2):
        began = time.perf_counter()
        query_features(backbone, adapter, 1, wanted, _pictures(bundle, BATCH))
        rounds.append(time.perf_counter() - began)
    return min(rounds)


def _placement(micro: int, parallel: int) -> Placement:
    return Placement.simple(micro, parallel).model_copy(update={"threads": board().cpu_count})


def _moved(bundle: Bundle) -> Adapter:
    start = bundle.initial_adapter()
    change = np.random.default_rng(SEED).uniform(-MOVE, MOVE, start.size)
    lattice = np.round(change / LATTICE_STEP).astype(np.float32) * np.float32(LATTICE_STEP)
    return Adapter(start + lattice, SEED, EPS, 0.9)


def _pictures(bundle: Bundle, count: int) -> Pictures:
    """The photographs of the bundle's probe, again and again."""
    photographs = bundle.probe().images

    def load(index: int, out: np.ndarray) -> None:
        out[:] = photographs[index % len(photographs)]

    return Pictures(count, load, lambda: None)


if __name__ == "__main__":
    main(sys.argv[1:])
