"""What ``plan`` is made for, and what it prints."""

from __future__ import annotations

from pathlib import Path

from edge_zofc.device.memory_plan import MemoryPlan
from edge_zofc.engine.disk_plan import DiskPlan
from edge_zofc.engine.work import TimePlan
from edge_zofc.errors import InputError
from edge_zofc.export.catalogue import entry
from edge_zofc.report.text import table
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.manifest import BundleSizes

BUNDLE = Path("bundle")
"""The bundle of a plan that names nothing."""


def planned(folder: Path | None, backbone: str | None) -> tuple[Bundle | None, BundleSizes]:
    """The bundle to plan for, if there is one, and what a plan counts of it or of a name of the catalogue.

    Raises InputError if both are given.
    """
    if backbone is None:
        bundle = read_bundle(folder or BUNDLE)
        return bundle, bundle.manifest.sizes
    if folder is not None:
        raise InputError(f"--bundle {folder} and --backbone {backbone} are two things to plan for; give one of them.")
    return None, entry(backbone).sizes


def plan_text(
    found: MemoryPlan, disk: DiskPlan, time: TimePlan | None, tasks: int, width: int, backbone: str | None = None
) -> str:
    """Tables of memory, disk and time for a terminal of ``width`` columns; ``tasks``: those of the stream.

    ``backbone`` is named where the plan was made for one, before any export.
    """
    memory = [("anonymous", "file-backed", "MiB")]
    memory += [(_mib(i.anonymous_bytes), _mib(i.file_bytes), f"{i.name}: {i.note}") for i in found.items]
    together = f"predicted peak: {_mib(found.peak_bytes)} MiB together"
    memory.append((_mib(found.anonymous_bytes), _mib(found.file_bytes), together))
    memory.append((_mib(found.budget_bytes), "", "budget"))
    what = f"{tasks} tasks, {disk.steps} steps" if tasks else "before any task; give --stream for its tasks"
    files = [("KiB", "disk"), *((f"{i.bytes / 1024:.1f}", f"{i.name}: {i.note}".rstrip(": ")) for i in disk.items)]
    files.append((f"{disk.bytes / 1024:.1f}", f"together: {what}"))
    parts = [table(memory, "rrl", width), table([(found.reason,)], "l", width), table(files, "rl", width)]
    if backbone is not None:
        side = entry(backbone).side
        told = f"{backbone} at {side} px in fp32, before an export: its activations are an estimate from the catalogue"
        parts.insert(0, table([(f"{told}, and only a plan with --bundle and --stream predicts time.",)], "l", width))
    if time is not None:
        rows = [(f"{time.image_forwards}", "image-forwards at most: pictures x adapters through the graph")]
        if time.seconds is not None and time.seconds_a_forward is not None:
            rows.append((f"{1000 * time.seconds_a_forward:.1f}", "ms each on this machine, decoding included"))
            rows.append((f"{time.seconds / 60:.1f}", "minutes in all"))
        parts.append(table([("", "time"), *rows], "rl", width))
    return "\n\n".join(parts)


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f}"
