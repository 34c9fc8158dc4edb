"""What a device takes that is joined to a fleet over a network (``edge-zofc fleet join``), and what it sends and gets.

It has a session while it tries a new head on its own test pictures, and in a fleet that takes steps (``fleet serve
--steps``) while it measures them and judges what came of them. It does not know beforehand whether its fleet will, nor
by which estimator. So steps are counted, by exact gradients where the bundle has them. A device that learns and is
joined has both processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edge_zofc.device.memory_costs import (
    FLOWER_BYTES,
    JUDGED_MATRICES,
    MERGED_MATRICES,
    PICTURE_BYTES,
    PICTURE_BYTES_A_PIXEL,
    SESSION_BYTES,
    STEPPED_MATRICES,
    TRIED_MATRICES,
    weights_held,
)
from edge_zofc.device.memory_items import PlanItem, activations, both_ways_item
from edge_zofc.device.process_cost import BaseCost
from edge_zofc.device.teaching_plan import HEAD_BYTES
from edge_zofc.storage.manifest import BundleSizes
from edge_zofc.storage.settings import Placement

_SUM, _MOMENT, _FLEET_MOMENT, _NAME = 3, 5, 6, 30
"""Bytes of an integer of sums and second moments, of one device and of a fleet of thousands; of a class beside them."""


@dataclass(frozen=True)
class JoinedPlan:
    """Items that add up to the peak, in a fleet that takes steps; ``moment`` says when it is, as a clause.

    ``without_steps_bytes``: the peak in a fleet that takes none. ``up_bytes`` go to the fleet once a task,
    ``down_bytes`` come with each head; what a step sends is not in them.
    """

    items: tuple[PlanItem, ...]
    moment: str
    without_steps_bytes: int
    up_bytes: int
    down_bytes: int

    @property
    def peak_bytes(self) -> int:
        """What the resident set should reach."""
        return _together(self.items)


def joined_plan(sizes: BundleSizes, kept: Placement, base: BaseCost, classes: int) -> JoinedPlan:
    """The plan of a joined device that tries heads on test pictures; ``kept``: the run's placement, ``classes`` C."""
    width, classes = sizes.feature_size, max(classes, 1)
    pairs = width * (width + 1) // 2
    always = tuple(_process(base, classes, width))
    # Never two of them at once: the solver has given its matrices back when a head is tried, and a fleet asks for
    # shares, which closes the session, before it sends a head and before it judges.
    without = {"while a head is solved": tuple(_solved(width)), "while a head is tried": tuple(_tried(sizes, kept))}
    every = without | _in_steps(sizes, kept)
    moment = max(every, key=lambda when: _together(every[when]))
    sums = classes * (_SUM * width + _NAME)
    return JoinedPlan(
        items=(*always, *every[moment]),
        moment=moment,
        without_steps_bytes=_together(always) + max(map(_together, without.values())),
        up_bytes=sums + _MOMENT * pairs,
        down_bytes=sums + _FLEET_MOMENT * pairs,
    )


def _together(items: Iterable[PlanItem]) -> int:
    return sum(item.anonymous_bytes + item.file_bytes for item in items)


def _process(base: BaseCost, classes: int, width: int) -> Iterator[PlanItem]:
    how = "measured in a child process" if base.measured else "estimate, not measured here"
    yield PlanItem("Python and libraries", base.process.anonymous_bytes, base.process.file_bytes, how)
    yield PlanItem("Flower", *FLOWER_BYTES, "flwr and what it brings, measured once")
    yield PlanItem("head", HEAD_BYTES * classes * width, 0, f"{classes} classes x {width}")


def _solved(width: int) -> Iterator[PlanItem]:
    taken, note = int(MERGED_MATRICES * 8 * width**2), f"of {width} x {width}, {MERGED_MATRICES:g} whole at most"
    yield PlanItem("covariance of the head", taken, 0, note)


def _tried(sizes: BundleSizes, kept: Placement) -> Iterator[PlanItem]:
    yield _matrices(TRIED_MATRICES, sizes.feature_size, "of two heads")
    yield from _session(sizes, kept.model_copy(update={"parallel_queries": 1}), "while a head is tried")


def _in_steps(sizes: BundleSizes, kept: Placement) -> dict[str, tuple[PlanItem, ...]]:
    """What is added by a fleet that takes steps: measured by either estimator, then judged."""
    width, found = sizes.feature_size, dict[str, tuple[PlanItem, ...]]()
    # The way back takes one adapter; two are compared when they are judged.
    single = kept.model_copy(update={"parallel_queries": 1})
    both = kept.model_copy(update={"parallel_queries": min(2, kept.parallel_queries)})
    shares = "of shares and whitening"
    when = "while a step of the fleet is measured by forward passes"
    found[when] = (_matrices(STEPPED_MATRICES, width, shares), *_session(sizes, kept, when))
    gradient = both_ways_item(sizes, single)
    if gradient is not None:
        when = "while a step of the fleet is measured by exact gradients"
        found[when] = (_matrices(STEPPED_MATRICES, width, shares), *_session(sizes, single, when), gradient)
    when = "while the fleet's moved adapter is judged"
    found[when] = (_matrices(JUDGED_MATRICES, width, "of shares and two heads"), *_session(sizes, both, when))
    return found


def _matrices(whole: float, width: int, what: str) -> PlanItem:
    note = f"of {width} x {width}, {whole:g} whole, {what}"
    return PlanItem("covariance of the head", int(whole * 8 * width**2), 0, note)


def _session(sizes: BundleSizes, placement: Placement, when: str) -> Iterator[PlanItem]:
    """An open session and what feeds it."""
    parts = weights_held(sizes.weights_bytes, sizes.precision, placement.prepacking)
    yield PlanItem("weights", *parts, f"{sizes.precision}, {when}")
    yield PlanItem("inference session", *SESSION_BYTES, "onnxruntime's graph and kernels, measured once")
    shape = f"{placement.micro_batch} picture(s) x {placement.parallel_queries} adapter(s)"
    yield PlanItem("activations", activations(sizes, placement), 0, shape)
    side = sizes.image_side
    decoding = PICTURE_BYTES + PICTURE_BYTES_A_PIXEL * side**2 + 4 * 3 * side**2 * placement.micro_batch
    yield PlanItem("picture decoding", decoding, 0, "an ordinary picture")
