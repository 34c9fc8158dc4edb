"""Real ``edge-zofc learn`` processes for the cost benchmarks: a stream, a child, and a cgroup around it.

What may surprise: a page of a file is charged to the cgroup that read it first. Libraries that other processes
use already are therefore not charged to the child; the bundle is, as its pages are dropped from the cache
beforehand. So the process's own peak RSS stands beside each limit: a limit above it holds without any doubt.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edge_zofc.errors import InputError

MIB = 1 << 20
STEPS = 2
_MAIN = "import sys; from edge_zofc.cli.main import main; sys.exit(main())"


@dataclass(frozen=True)
class Learnt:
    """How a ``learn`` process ended. ``code`` is negative for a signal; ``result`` is its ``--json``, or {}.

    ``steps`` is how many it was asked for, None where it was to learn its whole stream.
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


def write_stream(
    folder: Path, count: int, side: int, tasks: int = 1, classes: int = 2, tested: int = 0
) -> Path:
    """``tasks`` of ``classes`` new classes each, with ``count`` JPEGs to learn from and ``tested`` to test with.

    The first is a 12-megapixel picture as a camera takes it, which the plan makes room for.
    """
    generator = np.random.default_rng(1993)
    for task, (part, index) in itertools.product(
        range(tasks), [*(("train", i) for i in range(count)), *(("test", i) for i in range(tested))]
    ):
        place = folder / f"{task:03d}_task" / part / f"class{task:03d}_{index % classes:03d}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        size = (4000, 3000) if (task, part, index) == (0, "train", 0) else (side, side)
        Image.fromarray(coarse).resize(size).save(place / f"{index:04d}.jpg", quality=90)
    return folder


def learn(
    bundle: Path,
    stream: Path,
    budget_bytes: int,
    options: Sequence[str],
    limit_bytes: int | None = None,
    timeout_seconds: float = 1800.0,
    steps: int | None = STEPS,
) -> Learnt:
    """``edge-zofc learn`` in a child process, under a cgroup of ``limit_bytes`` where given.

    It does ``steps`` on a stream that is one batch long, or learns every task of its stream once (None).
    """
    with tempfile.TemporaryDirectory(prefix="edge-zofc-bench-") as folder:
        command = [
            *(sys.executable, "-c", _MAIN, "learn", "--json", "--epochs", str(steps or 1)),
            *(() if steps is None else ("--max-steps", str(steps))),
            *(
                "--bundle",
                str(bundle.absolute()),
                "--stream",
                str(stream.absolute()),
                "--run",
                f"{folder}/run",
            ),
            *("--memory-budget", f"{-(-budget_bytes // MIB)}MiB", *options),
        ]
        if limit_bytes is None:
            return _run(command, None, timeout_seconds, steps)
        drop_from_cache(bundle)
        with memory_cgroup(limit_bytes) as place:
            return _run(command, place, timeout_seconds, steps)


def _run(command: list[str], place: Path | None, timeout_seconds: float, steps: int | None = STEPS) -> Learnt:
    enter = [] if place is None else ["sh", "-c", f'echo $$ > "{place}/cgroup.procs" && exec "$@"', "sh"]
    started = time.monotonic()
    # This very package, in this very interpreter; the shell only moves itself into the cgroup before.
    with subprocess.Popen(  # noqa: S603
        [*enter, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, errors = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
    seconds = time.monotonic() - started
    lines = out.strip().splitlines()
    found = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    said = errors.strip().splitlines()
    peak = None if place is None else _peak(place)
    return Learnt(process.returncode, seconds, found, said[-1] if said else "", peak, steps)


def drop_from_cache(folder: Path) -> None:
    """Ask the kernel to forget the cached pages of a folder's files; pages in use stay."""
    for path in folder.iterdir():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[Path]:
    """A memory cgroup below this process's own, with ``limit_bytes`` and no swap; removed afterwards.

    Raises InputError where none can be made (it takes root and a writable hierarchy).
    """
    parent, version = own_cgroup()
    place = parent / f"edge-zofc-bench-{os.getpid()}"
    limit, swap, value = (
        ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", str(limit_bytes))
        if version == 1
        else ("memory.max", "memory.swap.max", "0")
    )
    try:
        place.mkdir()
    except OSError as error:
        raise InputError(
            f"No memory cgroup can be made in {parent} ({error.strerror}); run as root."
        ) from error
    try:
        try:
            (place / limit).write_text(str(limit_bytes))
            if (place / swap).exists():
                (place / swap).write_text(value)
        except OSError as error:
            raise InputError(
                f"The limit of {place} cannot be set ({error.strerror}); give its parent the memory controller."
            ) from error
        yield place
    finally:
        place.rmdir()


def own_cgroup() -> tuple[Path, int]:
    """The memory cgroup of this process and its version. Raises InputError where there is none."""
    try:
        own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except OSError as error:
        raise InputError("Limits can be measured on Linux alone.") from error
    for left, right in mounts:
        kind, root, point = right.split()[0], left.split()[3], left.split()[4]
        for _, controllers, path in own:
            place = Path(point, path.removeprefix(root if root != "/" else "").strip("/"))
            in_v1 = "memory" in controllers.split(",") and "memory" in right.split()[-1].split(",")
            if kind == "cgroup" and in_v1:
                return place, 1
            file = place / "cgroup.controllers"
            if (
                kind == "cgroup2"
                and not controllers
                and file.exists()
                and "memory" in file.read_text().split()
            ):
                return place, 2
    raise InputError("There is no memory cgroup here to set a limit in.")


def _peak(place: Path) -> int | None:
    for name in ("memory.max_usage_in_bytes", "memory.peak"):
        if (place / name).exists():
            return int((place / name).read_text())
    return None
