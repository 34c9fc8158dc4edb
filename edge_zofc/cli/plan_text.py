"""What ``plan`` is made for, and what it prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edge_zofc.device.memory_plan import MemoryPlan
from edge_zofc.engine.disk_plan import DiskPlan
from edge_zofc.errors import InputError
from edge_zofc.export.catalogue import entry
from edge_zofc.report.text import table
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.manifest import ActivationBytes, BundleSizes

BUNDLE = Path("bundle")
"""The bundle of a plan that names nothing."""
SIDES = (8, 1024)
"""Sizes of pictures that an export takes."""


def planned(folder: Path | None, backbone: str | None, side: int | None = None) -> tuple[Bundle | None, BundleSizes]:
    """The bundle to plan for, if there is one, and what a plan counts of it or of a name of the catalogue.

    ``side`` S in pixels replaces that of the catalogue. Raises InputError if both are given, or a size for a bundle.
    """
    if backbone is None and side is not None:
        raise InputError(f"--img-size {side} belongs to --backbone; a bundle keeps the size that it was exported with.")
    if side is not None and not SIDES[0] <= side <= SIDES[1]:
        raise InputError(f"The image size must be {SIDES[0]} to {SIDES[1]} pixels, got {side}.")
    if backbone is None:
        bundle = read_bundle(folder or BUNDLE)
        return bundle, bundle.manifest.sizes
    if folder is not None:
        raise InputError(f"--bundle {folder} and --backbone {backbone} are two things to plan for; give one of them.")
    sizes = entry(backbone).sizes
    return None, sizes if side is None else _resized(sizes, side)


def _resized(sizes: BundleSizes, side: int) -> BundleSizes:
    """Activations grow with the pixels. Weights stay, but for a ViT's position table, which is next to nothing."""
    share, old = (side / sizes.image_side) ** 2, sizes.activation_bytes
    scaled = ActivationBytes(
        fixed=math.ceil(share * old.fixed),
        per_image=math.ceil(share * old.per_image),
        per_image_and_adapter=math.ceil(share * old.per_image_and_adapter),
    )
    return replace(sizes, image_side=side, activation_bytes=scaled)


def before_export(backbone: str, sizes: BundleSizes) -> str:
    """What a plan for a backbone is, in one sentence."""
    side = entry(backbone).side
    scaled = "" if side == sizes.image_side else f", scaled with the pixels from {side} px"
    return (
        f"{backbone} at {sizes.image_side} px in fp32, before an export: its activations are an estimate from the "
        f"catalogue{scaled}, and only a plan with --bundle knows other precisions and, with --stream, the time."
    )


def plan_text(found: MemoryPlan, disk: DiskPlan, tasks: int, width: int, notes: Sequence[str] = ()) -> str:
    """Tables of memory and disk for a terminal of ``width`` columns; ``tasks``: those of the stream.

    ``notes`` are sentences that go before them.
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
    return "\n\n".join([*(table([(note,)], "l", width) for note in notes), *parts])


CAMERA_MIB = "12 to 78"
"""Of the child that reads a camera, as it was seen: gst-launch of a test picture, ffmpeg of a film of 720 lines."""


def shows_text(teach: MemoryPlan, live: MemoryPlan, width: int) -> str:
    """What processes take that run beside a ``learn`` and are shown pictures."""
    rows = [
        ("MiB", "beside learn, one picture at a time"),
        (_mib(teach.peak_bytes), "teach, or a Learner: predicted peak"),
        (_mib(live.peak_bytes), "live, with its page: predicted peak"),
        (CAMERA_MIB, "the child that reads a camera for live: seen"),
    ]
    return table(rows, "rl", width)


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f}"
