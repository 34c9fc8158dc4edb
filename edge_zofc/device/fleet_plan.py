"""What a device takes that is joined to a fleet over a network (``edge-zofc fleet join``), and what it sends and gets.

It has no session but while it tries a new head on its own test pictures. A device that learns and is joined has both
processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_zofc.device.memory_costs import (
    FLOWER_BYTES,
    MERGED_MATRICES,
    PICTURE_BYTES,
    PICTURE_BYTES_A_PIXEL,
    SESSION_BYTES,
    TRIED_MATRICES,
    weights_held,
)
from edge_zofc.device.memory_items import PlanItem, activations
from edge_zofc.device.process_cost import BaseCost
from edge_zofc.device.teaching_plan import HEAD_BYTES
from edge_zofc.storage.manifest import BundleSizes
from edge_zofc.storage.settings import Placement

_SUM, _MOMENT, _FLEET_MOMENT, _NAME = 3, 5, 6, 30
"""Bytes of an integer of sums and second moments, of one device and of a fleet of thousands; of a class beside them."""


@dataclass(frozen=True)
class JoinedPlan:
    """Items that add up to the peak; ``up_bytes`` go to the fleet once a task, ``down_bytes`` come with each head."""

    items: tuple[PlanItem, ...]
    up_bytes: int
    down_bytes: int

    @property
    def peak_bytes(self) -> int:
        """What the resident set should reach."""
        return sum(item.anonymous_bytes + item.file_bytes for item in self.items)


def joined_plan(sizes: BundleSizes, kept: Placement, base: BaseCost, classes: int) -> JoinedPlan:
    """The plan of a joined device that tries heads on test pictures; ``kept``: the run's placement, ``classes`` C."""
    width, classes = sizes.feature_size, max(classes, 1)
    pairs = width * (width + 1) // 2
    # Its peak is while a head is solved, or while it is tried, when the solver has given its matrices back.
    solved, tried = (list(part) for part in (_solved(width), _tried(sizes, kept, width)))
    largest = max((solved, tried), key=lambda items: sum(item.anonymous_bytes + item.file_bytes for item in items))
    sums = classes * (_SUM * width + _NAME)
    return JoinedPlan((*_process(base, classes, width), *largest), sums + _MOMENT * pairs, sums + _FLEET_MOMENT * pairs)


def _process(base: BaseCost, classes: int, width: int) -> Iterator[PlanItem]:
    how = "measured in a child process" if base.measured else "estimate, not measured here"
    yield PlanItem("Python and libraries", base.process.anonymous_bytes, base.process.file_bytes, how)
    yield PlanItem("Flower", *FLOWER_BYTES, "flwr and what it brings, measured once")
    yield PlanItem("head", HEAD_BYTES * classes * width, 0, f"{classes} classes x {width}")


def _solved(width: int) -> Iterator[PlanItem]:
    taken, note = int(MERGED_MATRICES * 8 * width**2), f"of {width} x {width}, {MERGED_MATRICES:g} whole at most"
    yield PlanItem("covariance of the head", taken, 0, note)


def _tried(sizes: BundleSizes, kept: Placement, width: int) -> Iterator[PlanItem]:
    yield PlanItem(
        "covariance of the head", int(TRIED_MATRICES * 8 * width**2), 0, f"of {width} x {width}, of two heads"
    )
    parts = weights_held(sizes.weights_bytes, sizes.precision, kept.prepacking)
    yield PlanItem("weights", *parts, f"{sizes.precision}, while a head is tried")
    yield PlanItem("inference session", *SESSION_BYTES, "onnxruntime's graph and kernels, measured once")
    placement = kept.model_copy(update={"parallel_queries": 1, "threads": 1})
    shape = f"{placement.micro_batch} picture(s) x 1 adapter"
    yield PlanItem("activations", activations(sizes, placement), 0, shape)
    side = sizes.image_side
    decoding = PICTURE_BYTES + PICTURE_BYTES_A_PIXEL * side**2 + 4 * 3 * side**2 * placement.micro_batch
    yield PlanItem("picture decoding", decoding, 0, "an ordinary picture")
