"""Real ``edge-zofc learn`` processes for the cost benchmarks: a stream, the command, and how it ended.

With a cgroup limit, the peak RSS of the process stands beside the limit. A limit above that peak holds in any case. A
limit below it may hold only because other processes have loaded the libraries already (``cgroup.py``).
"""

from __future__ import annotations

import itertools
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edge_zofc.benchmarks.costs.cgroup import drop_from_cache, inside, memory_cgroup, peak_bytes
from edge_zofc.benchmarks.costs.setup import MIB, SEED
from edge_zofc.benchmarks.process import Ended, command, run

STEPS = 2
CAMERA_PIXELS = (4000, 3000)


@dataclass(frozen=True)
class LearnCommand:
    """A ``learn`` to measure. ``options`` come after the bundle, the stream and the budget.

    It does ``steps`` steps on a stream that is one batch long, or, with None, every task of its stream once.
    """

    bundle: Path
    stream: Path
    budget_bytes: int
    options: Sequence[str]
    steps: int | None = STEPS

    def line(self, run_folder: Path) -> list[str]:
        """The command line."""
        steps = ["--epochs", 1] if self.steps is None else ["--epochs", self.steps, "--max-steps", self.steps]
        steps += ["--loss", "head"]  # which moves the adapter in tasks of any size
        folders = ["--bundle", self.bundle, "--stream", self.stream, "--run", run_folder]
        memory = ["--memory-budget", budget(self.budget_bytes)]
        return command("edge_zofc", "learn", "--json", *steps, *folders, *memory, *self.options)


@dataclass(frozen=True)
class Learnt:
    """How a ``learn`` process ended. ``code`` is negative for a signal; ``result`` is its ``--json``, or {}.

    ``steps`` is the number that it was asked for, None where it was to learn its whole stream.
    """

    code: int
    seconds: float
    result: dict[str, Any]
    message: str
    cgroup_peak_bytes: int | None
    steps: int | None = STEPS

    @property
    def completed(self) -> bool:
        """Whether it did its steps."""
        return self.code == 0 and self.steps in (None, self.result.get("steps"))

    @property
    def ending(self) -> str:
        """In a few words, how it ended."""
        if self.completed:
            return "completed"
        if self.code == -signal.SIGKILL:
            return "killed or out of time"
        return f"exit {self.code}: {self.message[:160]}"


def learn(asked: LearnCommand, limit_bytes: int | None = None, timeout_seconds: float = 1800.0) -> Learnt:
    """Run ``asked`` in a child process, in a cgroup of ``limit_bytes`` if that is given. Raises InputError."""
    with tempfile.TemporaryDirectory(prefix="edge-zofc-bench-") as folder:
        line = asked.line(Path(folder) / "run")
        if limit_bytes is None:
            return learnt(run(line, timeout_seconds), None, asked.steps)
        drop_from_cache(asked.bundle.iterdir())
        with memory_cgroup(limit_bytes) as place:
            ended = run(inside(place, line), timeout_seconds)
            return learnt(ended, peak_bytes(place), asked.steps)


def learnt(ended: Ended, cgroup_peak_bytes: int | None, steps: int | None) -> Learnt:
    """What an ended child learnt."""
    return Learnt(ended.code, ended.seconds, ended.answer, ended.message, cgroup_peak_bytes, steps)


def budget(count: int) -> str:
    """Bytes as ``--memory-budget`` takes them, rounded up to whole MiB."""
    return f"{-(-count // MIB)}MiB"


def write_stream(folder: Path, count: int, side: int, tasks: int = 1, classes: int = 2, tested: int = 0) -> Path:
    """``tasks`` of ``classes`` new classes each, with ``count`` JPEGs to learn from and ``tested`` to test with.

    The first picture has 12 megapixels, as a camera takes it. The plan makes room for such pictures.
    """
    generator = np.random.default_rng(SEED)
    for task, (part, index) in itertools.product(
        range(tasks), [*(("train", i) for i in range(count)), *(("test", i) for i in range(tested))]
    ):
        place = folder / f"{task:03d}_task" / part / f"class{task:03d}_{index % classes:03d}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        size = CAMERA_PIXELS if (task, part, index) == (0, "train", 0) else (side, side)
        Image.fromarray(coarse).resize(size).save(place / f"{index:04d}.jpg", quality=90)
    return folder
