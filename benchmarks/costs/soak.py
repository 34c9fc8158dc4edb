"""``edge-zofc bench soak``: thousands of steps of one run, watched for what grows, leaks or drifts.

Every 50 steps resident memory and open file handles are noted. Every 1,000 steps, and at the end, the adapter in memory
is compared bit for bit with what the journal on the disk replays to. The end also tells the processor time of learning
over that of replaying.

The run is learnt by a process of its own, without torch, as on a device (``soak_child.py``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edge_zofc.benchmarks.process import command, edge_zofc, wait_for
from edge_zofc.errors import InputError
from edge_zofc.storage.bundle import read_bundle

SAMPLE_STEPS = 50
RESULT = "soak.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench soak``."""
    parser.add_argument("--steps", metavar="N", type=int, default=5000, help="at least (default: 5000)")
    parser.add_argument(
        "--bundle", metavar="FOLDER", type=Path, help="(default: two blocks of 192 at 32 px, random weights)"
    )
    parser.add_argument("--stream", metavar="FOLDER", type=Path, help="(default: 5 tasks of 2 classes of noise)")
    parser.add_argument("--batch-size", metavar="N", type=int, default=8, help="(default: 8)")
    parser.add_argument("--queries", metavar="Q", type=int, default=4, help="queries a step (default: 4)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def main(options: argparse.Namespace) -> int:
    """Learn, watch, print. Returns 1 if the adapter drifted from its journal or never moved, or handles were left.

    Raises InputError. If the child fails, returns its exit code.
    """
    if options.steps < 4 * SAMPLE_STEPS:
        raise InputError(f"--steps is {options.steps}, it must be at least {4 * SAMPLE_STEPS}.")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        bundle = read_bundle(options.bundle or small_bundle(place / "bundle"))
        stream = options.stream or noise_stream(place / "stream", bundle.manifest.image.size)
        words = [bundle.folder, stream, place, options.steps, options.batch_size, options.queries]
        code = wait_for(command("edge_zofc.benchmarks.costs.soak_child", *words))
        if code:
            return code
        found = json.loads((place / RESULT).read_text())
    print(json.dumps(found) if options.json else _text(found))  # noqa: T201 - this is the program's output
    proved = found["replays_to_the_same_bits"] and found["adapter_moved_by"] > 0
    return 0 if proved and found["handles_grew_by"] <= 0 else 1


def small_bundle(folder: Path) -> Path:
    """Export the default bundle to ``folder``."""
    words = ["--backbone", "vit_tiny_patch16_224", "--random-weights", "--img-size", "32", "--depth", "2"]
    edge_zofc("export", folder, *words, "--rank", "2")
    return folder


def noise_stream(folder: Path, side: int) -> Path:
    """5 tasks of 2 classes of 20 + 4 pictures, whose colours vary more within a class than between classes.

    Classes that are easy to tell apart have a loss of exactly 0. Then the adapter stays where it is and cannot drift.
    """
    draw = np.random.default_rng(0)
    for number in range(10):
        colour = draw.normal(128, 10, 3)
        for part, count in (("train", 20), ("test", 4)):
            place = folder / f"{number // 2:03d}_noise" / part / f"class{number}"
            place.mkdir(parents=True)
            for index in range(count):
                tint = colour + draw.normal(0, 60, 3)
                pixels = np.clip(tint + draw.normal(0, 20, (side, side, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{index}.png")
    return folder


def _text(found: dict[str, Any]) -> str:
    return "\n".join(f"{name:28} {value}" for name, value in found.items() if name != "machine")
