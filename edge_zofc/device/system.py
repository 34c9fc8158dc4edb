"""What the kernel says: the board, the cgroup's limits, and what memory this process uses.

In a container the limit that ends a process is the cgroup's, which /proc/meminfo does not show. It may be set on any
cgroup above the process's own; the smallest one counts. So it is with the CPU time that a container is given.

Anonymous memory (arrays, activations, prepacked weights) has to be there. File-backed memory (libraries, mapped
weights) the kernel can drop and read again. Both count into the resident set (RSS). The kernel keeps the peak RSS since
the process began. The peaks of the two parts are sampled every 20 ms: they may lie at different moments, and a shorter
spike may be missed.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import threading
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Board:
    """The machine this runs on. ``model`` is the device tree's, or "" where there is none (a PC).

    ``cpu_count`` are the CPUs that this process may be put on, ``cgroup_cpus`` how many of them its cgroup may keep
    busy: 0.5 is half of one.
    """

    model: str
    machine: str
    cpu_count: int
    mem_total_bytes: int
    mem_available_bytes: int
    cgroup_limit_bytes: int | None
    cgroup_cpus: float | None = None

    @property
    def usable_bytes(self) -> int:
        """MemAvailable, or the cgroup's limit where that is smaller."""
        limit = self.cgroup_limit_bytes
        return self.mem_available_bytes if limit is None else min(self.mem_available_bytes, limit)

    @property
    def usable_cpus(self) -> int:
        """Threads that can be kept busy: the CPUs, or the cgroup's share of them rounded up; at least 1."""
        share = self.cpu_count if self.cgroup_cpus is None else min(self.cpu_count, ceil(self.cgroup_cpus))
        return max(share, 1)


def board(root: Path = Path("/")) -> Board:
    """The board that this process sees; ``root`` is for tests."""
    memory = psutil.virtual_memory()
    return Board(
        model=_text(root / "proc/device-tree/model").strip("\0 \n"),
        machine=platform.machine(),
        cpu_count=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        mem_total_bytes=int(memory.total),
        mem_available_bytes=int(memory.available),
        cgroup_limit_bytes=cgroup_limit_bytes(root),
        cgroup_cpus=cgroup_cpus(root),
    )


def cgroup_limit_bytes(root: Path = Path("/")) -> int | None:
    """The smallest memory limit on this process's cgroup or one above it, v1 or v2; None without one.

    A limit above the machine's memory counts as none. ``root`` is for tests.
    """
    folders = _cgroup_folders(root, "memory")
    names = {"cgroup": "memory.limit_in_bytes", "cgroup2": "memory.max"}
    texts = [_text(folder / names[kind]).strip() for kind, folder in folders]
    limits = [int(text) for text in texts if re.fullmatch("[0-9]{1,29}", text)]
    total = psutil.virtual_memory().total
    return min((limit for limit in limits if 0 < limit < total), default=None)


def cgroup_cpus(root: Path = Path("/")) -> float | None:
    """The smallest CPU quota on this process's cgroup or one above it, v1 or v2, in CPUs; None without one.

    ``root`` is for tests.
    """
    shares = []
    for kind, folder in _cgroup_folders(root, "cpu"):
        if kind == "cgroup2":
            quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
        else:
            quota, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        # "max" and -1 mean that there is none.
        if re.fullmatch("[0-9]{1,18}", quota) and re.fullmatch("[0-9]{1,18}", period) and int(period):
            shares.append(int(quota) / int(period))
    return min((share for share in shares if share > 0), default=None)


def _cgroup_folders(root: Path, controller: str) -> list[tuple[str, Path]]:
    """("cgroup" or "cgroup2", folder) from this process's cgroup up to the top that is mounted here."""
    own: dict[str, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            own["cgroup2"] = path
        elif controller in controllers.split(","):
            own["cgroup"] = path
    found = []
    for line in _text(root / "proc/self/mountinfo").splitlines():
        # "36 35 98:0 /root /mounted/at rw - kind source options" (proc_pid_mountinfo(5)).
        left, _, right = line.partition(" - ")
        place, kinds = left.split(" "), right.split(" ")
        kind = kinds[0]
        if len(place) < 5 or kind not in own or (kind == "cgroup" and controller not in kinds[-1].split(",")):
            continue
        mounted, point = (field.replace("\\040", " ") for field in place[3:5])
        top = root / point.lstrip("/")
        # In a container the mount shows the tree from ``mounted`` down, and the path may repeat it.
        inside = own[kind].removeprefix(mounted if mounted != "/" else "").strip("/")
        parts = [part for part in inside.split("/") if part not in ("", "..")]
        found += [(kind, top.joinpath(*parts[:depth])) for depth in range(len(parts), -1, -1)]
    return found


def _text(path: Path) -> str:
    """A small file of the kernel's, "" where it does not exist or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""


_STATUS = Path("/proc/self/status")
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Usage:
    """Resident bytes: all, anonymous, file-backed (shared memory included). The parts are None but on Linux."""

    rss_bytes: int
    anonymous_bytes: int | None
    file_bytes: int | None


def usage() -> Usage:
    """What this process has resident now."""
    found = _process(os.getpid()).memory_info()
    shared = getattr(found, "shared", None)  # Linux alone tells: file-backed pages and shared memory
    return Usage(int(found.rss), None if shared is None else int(found.rss - shared), shared)


@cache
def _process(number: int) -> psutil.Process:
    """By its number, as a fork is another process."""
    return psutil.Process(number)


def stack_bytes() -> int:
    """Address space that a new thread's stack reserves (8 MiB where it is not limited)."""
    if not sys.platform.startswith("linux"):
        return 0
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return 8 << 20 if soft == resource.RLIM_INFINITY else min(soft, 64 << 20)


def data_bytes() -> int | None:
    """VmData, what RLIMIT_DATA limits: private writable mappings, reserved or touched; None but on Linux."""
    return _status_bytes().get("VmData")


def _status_bytes() -> dict[str, int]:
    """The sizes in /proc/self/status in bytes by name; empty where there is none."""
    lines = (line.partition(":") for line in _text(_STATUS).splitlines())
    return {name: int(rest.split()[0]) << 10 for name, _, rest in lines if "kB" in rest}


class PeakSampler:
    """Samples this process's memory on a daemon thread between ``start`` and ``stop``, or inside a ``with``.

    ``peak`` and ``now`` may be called at any time, from any thread.
    """

    def __init__(self, interval_seconds: float = SAMPLE_SECONDS) -> None:
        self._interval_seconds = interval_seconds
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._peak = usage()

    def __enter__(self) -> PeakSampler:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin sampling; a second call changes nothing."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end the thread."""
        self.now()
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def now(self) -> Usage:
        """Resident bytes at this moment; they count into the peak."""
        found = usage()
        with self._lock:
            self._peak = Usage(
                max(self._peak.rss_bytes, found.rss_bytes),
                larger(self._peak.anonymous_bytes, found.anonymous_bytes),
                larger(self._peak.file_bytes, found.file_bytes),
            )
        return found

    def peak(self) -> Usage:
        """The largest of each number so far; RSS since the process began, where the kernel keeps a mark."""
        self.now()
        sampled = self._peak
        high_water = _status_bytes().get("VmHWM", 0)
        return Usage(max(sampled.rss_bytes, high_water), sampled.anonymous_bytes, sampled.file_bytes)

    def _run(self) -> None:
        while not self._stop.wait(self._interval_seconds):
            self.now()


def larger(first: int | None, second: int | None) -> int | None:
    """The larger of two measurements, either of which may be unknown."""
    return second if first is None else first if second is None else max(first, second)


def mib(count: int | None) -> float | None:
    """Mebibytes to two decimals, as results and events give them; None stays None."""
    return None if count is None else round(count / 2**20, 2)
