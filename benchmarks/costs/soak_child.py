"""The process that ``bench soak`` watches: it learns a run, and samples and compares while it does.

    python -m edge_zofc.benchmarks.costs.soak_child BUNDLE STREAM FOLDER STEPS BATCH_SIZE QUERIES

The slope of memory is a least-squares line through the samples after the first fifth of the steps, in MiB an hour of
this run. In a short run a single page gives a large slope, so the growth in KiB is told too. Each task adds classes,
so only the slope within tasks shows a leak.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.benchmarks.costs.machine import machine_state
from edge_zofc.benchmarks.costs.setup import MIB
from edge_zofc.benchmarks.costs.soak import RESULT, SAMPLE_STEPS
from edge_zofc.benchmarks.tables import write_json
from edge_zofc.data.stream import read_stream
from edge_zofc.device.system import usage
from edge_zofc.engine.run import learn_run
from edge_zofc.engine.setup import LearnRequest
from edge_zofc.engine.trainer import Trainer
from edge_zofc.engine.work import task_sizes
from edge_zofc.errors import EdgeZofcError
from edge_zofc.storage import journal
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.run_folder import JOURNAL

COMPARE_STEPS = 1000
WARM_FRACTION = 0.2
HANDLES = Path("/proc/self/fd")


@dataclass
class Watch:
    """Samples (seconds, resident bytes, open handles, task), and how often the adapter was compared with its journal.

    ``samples`` float64 [n, 4] has its full length from the start: what watches growth must not grow.
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

    def step(self, trainer: Trainer, loss: float) -> None:
        """Called after each step."""
        done = trainer.state.progress.step
        # A step is told before it is journalled, so the journal ends with the step before.
        if done % COMPARE_STEPS == 0:
            self.before = trainer.state.adapter.theta.copy()
        elif done % COMPARE_STEPS == 1 and done > 1:
            self.compare(trainer.run.path, self.before)
        if done % SAMPLE_STEPS == 0 and self.taken < len(self.samples):
            handles = sum(1 for _ in HANDLES.iterdir()) if HANDLES.is_dir() else 0
            task, seconds = len(trainer.state.progress.tasks) - 1, time.monotonic() - self.started
            self.samples[self.taken] = seconds, usage().rss_bytes, handles, task
            self.taken += 1
        self.theta = trainer.state.adapter.theta

    def compare(self, run: Path, theta: np.ndarray) -> None:
        """Replay the journal that is on the disk and compare its adapter with ``theta``."""
        began = time.process_time()
        header, _ = journal.read(run / JOURNAL)
        start = self.bundle.initial_adapter()
        adapter = Adapter(start, header.seed, header.eps, header.momentum, header.optimizer)
        journal.replay(run / JOURNAL, adapter)
        self.replay_seconds = time.process_time() - began
        self.all_replays_seconds += self.replay_seconds
        self.same = self.same and adapter.theta.tobytes() == theta.tobytes()
        self.compared += 1

    def memory(self) -> dict[str, Any]:
        """What the samples say about memory and handles, once the run has been warm."""
        seconds, rss, handles, task = self.samples[int(self.taken * WARM_FRACTION) : self.taken].T
        hours, rss_mib = seconds / 3600, rss / MIB
        slope = float(np.polyfit(hours, rss_mib, 1)[0])
        steps = SAMPLE_STEPS * (len(rss) - 1)
        by_task = [rss[task == number] for number in np.unique(task)]
        return {
            "hours": round(float(hours[-1]), 4),
            "torch_was_loaded": "torch" in sys.modules,
            "rss_mib_first_and_last": [round(float(rss_mib[at]), 2) for at in (0, -1)],
            "rss_mib_an_hour": round(slope, 3),
            "rss_mib_an_hour_within_tasks": round(slope_within(task, hours, rss_mib), 3),
            "rss_kib_grown_within_tasks": [int(inside[-1] - inside[0]) >> 10 for inside in by_task],
            "rss_kib_a_1000_steps": round(slope * 1024 * float(hours[-1] - hours[0]) / steps * 1000, 2),
            "handles": sorted({int(count) for count in handles}),
            "handles_grew_by": int(handles[-1] - handles[0]),
        }

    def replays(self, learning_seconds: float) -> dict[str, Any]:
        """How the adapter compared with its journal, and what learning took over replaying."""
        return {
            "adapter_moved_by": float(np.abs(self.theta - self.bundle.initial_adapter()).max()),
            "compared_with_replay": self.compared,
            "replays_to_the_same_bits": self.same,
            "cpu_seconds_of_learning": round(learning_seconds, 2),
            "cpu_seconds_of_replay": round(self.replay_seconds, 3),
            "learning_over_replay": round(learning_seconds / self.replay_seconds, 1),
        }


def soak(bundle: Bundle, stream: Path, run: Path, steps: int, batch_size: int, queries: int) -> dict[str, Any]:
    """Learn at least ``steps`` steps and return what was seen. Times are of the processor. Raises as ``learn_run``."""
    found = read_stream(stream)
    sizes = task_sizes(found, found.tasks)
    a_round = sum(-(-task.train_images // batch_size) for task in sizes if task.classes > 1)
    epochs = -(-steps // a_round)
    changes = {"loss": "head", "epochs": epochs, "batch_size": batch_size, "queries": queries}
    watch = Watch(bundle, np.zeros((epochs * a_round // SAMPLE_STEPS, 4)))
    began = time.process_time()
    result = learn_run(LearnRequest(bundle.folder, stream, run, changes=changes), watch.step)
    learning_seconds = time.process_time() - began - watch.all_replays_seconds
    watch.compare(run, watch.theta)
    memory = watch.memory()  # before machine_state imports torch
    return {
        "machine": machine_state(),
        "backbone": bundle.manifest.backbone.name,
        "adapter_parameters": bundle.manifest.adapter.size,
        "batch_size": batch_size,
        "queries": queries,
        "steps": result.steps,
        **memory,
        **watch.replays(learning_seconds),
        "journal_bytes": (run / JOURNAL).stat().st_size,
    }


def slope_within(group: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """The least-squares slope that all groups share, each with a level of its own."""
    x, y = x.copy(), y.copy()
    for number in np.unique(group):
        inside = group == number
        x[inside] -= x[inside].mean()
        y[inside] -= y[inside].mean()
    return float(x @ y / max(x @ x, 1e-12))


def main(bundle: str, stream: str, folder: str, *counts: str) -> int:
    """Write what ``soak`` returns into FOLDER; returns the exit code."""
    place = Path(folder)
    try:
        found = soak(read_bundle(Path(bundle)), Path(stream), place / "run", *map(int, counts))
    except EdgeZofcError as error:
        sys.stderr.write(f"edge-zofc: {error}\n")
        return error.exit_code
    write_json(place / RESULT, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
