"""What the process costs before it does anything: the interpreter, its libraries, and torch.

Measured in child processes that import and print, once per set of versions (kept in the user's cache folder).

What may surprise: measuring torch needs the memory that torch needs. Where the machine or its cgroup has not
1.5 times that to spare, nothing is measured and a stated estimate is used instead: a child that runs into the
cgroup's limit could take this process with it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edge_zofc.device.system import board, usage

log = logging.getLogger("edge_zofc")

MIB = 1 << 20
CHILD_SECONDS = 180

LIBRARIES = (
    *("numpy", "onnxruntime", "PIL.Image", "pydantic", "safetensors.numpy", "psutil", "tqdm", "logging"),
    # All of ``edge-zofc learn``: by name, in the child alone. The modules themselves take 8 MiB.
    *("edge_zofc.cli.main", "edge_zofc.engine.run", "edge_zofc.cli.progress"),
)
_PACKAGES = (
    "numpy",
    "onnxruntime",
    "pillow",
    "pydantic",
    "safetensors",
    "psutil",
    "tqdm",
    "torch",
    "edge-zofc",
)

# One step of the head, as head.py does it: the first backward starts threads and loads kernels.
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
print(json.dumps([found["RssAnon:"], found["RssFile:"] + found.get("RssShmem:", 0), found["VmData:"]]))
"""


@dataclass(frozen=True)
class Cost:
    """Bytes that importing something adds: anonymous, file-backed, and to VmData (reservations included)."""

    anonymous_bytes: int
    file_bytes: int
    data_bytes: int

    def plus(self, other: Cost) -> Cost:
        """The sum of both."""
        return Cost(*(a + b for a, b in zip(self._all(), other._all(), strict=True)))

    def minus(self, other: Cost) -> Cost:
        """The difference, at least 0 in each."""
        return Cost(*(max(a - b, 0) for a, b in zip(self._all(), other._all(), strict=True)))

    def _all(self) -> tuple[int, int, int]:
        return self.anonymous_bytes, self.file_bytes, self.data_bytes


@dataclass(frozen=True)
class BaseCost:
    """``process``: interpreter and libraries without torch; ``torch``: what it adds, None if not installed.
    ``measured`` is False where an estimate stands in.
    """

    process: Cost
    torch: Cost | None
    measured: bool


# x86-64, Python 3.11, numpy 2.4, onnxruntime 1.32, torch 2.14: measured by the code below, where a CUDA build
# of torch was installed; the CPU build's total of 240 MiB was measured elsewhere, its split is assumed to be the same.
PROCESS_ESTIMATE = Cost(31 * MIB, 30 * MIB, 115 * MIB)
TORCH_CUDA_ESTIMATE = Cost(275 * MIB, 235 * MIB, 690 * MIB)
TORCH_CPU_ESTIMATE = Cost(130 * MIB, 110 * MIB, 400 * MIB)


def measure_base(modules: Sequence[str] = LIBRARIES, cache_folder: Path | None = None) -> BaseCost:
    """Cost of a process that imports ``modules``, and of torch on top, on this machine.

    ``cache_folder`` defaults to the user's; what is kept there is used as long as the versions are the same.
    Never raises for a machine that cannot be measured: the estimates above are returned, marked so.
    """
    estimate = BaseCost(PROCESS_ESTIMATE, torch_estimate(), measured=False)
    file = (cache_folder or _user_cache()) / f"base-cost-{_key(modules)}.json"
    kept = _read(file)
    if kept is not None:
        return kept
    if not _room_for(estimate):
        return estimate
    process = _in_child(modules, "")
    torch = None
    if process is not None and estimate.torch is not None:
        torch = _least(_in_child(modules, _HEAD_STEP), _in_child(modules, _HEAD_STEP))
    if process is None or (torch is None) != (estimate.torch is None):
        return estimate
    found = BaseCost(process, None if torch is None else torch.minus(process), measured=True)
    _write(file, found)
    return found


def torch_estimate() -> Cost | None:
    """The stated estimate for the torch that is installed, told by its version; None without torch."""
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None
    return TORCH_CPU_ESTIMATE if "+cpu" in version else TORCH_CUDA_ESTIMATE


def _room_for(cost: BaseCost) -> bool:
    here = board()
    free = here.mem_available_bytes
    if here.cgroup_limit_bytes is not None:
        free = min(free, here.cgroup_limit_bytes - usage().rss_bytes)
    needed = cost.process if cost.torch is None else cost.process.plus(cost.torch)
    return free > 1.5 * (needed.anonymous_bytes + needed.file_bytes)


def _in_child(modules: Sequence[str], then: str) -> Cost | None:
    order = json.dumps({"path": sys.path, "modules": list(modules)})
    command = [sys.executable, "-c", _IMPORT + then + _PRINT, order]
    try:
        # This interpreter, with the code above.
        done = subprocess.run(command, capture_output=True, timeout=CHILD_SECONDS, check=False)  # noqa: S603
        return _cost(json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        log.debug("The base cost could not be measured: %r", error)
        return None


def _least(first: Cost | None, second: Cost | None) -> Cost | None:
    """The smaller of two measurements. How much of a library the kernel maps varies with its page cache: torch's first
    child after an installation once had 150 MiB more of it resident than every later one.
    """
    if first is None or second is None:
        return None
    return min(first, second, key=lambda cost: cost.anonymous_bytes + cost.file_bytes)


def _key(modules: Sequence[str]) -> str:
    versions = [sys.version, sys.prefix, platform.platform(), *modules]
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return hashlib.sha256("\n".join(versions).encode()).hexdigest()[:16]


def _user_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118
    return Path(home) / "edge-zofc"


def _cost(values: object) -> Cost | None:
    if not isinstance(values, list) or len(values) != 3:
        return None
    if not all(type(value) is int and 0 <= value < 1 << 50 for value in values):
        return None
    return Cost(*values)


def _read(file: Path) -> BaseCost | None:
    """What is kept, or None: a cache that cannot be read is measured anew."""
    try:
        if file.stat().st_size > 4096 or not file.is_file():
            return None
        data = json.loads(file.read_bytes())
        process = _cost(data["process"])
        torch = _cost(data["torch"])
        if process is None or (torch is None) != (data["torch"] is None):
            return None
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    return BaseCost(process, torch, measured=True)


def _write(file: Path, found: BaseCost) -> None:
    torch = None if found.torch is None else list(found.torch._all())
    text = json.dumps({"process": list(found.process._all()), "torch": torch})
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text)
        temporary.replace(file)
    except OSError:
        # A read-only home only means that the next run measures again.
        return
