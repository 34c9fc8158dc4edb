"""What a process takes that answers and is shown pictures: ``teach``, ``live`` and a ``Learner``.

It has one session of one picture and one adapter, and solves the head anew after a change.
"""

from __future__ import annotations

from collections.abc import Iterator

from edge_zofc.algorithm.heads import SOLVING
from edge_zofc.algorithm.symmetric import packed_length
from edge_zofc.device.memory_costs import (
    ARENA_RESERVED,
    MIB,
    PICTURE_BYTES,
    PICTURE_BYTES_A_PIXEL,
    SESSION_BYTES,
    weights_held,
)
from edge_zofc.device.memory_items import PlanItem, activations
from edge_zofc.device.memory_plan import MemoryPlan
from edge_zofc.device.process_cost import BaseCost
from edge_zofc.device.system import stack_bytes
from edge_zofc.storage.manifest import BundleSizes
from edge_zofc.storage.settings import Placement

PICTURES = 2000
"""Of an open lesson, whose features are held."""
HEAD_BYTES = 60
"""Of each class and feature: sums and rows of the checkpoint, of what is known, and their copies."""
LOADING = 4
"""float64 [D, D] alive while a checkpoint is read that has two second moments: the file's bytes and the arrays."""
PAGE_BYTES = (10 * MIB, 2 * MIB)
"""Starlette, uvicorn and their clients, anonymous and file-backed."""
SPARE_BYTES = 128 * MIB
"""Above the peak, for the largest pictures (a PNG of 24 megapixels takes 115 MiB)."""
THREADS = 4
"""Of a page: the web's, the camera's and two that wait for child processes."""


def one_by_one(kept: Placement, threads: int) -> Placement:
    """The placement of a run's session that is given one picture at a time."""
    return kept.model_copy(update={"micro_batch": 1, "parallel_queries": 1, "threads": threads})


def teaching_plan(
    sizes: BundleSizes, placement: Placement, base: BaseCost, classes: int, page: bool = False
) -> MemoryPlan:
    """The plan of such a process. ``placement`` from ``one_by_one``, ``classes`` C; ``page``: with that of ``live``.

    Its budget is its peak and SPARE_BYTES.
    """
    items = tuple(_items(sizes, placement, base, classes, page))
    peak = sum(item.anonymous_bytes + item.file_bytes for item in items)
    reserved = sizes.weights_bytes + int(activations(sizes, placement) * ARENA_RESERVED)
    reserved += (placement.threads + 1 + (THREADS if page else 0)) * stack_bytes()
    return MemoryPlan(items, placement, peak, peak + SPARE_BYTES, reserved, "one picture at a time")


def _items(
    sizes: BundleSizes, placement: Placement, base: BaseCost, classes: int, page: bool
) -> Iterator[PlanItem]:  # fmt: skip
    how = "measured in a child process" if base.measured else "estimate, not measured here"
    yield PlanItem("Python and libraries", base.process.anonymous_bytes, base.process.file_bytes, how)
    if page:
        yield PlanItem("web page", *PAGE_BYTES, "starlette, uvicorn and their clients, measured once")
    parts = weights_held(sizes.weights_bytes, sizes.precision, placement.prepacking)
    yield PlanItem("weights", *parts, sizes.precision)
    yield PlanItem("inference session", *SESSION_BYTES, "onnxruntime's graph and kernels, measured once")
    yield PlanItem("activations", activations(sizes, placement), 0, "1 picture x 1 adapter")
    width = sizes.feature_size
    yield PlanItem("features of the lesson", 4 * PICTURES * width, 0, f"{PICTURES} pictures x {width}, at most")
    yield PlanItem("head", HEAD_BYTES * max(classes, 1) * width, 0, f"{classes} classes x {width}")
    matrices = 2 * 8 * packed_length(width) + 8 * max(SOLVING, LOADING) * width**2
    yield PlanItem("covariance of the head", matrices, 0, f"of {width} x {width}: 2 packed, {LOADING} whole at most")
    side = sizes.image_side
    decoding = PICTURE_BYTES + PICTURE_BYTES_A_PIXEL * side**2 + 4 * 3 * side**2
    yield PlanItem("picture decoding", decoding, 0, "an ordinary picture")
