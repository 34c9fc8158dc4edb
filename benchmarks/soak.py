"""``edge-zofc bench soak``: thousands of steps of one run, watched for what grows, leaks or drifts.

Every 50 steps resident memory and open file handles are noted; every 1,000 and at the end the adapter in memory is
compared with what the journal on the disk replays to, bit for bit. At the end: what replaying took against learning,
in processor time, so that a busy machine does not count.

What may surprise: the slope is a least-squares line through the samples after the first fifth of the steps, in MiB an
hour of this run. A fast run turns one page into a large slope, so the growth itself stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from edge_zofc.benchmarks.cost_setup import machine_state
from PIL import Image

from edge_zofc import journal
from edge_zofc.adapter import Adapter
from edge_zofc.bundle import Bundle, read_bundle
from edge_zofc.child import module_command
from edge_zofc.disk import stream_sizes
from edge_zofc.errors import InputError
from edge_zofc.run import learn_run
from edge_zofc.run_folder import JOURNAL
from edge_zofc.session import Session
from edge_zofc.settle import Request
from edge_zofc.usage import usage

SAMPLE_STEPS = 50
COMPARE_STEPS = 1000
WARM_FRACTION = 0.2
MIB = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench soak``."""
    parser.add_argument("--steps", metavar="N", type=int, default=5000, help="at least (default: 5000)")
    parser.add_argument(
        "--bundle", metavar="FOLDER", type=Path, help="(default: two blocks of 192 at 32 px, random weights)"
    )
    parser.add_argument(
        "--stream", metavar="FOLDER", type=Path, help="(default: 5 tasks of 2 classes of noise)"
    )
    parser.add_argument("--batch-size", metavar="N", type=int, default=8)
    parser.add_argument("--queries", metavar="Q", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def main(options: argparse.Namespace) -> int:
    """Learn, watch, print; returns 1 if the adapter drifted from its journal or handles were left open."""
    if options.steps < 10 * SAMPLE_STEPS:
        raise InputError(f"--steps is {options.steps}, it must be at least {10 * SAMPLE_STEPS}.")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        bundle = read_bundle(options.bundle or _small_bundle(place / "bundle"))
        stream = options.stream or _noise_stream(place / "stream", bundle.manifest.image.size)
        found = soak(bundle, stream, place / "run", options.steps, options.batch_size, options.queries)
    print(json.dumps(found) if options.json else _text(found))  # noqa: T201 - this is the program's output
    return 0 if found["replays_to_the_same_bits"] and found["handles_grew_by"] <= 0 else 1


@dataclass
class Watch:
    """Samples (seconds, resident bytes, open handles), and how often the adapter was compared with its journal."""

    bundle: Bundle
    started: float = field(default_factory=time.monotonic)
    samples: list[tuple[float, int, int]] = field(default_factory=list)
    compared: int = 0
    same: bool = True
    replay_seconds: float = 0.0
    theta: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    def step(self, session: Session, loss: float) -> None:
        """Called after each step."""
        done = session.state.progress.step
        if done % COMPARE_STEPS == 0:
            self.compare(session.folder, session.state.adapter.theta)
        if done % SAMPLE_STEPS == 0:
            handles = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0  # noqa: PTH208
            self.samples.append((time.monotonic() - self.started, usage().rss_bytes, handles))
        self.theta = session.state.adapter.theta

    def compare(self, run: Path, theta: np.ndarray) -> None:
        """Replay the journal that is on the disk and compare."""
        began = time.process_time()
        header, _ = journal.read(run / JOURNAL)
        start = self.bundle.initial_adapter()
        adapter = Adapter(start, header.seed, header.eps, header.momentum, header.optimizer)
        journal.replay(run / JOURNAL, adapter)
        self.replay_seconds = time.process_time() - began
        self.same = self.same and adapter.theta.tobytes() == theta.tobytes()
        self.compared += 1


def soak(
    bundle: Bundle, stream: Path, run: Path, steps: int, batch_size: int, queries: int
) -> dict[str, Any]:
    """Learn at least ``steps`` steps and say what was seen."""
    a_round = sum(-(-task.train_images // batch_size) for task in stream_sizes(stream) if task.classes > 1)
    changes = {"epochs": -(-steps // a_round), "batch_size": batch_size, "queries": queries}
    watch = Watch(bundle)
    began = time.process_time()
    result = learn_run(Request(bundle.folder, stream, run, changes=changes), watch.step)
    learnt = time.process_time() - began
    watch.compare(run, watch.theta)
    seconds, rss, handles = (
        np.array(column, np.float64) for column in zip(*watch.samples[_warm(watch) :], strict=True)
    )
    slope = float(np.polyfit(seconds / 3600, rss / MIB, 1)[0])
    return {
        "machine": machine_state(),
        "backbone": bundle.manifest.backbone.name,
        "adapter_parameters": bundle.manifest.adapter.size,
        "batch_size": batch_size,
        "queries": queries,
        "steps": result["steps"],
        "hours": round(watch.samples[-1][0] / 3600, 4),
        "rss_mib_first_and_last": [round(float(rss[at]) / MIB, 2) for at in (0, -1)],
        "rss_mib_an_hour": round(slope, 3),
        "rss_kib_a_1000_steps": round(slope * 1024 * float(seconds[-1] - seconds[0]) / 3600
                                      / (SAMPLE_STEPS * (len(rss) - 1)) * 1000, 2),
        "handles": sorted({int(count) for count in handles}),
        "handles_grew_by": int(handles[-1] - handles[0]),
        "compared_with_replay": watch.compared,
        "replays_to_the_same_bits": watch.same,
        "journal_bytes": (run / JOURNAL).stat().st_size,
        "cpu_seconds_of_learning": round(learnt, 2),
        "cpu_seconds_of_replay": round(watch.replay_seconds, 3),
        "learning_over_replay": round(learnt / watch.replay_seconds, 1),
    }  # fmt: skip


def _warm(watch: Watch) -> int:
    return int(len(watch.samples) * WARM_FRACTION)


def _small_bundle(folder: Path) -> Path:
    """Exported by a process of its own, so that torch does not lie in the memory that is watched."""
    words = ["--backbone", "vit_tiny_patch16_224", "--random-weights", "--img-size", "32", "--depth", "2"]
    command = module_command("edge_zofc", "export", str(folder), *words, "--rank", "2")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
    return folder


def _noise_stream(folder: Path, side: int) -> Path:
    """5 tasks of 2 classes of 20 + 4 pictures, each class with a colour of its own."""
    draw = np.random.default_rng(0)
    for number in range(10):
        colour = draw.uniform(0, 255, 3)
        for part, count in (("train", 20), ("test", 4)):
            place = folder / f"{number // 2:03d}_noise" / part / f"class{number}"
            place.mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(colour + draw.normal(0, 60, (side, side, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")
    return folder


def _text(found: dict[str, Any]) -> str:
    return "\n".join(f"{name:28} {value}" for name, value in found.items() if name != "machine")
