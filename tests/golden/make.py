"""Write the known answers beside this file: ``python tests/golden/make.py [FOLDER]``.

    bundle/            a bundle of P = 1,000 adapter parameters; its graph is three bytes, since replaying needs none
    <name>.bin         the journal of a run of three tasks, rolled back once, for each of the adapter's optimizers, and
                       one with balanced directions, whose adapter goes back to its start amid the second task; and
                       one of exact gradients, shorter and with such a rest too
    answers.json       SHA-256 of the adapter (little-endian float32) where each journal ends and at places before,
                       and of some directions

The journals are the input: their coefficients and gradients are drawn here and stand in them. The answers were
computed on x86-64 once and are what every later version and every other processor must give; a change of bits needs a
new name of the scheme or the optimizer and a new format version, and then new files beside these. That these files come
from this script is tested too.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import cast

import numpy as np
from safetensors.numpy import save

from edge_zofc.algorithm.adapter import LATTICE_STEP, Optimizer
from edge_zofc.algorithm.directions import BALANCED, GRADIENT, SCHEME
from edge_zofc.storage import bundle, manifest
from edge_zofc.storage.journal import Header, Journal, Kind, Record

HERE = Path(__file__).parent
P, QUERIES, SEED, EPS, MOMENTUM = 1000, 4, 1993, 4194 * 2.0**-22, 0.9
RATES = {"sgd": 0.01, "sign": 5e-5, "conserve": 0.01, "adam": 5e-4, "balanced": 5e-4, "gradient": 2e-3}
SCHEMES: dict[str, tuple[str, Optimizer]] = {"balanced": (BALANCED, "adam"), "gradient": (GRADIENT, "adam")}
STEPS, GRADIENT_STEPS = (60, 50, 40), (12, 10, 8)
"""Steps of the three tasks; after the second the run goes back to the first and learns the second and third anew."""
RESTS = {"balanced": (1, 20), "gradient": (1, 5)}
"""The task, and its step before which the adapter goes back to its start. It stands in the task both times."""


def write_bundle(folder: Path) -> bundle.Bundle:
    """The bundle whose adapter is replayed."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.RandomState(1).randint(-(2**21), 2**21, P)  # numpy keeps RandomState's draws fixed
    theta = (numbers * LATTICE_STEP).astype(np.float32)
    probe = {
        "images": np.zeros((1, 3, 8, 8), np.float32),
        "adapters": theta[None],
        "features": np.zeros((1, 1, 2), np.float32),
    }
    contents = {
        manifest.GRAPH: b"abc",
        manifest.WEIGHTS: b"def",
        manifest.ADAPTER: save({"adapter": theta}),
        manifest.PROBE: save(probe),
    }
    files = {}
    for name, raw in contents.items():
        (folder / name).write_bytes(raw)
        files[name] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    pieces = [{"name": "down", "shape": [10, 60], "offset": 0}, {"name": "up", "shape": [40, 10], "offset": 600}]
    written = {
        "format_version": 1,
        "written_by": {"edge-zofc": "tests/golden/make.py"},
        "backbone": {"name": "none", "source": "random", "weights_sha256": "0" * 64, "depth": 1, "pooling": "avg"},
        "image": {"size": 8, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "crop_fraction": 1.0},
        "adapter": {"blocks": [0], "rank": 10, "scale": 0.1, "pieces": pieces},
        "feature_size": 2,
        "precision": "fp32",
        "fidelity": {"eps": 0.001, "directions": 64, "one_sided": 1.0, "two_sided": 1.0},
        "activation_bytes": {"fixed": 1, "per_image": 1, "per_image_and_adapter": 1},
        "files": files,
    }  # fmt: skip
    manifest.write_manifest(folder, manifest.Manifest.model_validate(written))
    return bundle.read_bundle(folder)


def write_journal(path: Path, identity: str) -> None:
    """A journal with coefficients of the size that a real run has, among them zeros and a few large ones."""
    draw = np.random.RandomState(2)
    scheme, optimizer = SCHEMES.get(path.stem) or (SCHEME, cast(Optimizer, path.stem))
    queries, steps = (0, GRADIENT_STEPS) if scheme == GRADIENT else (QUERIES, STEPS)
    header = Header(SEED, identity, P, EPS, MOMENTUM, queries, scheme, optimizer)
    path.unlink(missing_ok=True)
    with Journal.create(path, header) as log:
        step = 0
        for task, is_again in ((0, False), (1, False), (1, True), (2, True)):
            if task == 1 and is_again:
                step = steps[0]
                log.append(Record(Kind.ROLLBACK, 0, step))
            log.append(Record(Kind.TASK_START, task, step))
            for number in range(steps[task]):
                if (task, number) == RESTS.get(path.stem):
                    log.append(Record(Kind.REST, task, step))
                values = drawn(draw, queries or P)
                estimate = {"coefficients": tuple(values)} if queries else {"gradient": values}
                log.append(Record(Kind.STEP, task, step, RATES[path.stem], **estimate))
                step += 1
            log.append(Record(Kind.TASK_END, task, step))


def drawn(draw: np.random.RandomState, count: int) -> np.ndarray:
    """Numbers of many sizes, a twentieth of them zero: float64 [count]."""
    values = draw.standard_normal(count) * 10.0 ** draw.randint(-6, 2, count)
    values[draw.uniform(size=count) < 0.05] = 0.0
    return values


def main(folder: Path) -> None:
    """Write everything below ``folder``."""
    from replay_here import replayed

    folder.mkdir(parents=True, exist_ok=True)
    identity = write_bundle(folder / "bundle").identity
    for name in RATES:
        write_journal(folder / f"{name}.bin", identity)
    (folder / "answers.json").write_text(json.dumps(replayed(folder), indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
