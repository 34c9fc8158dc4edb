"""``edge-zofc bench soak``: thousands of steps of one run, watched for what grows, leaks or drifts.

Every 50 steps resident memory and open file handles are noted; every 1,000 and at the end the adapter in memory is
compared with what the journal on the disk replays to, bit for bit. At the end: what replaying took against learning,
in processor time, so that a busy machine does not count.

The run is learnt by a process of its own, as on a device: torch, which ``edge-zofc bench`` loads, is not in it.

What may surprise: the slope is a least-squares line through the samples after the first fifth of the steps, in MiB an
hour of this run. A fast run turns one page into a large slope, so the growth itself stands beside it; and as each task
adds its classes to what is known, the slope within tasks alone is the one that tells of a leak.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.benchmarks.costs.setup import machine_state
from edge_zofc.device.system import usage
from edge_zofc.engine.disk_plan import stream_sizes
from edge_zofc.engine.run import learn_run
from edge_zofc.engine.setup import Request
from edge_zofc.engine.trainer import Session
from edge_zofc.errors import EdgeZofcError, InputError
from edge_zofc.storage import journal
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.run_folder import JOURNAL

SAMPLE_STEPS = 50
COMPARE_STEPS = 1000
WARM_FRACTION = 0.2
RESULT = "soak.json"
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
    """Learn, watch, print; returns 1 if the adapter drifted from its journal (or never moved), or handles were left."""
    if options.steps < 4 * SAMPLE_STEPS:
        raise InputError(f"--steps is {options.steps}, it must be at least {4 * SAMPLE_STEPS}.")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        bundle = read_bundle(options.bundle or _small_bundle(place / "bundle"))
        stream = options.stream or _noise_stream(place / "stream", bundle.manifest.image.size)
        words = [bundle.folder, stream, place, options.steps, options.batch_size, options.queries]
        command = [sys.executable, "-m", "edge_zofc.benchmarks.costs.soak", *map(str, words)]
        code = subprocess.run(command, check=False).returncode  # noqa: S603 - our own command
        if code:
            return code
        found = json.loads((place / RESULT).read_text())
    print(json.dumps(found) if options.json else _text(found))  # noqa: T201 - this is the program's output
    proved = found["replays_to_the_same_bits"] and found["adapter_moved_by"] > 0
    return 0 if proved and found["handles_grew_by"] <= 0 else 1


@dataclass
class Watch:
    """Samples (seconds, resident bytes, open handles, task), and how often the adapter was compared with its journal.

    ``samples`` float64 [n, 4] is as long as it gets from the start: what watches growth must not grow.
    """

    bundle: Bundle
    samples: np.ndarray
    started: float = field(default_factory=time.monotonic)
    taken: int = 0
    compared: int = 0
    same: bool = True
    replay_seconds: float = 0.0
    all_replays_seconds: float = 0.0
    theta: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    before: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    def step(self, session: Session, loss: float) -> None:
        """Called after each step."""
        done = session.state.progress.step
        # A step is told before it is journalled, so that the journal ends with the step before.
        if done % COMPARE_STEPS == 0:
            self.before = session.state.adapter.theta.copy()
        elif done % COMPARE_STEPS == 1 and done > 1:
            self.compare(session.folder, self.before)
        if done % SAMPLE_STEPS == 0 and self.taken < len(self.samples):
            handles = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0  # noqa: PTH208
            task, seconds = len(session.state.progress.tasks) - 1, time.monotonic() - self.started
            self.samples[self.taken] = seconds, usage().rss_bytes, handles, task
            self.taken += 1
        self.theta = session.state.adapter.theta

    def compare(self, run: Path, theta: np.ndarray) -> None:
        """Replay the journal that is on the disk and compare."""
        began = time.process_time()
        header, _ = journal.read(run / JOURNAL)
        start = self.bundle.initial_adapter()
        adapter = Adapter(start, header.seed, header.eps, header.momentum, header.optimizer)
        journal.replay(run / JOURNAL, adapter)
        self.replay_seconds = time.process_time() - began
        self.all_replays_seconds += self.replay_seconds
        self.same = self.same and adapter.theta.tobytes() == theta.tobytes()
        self.compared += 1


def soak(
    bundle: Bundle, stream: Path, run: Path, steps: int, batch_size: int, queries: int
) -> dict[str, Any]:
    """Learn at least ``steps`` steps and say what was seen."""
    a_round = sum(-(-task.train_images // batch_size) for task in stream_sizes(stream) if task.classes > 1)
    epochs = -(-steps // a_round)
    changes = {"epochs": epochs, "batch_size": batch_size, "queries": queries}
    watch = Watch(bundle, np.zeros((epochs * a_round // SAMPLE_STEPS, 4)))
    began = time.process_time()
    result = learn_run(Request(bundle.folder, stream, run, changes=changes), watch.step)
    learnt = time.process_time() - began - watch.all_replays_seconds
    watch.compare(run, watch.theta)
    had_torch = "torch" in sys.modules  # before the machine's state is told, which names its version
    kept = watch.samples[int(watch.taken * WARM_FRACTION) : watch.taken]
    seconds, rss, handles, task = kept.T
    slope = float(np.polyfit(seconds / 3600, rss / MIB, 1)[0])
    return {
        "machine": machine_state(),
        "backbone": bundle.manifest.backbone.name,
        "adapter_parameters": bundle.manifest.adapter.size,
        "batch_size": batch_size,
        "queries": queries,
        "steps": result["steps"],
        "hours": round(float(seconds[-1]) / 3600, 4),
        "torch_was_loaded": had_torch,
        "rss_mib_first_and_last": [round(float(rss[at]) / MIB, 2) for at in (0, -1)],
        "rss_mib_an_hour": round(slope, 3),
        "rss_mib_an_hour_within_tasks": round(_slope_within(task, seconds / 3600, rss / MIB), 3),
        "rss_kib_grown_within_tasks": [
            int(inside[-1] - inside[0]) >> 10 for inside in (rss[task == number] for number in np.unique(task))
        ],
        "rss_kib_a_1000_steps": round(slope * 1024 * float(seconds[-1] - seconds[0]) / 3600
                                      / (SAMPLE_STEPS * (len(rss) - 1)) * 1000, 2),
        "handles": sorted({int(count) for count in handles}),
        "handles_grew_by": int(handles[-1] - handles[0]),
        "adapter_moved_by": float(np.abs(watch.theta - bundle.initial_adapter()).max()),
        "compared_with_replay": watch.compared,
        "replays_to_the_same_bits": watch.same,
        "journal_bytes": (run / JOURNAL).stat().st_size,
        "cpu_seconds_of_learning": round(learnt, 2),
        "cpu_seconds_of_replay": round(watch.replay_seconds, 3),
        "learning_over_replay": round(learnt / watch.replay_seconds, 1),
    }  # fmt: skip


def _slope_within(group: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """The least-squares slope that all groups share, each with a level of its own."""
    x, y = x.copy(), y.copy()
    for number in np.unique(group):
        inside = group == number
        x[inside] -= x[inside].mean()
        y[inside] -= y[inside].mean()
    return float(x @ y / max(x @ x, 1e-12))


def _small_bundle(folder: Path) -> Path:
    """Exported by a process of its own, so that torch does not lie in the memory that is watched."""
    words = ["--backbone", "vit_tiny_patch16_224", "--random-weights", "--img-size", "32", "--depth", "2"]
    command = [sys.executable, "-m", "edge_zofc", "export", str(folder), *words, "--rank", "2"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
    return folder


def _noise_stream(folder: Path, side: int) -> Path:
    """5 tasks of 2 classes of 20 + 4 pictures, whose colours scatter more within a class than between classes.

    Classes that are easy to tell apart have a loss of exactly 0: the adapter would stay where it is and drift nowhere.
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


def _child(bundle: str, stream: str, place: str, steps: str, batch_size: str, queries: str) -> int:
    """``soak`` in this process; the result goes into a file."""
    try:
        found = soak(
            read_bundle(Path(bundle)),
            Path(stream),
            Path(place) / "run",
            int(steps),
            int(batch_size),
            int(queries),
        )
    except EdgeZofcError as error:
        print(f"edge-zofc: {error}", file=sys.stderr)  # noqa: T201 - as the command line says it
        return error.exit_code
    (Path(place) / RESULT).write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(_child(*sys.argv[1:]))
