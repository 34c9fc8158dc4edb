"""Memory of a run beside that of first order (backpropagation), where that was measured.

No run measures first order on its own machine: a board has no torch, and may not have the memory. What is shown was
measured once, by ``edge-zofc bench memory`` on a workstation, and is said to be that. Nothing is extrapolated to a
backbone that was not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_zofc.storage.result import RunResult

MACHINE = "x86-64, torch 2.14 built for CUDA, fp32, batch 48, one thread, 2026-11-25"
TORCH_MIB = 502
"""Of it importing torch and a first backward take this much, whatever the backbone is."""
ARMS = {
    "fo-micro": "first order at its best: one picture at a time, checkpointing",
    "fo-checkpoint": "first order, activation checkpointing",
    "fo-batch": "first order, whole batch",
}
"""Arm of ``bench memory`` -> what it is, the thriftiest first."""
MEASURED_MIB = {
    ("vit_tiny_patch16_96", 96): {"fo-micro": 818.9, "fo-checkpoint": 912.8, "fo-batch": 1017.8},
    ("vit_base_patch16_224", 224): {"fo-micro": 1147.4, "fo-checkpoint": 3672.7, "fo-batch": 5248.5},
}
"""Peak resident memory by backbone and image size; ``benchmarks/results/memory_*.json`` has the runs."""


@dataclass(frozen=True)
class Bar:
    """One bar: its share of the longest one."""

    label: str
    mib: float
    share: float
    is_this_run: bool


def bars(result: RunResult) -> list[Bar]:
    """The run's peak and first order's; [] where either was not measured."""
    measured = MEASURED_MIB.get((result.backbone or "", result.image_size or 0))
    if measured is None or result.peak_rss_mib is None:
        return []
    rows = [("this run, measured", result.peak_rss_mib), *((ARMS[arm], mib) for arm, mib in measured.items())]
    longest = max(mib for _, mib in rows)
    return [Bar(label, mib, mib / longest, index == 0) for index, (label, mib) in enumerate(rows)]
