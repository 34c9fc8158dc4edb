"""The memory plan: what a ``learn`` process will need at its peak, and what to choose for a budget.

``plan`` adds up items (anonymous and file-backed apart) for each placement, from the fastest to the thriftiest, and
takes the first whose peak fits the budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil

from edge_zofc.algorithm.heads import HeadBackend
from edge_zofc.device.memory_costs import ARENA_RESERVED, MIB, PREPACKED, WIDENED
from edge_zofc.device.memory_items import PlanItem, Work, activations, gradient_item, plan_items
from edge_zofc.device.profiles import format_bytes
from edge_zofc.device.system import stack_bytes
from edge_zofc.errors import DoesNotFitError, InputError
from edge_zofc.storage.settings import Placement

MAX_MICRO_BATCH = 16
"""Beyond this a run of the graph gains no speed on a CPU; a larger one may be asked for."""
_LEAST_FILM_BATCH, _FILM_BATCH_A_THREAD = 4, 2
"""Films on the first block leave queries nothing to share: they gain nothing from one run, nor from more pictures than
this (EfficientNet-Lite0 at 128 px, one thread: 3.3 ms a picture and adapter with 4 x 1, 3.4 with 4 x 5, 3.8 with
16 x 5).
"""


@dataclass(frozen=True)
class MemoryPlan:
    """The placement that was chosen for a budget, the items that add up to its peak, and why.

    ``peak_bytes`` is what the resident set should reach, file-backed memory included. ``reserved_bytes`` is what the
    process maps beyond what it touches (thread stacks, the arena's blocks, onnxruntime's writable mapping of the
    weights), by which RLIMIT_DATA has to be larger.
    """

    items: tuple[PlanItem, ...]
    placement: Placement
    peak_bytes: int
    budget_bytes: int
    reserved_bytes: int
    reason: str

    @property
    def anonymous_bytes(self) -> int:
        """The anonymous part of the peak."""
        return sum(item.anonymous_bytes for item in self.items)

    @property
    def file_bytes(self) -> int:
        """The file-backed part of the peak."""
        return sum(item.file_bytes for item in self.items)


@dataclass(frozen=True)
class Fixed:
    """What of a placement is not the plan's to choose; None leaves the choice to it."""

    micro_batch: int | None = None
    parallel_queries: int | None = None
    head_backend: HeadBackend | None = None
    prepacking: bool | None = None

    @property
    def names(self) -> list[str]:
        """The options of the command line that are fixed."""
        names = ("micro-batch", "parallel-queries", "head")
        values = (self.micro_batch, self.parallel_queries, self.head_backend)
        return [name for name, value in zip(names, values, strict=True) if value is not None]


def plan(work: Work, budget_bytes: int, fixed: Fixed = Fixed()) -> MemoryPlan:
    """Choose a placement for ``budget_bytes``. Torch is taken wherever it fits at all, then speed before thrift.

    Raises DoesNotFitError with the shortfall and the nearest placement that fits, InputError for a number below 1.
    """
    asked = {
        "batch-size": work.options.batch_size, "threads": work.threads, "the memory budget": budget_bytes,
        "micro-batch": fixed.micro_batch, "parallel-queries": fixed.parallel_queries,
    }  # fmt: skip
    for name, value in asked.items():
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}, it must be at least 1.")
    if fixed.head_backend == "torch" and work.base.torch is None:
        raise InputError(
            "The torch head was asked for, but torch is not installed; install it with pip install 'edge-zofc[torch]'."
        )
    plans = []
    for choice in _choices(work, fixed):
        found = _planned(work, choice, budget_bytes, fixed)
        if found.peak_bytes <= budget_bytes:
            return found
        plans.append(found)
    raise DoesNotFitError(_does_not_fit(work, min(plans, key=lambda found: found.peak_bytes), fixed))


def peak_range(work: Work) -> tuple[int, int]:
    """Bytes of the thriftiest placement's peak, and of the one that is taken where there is room."""
    peaks = [_planned(work, choice, 0, Fixed()).peak_bytes for choice in _choices(work, Fixed())]
    return min(peaks), peaks[0]


def _choices(work: Work, fixed: Fixed) -> Iterator[Placement]:
    """Every placement, the most wanted first, the thriftiest last; only the smallest if none fits the arena."""
    batch, evaluations = work.options.batch_size, work.evaluations
    is_shared = work.sizes.queries_share
    most = min(batch, MAX_MICRO_BATCH)
    if not is_shared:
        most = min(most, max(_LEAST_FILM_BATCH, _FILM_BATCH_A_THREAD * work.threads))
    sizes = [most, *(size for size in (16, 8, 4, 2, 1) if size < most)]
    batches = sizes if fixed.micro_batch is None else [min(fixed.micro_batch, batch)]
    every = sorted({evaluations, ceil(evaluations / 2), 1}, reverse=True) if is_shared else [1]
    adapters = every if fixed.parallel_queries is None else [min(fixed.parallel_queries, evaluations)]
    # A head that is solved needs no torch, which is then never imported.
    may_use_torch = work.base.torch is not None and work.options.head == "cosine"
    heads: list[HeadBackend] = ["torch", "numpy"] if may_use_torch else ["numpy"]
    heads = heads if fixed.head_backend is None else [fixed.head_backend]
    packs = [True, False] if PREPACKED[work.sizes.precision][2] else [False]
    packs = packs if fixed.prepacking is None else [fixed.prepacking]
    for backend, prepacking, arena, count, size in product(heads, packs, (True, False), adapters, batches):
        choice = Placement(
            micro_batch=size, parallel_queries=count, threads=work.threads,
            prepacking=prepacking, arena=arena, head_backend=backend,
        )  # fmt: skip
        is_smallest = (size, count) == (batches[-1], adapters[-1])
        if is_smallest or _fits_arena(work, choice):
            yield choice


def _fits_arena(work: Work, choice: Placement) -> bool:
    taken = work.sizes.weights_bytes + activations(work.sizes, choice)
    return work.arena_bytes is None or taken <= work.arena_bytes


def _planned(work: Work, choice: Placement, budget_bytes: int, fixed: Fixed) -> MemoryPlan:
    items = tuple(plan_items(work, choice))
    peak = sum(item.anonymous_bytes + item.file_bytes for item in items)
    # The weights are mapped privately and writable, though never written.
    reserved = work.sizes.weights_bytes + int(activations(work.sizes, choice) * ARENA_RESERVED)
    if (gradient := gradient_item(work, choice)) is not None:
        # Weights that the way back has alone, mapped as the others.
        reserved += gradient.file_bytes + int(gradient.anonymous_bytes * ARENA_RESERVED)
    if choice.head_backend == "torch" and work.base.torch is not None:
        reserved += max(work.base.torch.data_bytes - work.base.torch.anonymous_bytes, 0)
    # Two pools of threads (onnxruntime's and torch's or BLAS's) and the sampler.
    reserved += (2 * work.threads + 1) * stack_bytes()
    return MemoryPlan(items, choice, peak, budget_bytes, reserved, _reason(work, choice, fixed))


def _reason(work: Work, choice: Placement, fixed: Fixed) -> str:
    together, step = choice.parallel_queries, work.evaluations
    some = f"{together} of {step} adapters a run" if together > 1 else "one adapter at a time, perturbed in place"
    every = "all queries of a step share one run" if step > 1 else "there are no queries"
    parts = [every if together == step else some]
    parts.append("arena on for speed" if choice.arena else "arena off to give activations back")
    if PREPACKED[work.sizes.precision][2]:
        parts.append("weights prepacked for speed" if choice.prepacking else "weights left memory-mapped")
    elif work.sizes.precision in WIDENED:
        parts.append(f"weights widened to fp32, as a processor has no {work.sizes.precision} of its own")
    else:
        parts.append(f"weights memory-mapped (prepacking {work.sizes.precision} is no faster)")
    if choice.head_backend == "numpy" and fixed.head_backend is None and work.options.head == "cosine":
        missing = work.base.torch is None
        parts.append(f"numpy head, as torch {'is not installed' if missing else 'does not fit beside the rest'}")
    return "; ".join(parts)


def _does_not_fit(work: Work, thriftiest: MemoryPlan, fixed: Fixed) -> str:
    """The sentence for the thriftiest plan that was allowed, and the nearest one that fits."""
    needed, budget = thriftiest.peak_bytes, thriftiest.budget_bytes
    text = (
        f"Learning needs {format_bytes(needed)} at its peak even with {thriftiest.placement}, which is "
        f"{format_bytes(needed - budget)} above the budget of {format_bytes(budget)}; "
    )
    free = [_planned(work, choice, budget, Fixed()) for choice in _choices(work, Fixed())]
    fits = next((found for found in free if found.peak_bytes <= budget), None)
    if fixed.names and fits is not None:
        advice = f"{fits.placement} fits with {format_bytes(fits.peak_bytes)}"
        return f"{text}leave the choice of {' and '.join(fixed.names)} to the plan: {advice}."
    least = min(found.peak_bytes for found in free)
    advice = f"the nearest that fits is a budget of {ceil(least / MIB)} MiB"
    if work.sizes.precision == "fp32" and work.sizes.has_linear_layers:
        # Of the weights w8 keeps 0.27 (ViT-B/16: 89 of 327 MiB).
        smaller = least - int(work.sizes.weights_bytes * 0.73)
        advice += f", or about {ceil(smaller / MIB)} MiB with a bundle exported with --precision w8"
    return f"{text}{advice}."
