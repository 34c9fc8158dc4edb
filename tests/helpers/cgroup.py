"""A memory cgroup for a child process, v1 or v2, below this process's own where the kernel allows it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class MemoryCgroup:
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
def memory_cgroup(limit_bytes: int) -> Iterator[MemoryCgroup]:
    """Make one with ``limit_bytes`` and no swap, remove it afterwards; skip the test where that is impossible."""
    parent, version = _own_folder()
    folder = parent / f"edge-zofc-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if version == 1 else "memory.max"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"needs root and a writable memory cgroup: {parent}: {error.strerror}")
    try:
        try:
            (folder / limit).write_text(str(limit_bytes))
        except OSError as error:
            pytest.skip(f"the memory controller is not given to cgroups below {parent}: {error.strerror}")
        swap, value = ("memory.memsw.limit_in_bytes", str(limit_bytes)) if version == 1 else ("memory.swap.max", "0")
        if (folder / swap).exists():
            (folder / swap).write_text(value)
        yield MemoryCgroup(folder, version)
    finally:
        folder.rmdir()


def _own_folder() -> tuple[Path, int]:
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
            if kind == "cgroup" and "memory" in right.split()[-1].split(",") and "memory" in controllers.split(","):
                return Path(point, inside), 1
            if kind == "cgroup2" and not controllers and "memory" in _controllers(Path(point, inside)):
                return Path(point, inside), 2
    pytest.skip("there is no memory cgroup here")


def _controllers(folder: Path) -> list[str]:
    file = folder / "cgroup.controllers"
    return file.read_text().split() if file.exists() else []
