"""A memory cgroup around a child process. It takes root, or a hierarchy that this user may write.

A page of a file is charged to the cgroup that reads it first. Libraries that other processes have loaded are therefore
not charged to the child. ``drop_from_cache`` makes the kernel charge the bundle.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edge_zofc.errors import InputError

SLOWER = 1.5
"""A limit holds where what runs in it takes at most so many times its time without one."""
GRAIN_MIB = 16
LEAST_MIB = 32


def lowest(fails: int, works: int, grain: int, holds: Callable[[int], bool]) -> int:
    """By halving, the smallest limit found that ``holds``, at most ``grain`` above one that does not.

    ``fails`` and ``works`` are believed, not tried. What holds at a limit is taken to hold at every larger one.
    """
    while works - fails > grain:
        middle = (works + fails) // 2
        if holds(middle):
            works = middle
        else:
            fails = middle
    return works


def inside(place: Path, line: Sequence[str]) -> list[str]:
    """The command ``line``, run in the cgroup ``place``: a shell enters it and becomes the command."""
    return ["sh", "-c", f'echo $$ > "{place}/cgroup.procs" && exec "$@"', "sh", *line]


def peak_bytes(place: Path) -> int | None:
    """The most that was charged to the cgroup; None where the kernel does not tell."""
    for name in ("memory.max_usage_in_bytes", "memory.peak"):
        if (place / name).exists():
            return int((place / name).read_text())
    return None


def drop_from_cache(files: Iterable[Path]) -> None:
    """Ask the kernel to forget the cached pages of files. Pages in use stay."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[Path]:
    """A memory cgroup below that of this process, with ``limit_bytes`` and no swap; removed afterwards.

    Raises InputError where none can be made.
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
        raise InputError(f"No memory cgroup can be made in {parent} ({error.strerror}); run as root.") from error
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
    """The memory cgroup of this process and its version, 1 or 2. Raises InputError where there is none."""
    try:
        own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except OSError as error:
        raise InputError("Limits can be measured on Linux only.") from error
    for left, right in mounts:
        kind, root, point = right.split()[0], left.split()[3], left.split()[4]
        for _, controllers, path in own:
            place = Path(point, path.removeprefix(root if root != "/" else "").strip("/"))
            in_v1 = "memory" in controllers.split(",") and "memory" in right.split()[-1].split(",")
            if kind == "cgroup" and in_v1:
                return place, 1
            if kind == "cgroup2" and not controllers and _has_memory(place / "cgroup.controllers"):
                return place, 2
    raise InputError("There is no memory cgroup here to set a limit in.")


def _has_memory(controllers: Path) -> bool:
    return controllers.exists() and "memory" in controllers.read_text().split()
