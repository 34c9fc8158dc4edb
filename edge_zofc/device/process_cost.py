"""What the process costs before it does anything: the interpreter, its libraries, and torch.

Measured in child processes that import and print, once per set of versions (kept in the user's cache folder). Where
that cannot be written, they are kept among the temporary files; where nothing can, a stated estimate is used.

Measuring torch needs the memory that torch needs. Where the machine or its cgroup has not 1.5 times that to spare,
nothing is measured and a stated estimate is used instead: a child that runs into the cgroup's limit could take this
process with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from edge_zofc.device.system import board, usage
from edge_zofc.errors import EdgeZofcError
from edge_zofc.storage.reading import load_model, read_bounded
from edge_zofc.storage.writing import make_folder, write_atomic

log = logging.getLogger("edge_zofc")

MIB = 1 << 20
CHILD_SECONDS = 180
_METHOD = "libraries read anew"
"""How it is measured; part of a cache file's name."""

LIBRARIES = (
    *("numpy", "onnxruntime", "PIL.Image", "pydantic", "safetensors.numpy", "psutil", "tqdm", "logging"),
    # All of ``edge-zofc learn``: by name, in the child alone. The modules themselves take 8 MiB.
    *("edge_zofc.cli.main", "edge_zofc.engine.run", "edge_zofc.cli.progress"),
)
_PACKAGES = ("numpy", "onnxruntime", "pillow", "pydantic", "safetensors", "psutil", "tqdm", "torch", "edge-zofc")

# One step of the head, as heads.py does it: the first backward starts threads and loads kernels.
_HEAD_STEP = """
import torch
torch.set_num_threads(1)
f, w = torch.ones(8, 64), torch.ones(4, 64, requires_grad=True)
y = torch.nn.functional.normalize(f, dim=-1) @ torch.nn.functional.normalize(w, dim=-1).T
torch.autograd.grad(torch.nn.functional.cross_entropy(y, torch.zeros(8, dtype=torch.long)), w)
"""
_IMPORT = """
import importlib, json, sys
order = json.loads(sys.argv[1])
sys.path[:] = order["path"]
for name in order["modules"]:
    importlib.import_module(name)
"""
_PRINT = """
with open("/proc/self/status") as file:
    lines = [line.split() for line in file if "kB" in line]
found = {words[0]: int(words[1]) << 10 for words in lines}
cost = [found["RssAnon:"], found["RssFile:"] + found.get("RssShmem:", 0), found["VmData:"]]
with open("/proc/self/maps") as file:
    mapped = {line.split(maxsplit=5)[5].rstrip("\\n") for line in file if ".so" in line}
print(json.dumps([cost, sorted(mapped)]))
"""

Bytes = Annotated[int, Field(ge=0, lt=1 << 50)]


class Cost(NamedTuple):
    """Bytes that importing something adds: anonymous, file-backed, and to VmData (reservations included)."""

    anonymous_bytes: Bytes
    file_bytes: Bytes
    data_bytes: Bytes

    @property
    def resident_bytes(self) -> int:
        """What the resident set grows by."""
        return self.anonymous_bytes + self.file_bytes


class BaseCost(BaseModel):
    """``process``: interpreter and libraries; ``torch``: what it adds, None without it; ``measured``: no estimate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    process: Cost
    torch: Cost | None
    measured: bool = True


# x86-64, Python 3.11, numpy 2.4, onnxruntime 1.32, torch 2.14: measured by the code below with a CUDA build of torch.
# The CPU build's total of 240 MiB was measured elsewhere, its split is assumed to be the same.
PROCESS_ESTIMATE = Cost(31 * MIB, 30 * MIB, 115 * MIB)
TORCH_CUDA_ESTIMATE = Cost(275 * MIB, 235 * MIB, 690 * MIB)
TORCH_CPU_ESTIMATE = Cost(130 * MIB, 110 * MIB, 400 * MIB)


def measure_base(
    modules: Sequence[str] = LIBRARIES, cache_folder: Path | None = None, with_torch: bool = True
) -> BaseCost:
    """Cost of a process that imports ``modules``, and of torch on top if it is wanted, on this machine.

    ``cache_folder`` defaults to the user's. A machine that cannot be measured gets the estimates above, marked so.
    """
    estimate = BaseCost(process=PROCESS_ESTIMATE, torch=torch_estimate() if with_torch else None, measured=False)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - Path.home() may raise
    name = f"base-cost-{_key(modules, with_torch)}.json"
    # Without a home "~" stays as it is, and would become a folder here.
    kept_in = cache_folder or (None if cache.startswith("~") else Path(cache, "edge-zofc"))
    files = [folder / name for folder in (kept_in, _own_temporary_folder()) if folder]
    for kept in files:
        with contextlib.suppress(EdgeZofcError):  # a cache that cannot be read is measured anew
            return load_model(BaseCost, read_bounded(kept, 4096), "")
    # Before, not after: where nothing can be kept, each start would take seconds and torch's memory to measure.
    file = next(filter(_can_keep, files), None) if _room_for(estimate) else None
    if file is None:
        return estimate
    process, torch = _in_children(modules, ""), None
    if process is not None and estimate.torch is not None:
        whole = _in_children(modules, _HEAD_STEP)
        torch = Cost(*(max(a - b, 0) for a, b in zip(whole, process, strict=True))) if whole else None
    if process is None or (torch is None) != (estimate.torch is None):
        return estimate
    found = BaseCost(process=process, torch=torch)
    with contextlib.suppress(EdgeZofcError):  # the disk may have filled up meanwhile
        write_atomic(file, found.model_dump_json(exclude={"measured"}).encode())
    return found


def _own_temporary_folder() -> Path | None:
    """A folder for a cache among the temporary files, this user's alone; None where it cannot be had."""
    try:
        folder = Path(tempfile.gettempdir()) / f"edge-zofc-{os.getuid()}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(0o700)
        found = folder.lstat()
    except (OSError, AttributeError):  # Windows has no user numbers
        return None
    # Anybody may make a folder, or a link, of this name first.
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if is_own else None


def _can_keep(file: Path) -> bool:
    """Whether a cache file can be written: a try, as a read-only disk or a full one is not told by permissions."""
    probe = file.with_name(f"probe-{os.getpid()}")
    try:
        make_folder(file.parent)
        write_atomic(probe, b"probe")
        probe.unlink()
    except (EdgeZofcError, OSError) as error:
        log.debug("The base cost is not measured, as it could not be kept: %s", error)
        return False
    return True


def torch_estimate() -> Cost | None:
    """The stated estimate for the torch that is installed, told by its version; None without torch."""
    version = _version("torch")
    return None if version is None else TORCH_CPU_ESTIMATE if "+cpu" in version else TORCH_CUDA_ESTIMATE


def _room_for(cost: BaseCost) -> bool:
    here = board()
    free = here.mem_available_bytes
    if here.cgroup_limit_bytes is not None:
        free = min(free, here.cgroup_limit_bytes - usage().rss_bytes)
    return free > 1.5 * (cost.process.resident_bytes + (cost.torch.resident_bytes if cost.torch else 0))


def _in_children(modules: Sequence[str], then: str) -> Cost | None:
    """The smaller of two measurements, the second with the libraries read anew.

    How much of a library is mapped at once depends on the page cache. What an installation has just written lies there
    in large pieces: torch's took 119 MiB more than when it was read from the disk, as it is after the next boot.
    """
    first = _in_child(modules, then)
    if first is None:
        return None
    for library in first[1]:
        _forget(library)
    second = _in_child(modules, then)
    return None if second is None else min(first[0], second[0], key=lambda cost: cost.resident_bytes)


def _forget(library: str) -> None:
    """Ask the kernel to drop a file's pages from its cache; what other processes have mapped stays."""
    with contextlib.suppress(OSError, ValueError):
        handle = os.open(library, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)  # pages that are not on the disk yet stay
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def _in_child(modules: Sequence[str], then: str) -> tuple[Cost, list[str]] | None:
    """What a child took that did this, and the libraries that it had mapped; None where that cannot be told."""
    order = json.dumps({"path": sys.path, "modules": list(modules)})
    command = [sys.executable, "-c", _IMPORT + then + _PRINT, order]
    try:
        # This interpreter, with the code above.
        done = subprocess.run(command, capture_output=True, timeout=CHILD_SECONDS, check=False)  # noqa: S603
        cost, libraries = json.loads(done.stdout.splitlines()[-1])
        return Cost(*map(int, cost)), libraries
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError, TypeError) as error:
        log.debug("The base cost could not be measured: %r", error)
        return None


def _key(modules: Sequence[str], with_torch: bool = True) -> str:
    versions = [f"{package} {_version(package)}" for package in _PACKAGES]
    known = [_METHOD, sys.version, sys.prefix, platform.platform(), *modules, str(with_torch), *versions]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
