"""A cgroup for a child process, v1 or v2, below this process's own where the kernel allows it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Cgroup:
    """An empty cgroup with a limit. ``enter`` is for ``subprocess``'s ``preexec_fn``."""

    folder: Path
    version: int

    def enter(self) -> None:
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def peak_bytes(self) -> int:
        """The most it held so far, page cache included."""
        name = "memory.max_usage_in_bytes" if self.version == 1 else "memory.peak"
        return int((self.folder / name).read_text())


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[Cgroup]:
    """Make one with ``limit_bytes`` and no swap, remove it afterwards; skip the test where that is impossible."""
    with _cgroup("memory") as (folder, version):
        _set(folder, "memory.limit_in_bytes" if version == 1 else "memory.max", str(limit_bytes))
        swap, value = ("memory.memsw.limit_in_bytes", str(limit_bytes)) if version == 1 else ("memory.swap.max", "0")
        if (folder / swap).exists():
            _set(folder, swap, value)
        yield Cgroup(folder, version)


@contextmanager
def cpu_cgroup(cpus: float) -> Iterator[Callable[[], None]]:
    """Make one whose processes may keep ``cpus`` CPUs busy; yields what a child calls to enter it."""
    with _cgroup("cpu") as (folder, version):
        quota = str(int(cpus * 100_000))
        _set(folder, *(("cpu.cfs_quota_us", quota) if version == 1 else ("cpu.max", f"{quota} 100000")))
        yield Cgroup(folder, version).enter


@contextmanager
def _cgroup(controller: str) -> Iterator[tuple[Path, int]]:
    """An empty cgroup and its version."""
    parent, version = _own_folder(controller)
    folder = parent / f"edge-zofc-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"needs root and a writable {controller} cgroup: {parent}: {error.strerror}")
    try:
        yield folder, version
    finally:
        folder.rmdir()


def _set(folder: Path, name: str, value: str) -> None:
    try:
        (folder / name).write_text(value)
    except OSError as error:
        pytest.skip(f"the controller of {name} is not given to cgroups below {folder.parent}: {error.strerror}")


def _own_folder(controller: str) -> tuple[Path, int]:
    """Below the own cgroup, so that the child stays within every limit that holds for the tests."""
    try:
        own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except OSError:
        pytest.skip("needs Linux")
    for left, right in mounts:
        kind, root, point = right.split()[0], left.split()[3], left.split()[4]
        for _, controllers, path in own:
            inside = path.removeprefix(root if root != "/" else "").strip("/")
            if kind == "cgroup" and _both(controller, right.split()[-1], controllers):
                return Path(point, inside), 1
            if kind == "cgroup2" and not controllers and controller in _controllers(Path(point, inside)):
                return Path(point, inside), 2
    pytest.skip(f"there is no {controller} cgroup here")


def _both(controller: str, *lists: str) -> bool:
    return all(controller in names.split(",") for names in lists)


def _controllers(folder: Path) -> list[str]:
    file = folder / "cgroup.controllers"
    return file.read_text().split() if file.exists() else []
