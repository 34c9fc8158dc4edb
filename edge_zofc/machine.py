"""The machine this runs on, as the kernel reports it: board, CPUs, memory, the cgroup's limit.

What may surprise: in a container the limit that ends a process is the cgroup's, which /proc/meminfo does not
show, and it may be set on any cgroup above the process's own; the smallest one counts.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Board:
    """The machine this runs on. ``model`` is the device tree's, or "" where there is none (a PC)."""

    model: str
    machine: str
    cpu_count: int
    mem_total_bytes: int
    mem_available_bytes: int
    cgroup_limit_bytes: int | None

    @property
    def usable_bytes(self) -> int:
        """MemAvailable, or the cgroup's limit where that is smaller."""
        limit = self.cgroup_limit_bytes
        return self.mem_available_bytes if limit is None else min(self.mem_available_bytes, limit)


def board(root: Path = Path("/")) -> Board:
    """Read the board: device tree, /proc/meminfo, CPUs this process may use. ``root`` is for tests."""
    total, available = _memory(root)
    return Board(
        model=_text(root / "proc/device-tree/model").strip("\0 \n"),
        machine=platform.machine(),
        cpu_count=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        mem_total_bytes=total,
        mem_available_bytes=available,
        cgroup_limit_bytes=cgroup_limit_bytes(root),
    )


def cgroup_limit_bytes(root: Path = Path("/")) -> int | None:
    """The smallest memory limit on this process's cgroup or one above it, v1 or v2; None without one.

    A limit above the machine's memory counts as none. ``root`` is for tests.
    """
    limits = [_limit(file) for file in _limit_files(root)]
    found = [limit for limit in limits if limit is not None and limit < _memory(root)[0]]
    return min(found, default=None)


def _limit_files(root: Path) -> list[Path]:
    """Limit files from this process's cgroup up to the top that is mounted here."""
    own: dict[str, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            own["cgroup2"] = path
        elif "memory" in controllers.split(","):
            own["cgroup"] = path
    files = []
    for line in _text(root / "proc/self/mountinfo").splitlines():
        # "36 35 98:0 /root /mounted/at rw - kind source options" (proc_pid_mountinfo(5)).
        left, _, right = line.partition(" - ")
        place, kinds = left.split(" "), right.split(" ")
        kind = kinds[0]
        if len(place) < 5 or kind not in own or (kind == "cgroup" and "memory" not in kinds[-1].split(",")):
            continue
        mounted, point = (field.replace("\\040", " ") for field in place[3:5])
        top = root / point.lstrip("/")
        # In a container the mount shows the tree from ``mounted`` down, and the path may repeat it.
        inside = own[kind].removeprefix(mounted if mounted != "/" else "").strip("/")
        name = "memory.max" if kind == "cgroup2" else "memory.limit_in_bytes"
        parts = [part for part in inside.split("/") if part not in ("", "..")]
        files += [top.joinpath(*parts[:depth], name) for depth in range(len(parts), -1, -1)]
    return files


def _limit(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 30 and int(text) > 0 else None


def _memory(root: Path) -> tuple[int, int]:
    """MemTotal and MemAvailable in bytes; psutil where there is no /proc/meminfo."""
    fields = dict(
        line.split(":", 1) for line in _text(root / "proc/meminfo").splitlines() if line.count(":") == 1
    )
    try:
        total, available = (int(fields[key].split()[0]) << 10 for key in ("MemTotal", "MemAvailable"))
    except (KeyError, ValueError, IndexError):
        import psutil

        memory = psutil.virtual_memory()
        total, available = int(memory.total), int(memory.available)
    return total, available


def _text(path: Path) -> str:
    """A small file of the kernel's, "" where it does not exist or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""
