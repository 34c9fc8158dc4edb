"""The machine that the numbers belong to: processor, memory, versions of the libraries, load."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.costs.setup import MIB
from edge_zofc.device.system import board


def machine_state() -> dict[str, Any]:
    """Machine, versions and how busy it is: what has to stand beside a number. Imports torch."""
    here = board()
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "processor": _processor(),
        "cpu_count": here.cpu_count,
        "cgroup_cpus": here.cgroup_cpus,
        "mem_total_mib": here.mem_total_bytes // MIB,
        "mem_available_mib": here.mem_available_bytes // MIB,
        "cgroup_limit_mib": None if here.cgroup_limit_bytes is None else here.cgroup_limit_bytes // MIB,
        "load_average": load,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch_build": torch_build(),
        **{name: _version(name) for name in ("edge-zofc", "numpy", "onnxruntime", "torch", "timm")},
    }


def machine_line(machine: dict[str, Any]) -> str:
    """Processor, versions, date and load in one line, for captions."""
    load = machine["load_average"]
    return (
        f"{machine['cpu_count']} x {machine['processor']}, torch {machine['torch']}, onnxruntime "
        f"{machine['onnxruntime']}, {machine['time'][:10]}" + (f", load {load[0]:.1f}" if load else "")
    )


def torch_build() -> str:
    """CPU, or the accelerator whose libraries this torch brings. They are most of what importing torch takes."""
    local = _version("torch").partition("+")[2]
    return "CPU" if local in ("cpu", "") else local


def _version(package: str) -> str:
    if package == "torch":
        try:
            from torch.version import __version__ as torch_version  # the local part is not in the metadata
        except ImportError:
            return "not installed"
        return str(torch_version)
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return f"{names[0] if names else platform.processor()} ({platform.machine()})"
