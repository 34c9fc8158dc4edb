"""What takes memory while a device learns, item by item: what a memory plan adds up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_zofc.algorithm.options import Options
from edge_zofc.algorithm.spsa import queries
from edge_zofc.device.memory_costs import (
    ARENA_OFF,
    LEFT_BEHIND,
    LOOP_BYTES,
    MORE_VECTORS,
    PICTURE_BYTES,
    PICTURE_BYTES_A_PIXEL,
    SESSION_BYTES,
    UNSHARED_TOGETHER,
    WIDENED,
    head_costs,
    step_costs,
    weights_held,
)
from edge_zofc.device.process_cost import BaseCost
from edge_zofc.storage.manifest import BundleSizes
from edge_zofc.storage.settings import Placement


@dataclass(frozen=True)
class PlanItem:
    """One thing that takes memory at the peak, in bytes, and where its number comes from."""

    name: str
    anonymous_bytes: int
    file_bytes: int
    note: str


@dataclass(frozen=True)
class Work:
    """What a run asks of a machine: ``base`` from ``measure_base``, ``classes`` C at the end of the stream.

    ``arena_bytes``: the limit of an accelerator's arena, or None. Weights and activations count as on a CPU there.
    """

    sizes: BundleSizes
    options: Options
    base: BaseCost
    classes: int
    threads: int
    arena_bytes: int | None = None

    @property
    def evaluations(self) -> int:
        """Adapters evaluated in a step, which also trains the head: Q + 1 one-sided, 2 Q + 1 two-sided; 1 if exact, or
        where the adapter rests and its features alone are asked for.
        """
        if self.options.estimator == "exact" or not self.options.moves:
            return 1
        return self.options.queries * len(queries(self.options.query_form, 1)) + 1


def plan_items(work: Work, choice: Placement) -> Iterator[PlanItem]:
    """All that takes memory at the peak of a process with this placement."""
    yield from _process_items(work, choice)
    yield from _learning_items(work, choice)
    side, b = work.sizes.image_side, choice.micro_batch
    yield PlanItem("picture buffer", 4 * 3 * side**2 * (b + 2), 0, f"{b} x 3 x {side} x {side}")
    decoding = PICTURE_BYTES + PICTURE_BYTES_A_PIXEL * side**2
    yield PlanItem("picture decoding", decoding, 0, "the largest picture, one at a time")
    yield PlanItem("loop", LOOP_BYTES, 0, "logs, journal, Python objects; allowance")


def _process_items(work: Work, choice: Placement) -> Iterator[PlanItem]:
    """Interpreter, libraries, weights and the session."""
    base = work.base
    how = "measured in a child process" if base.measured else "estimate, not measured here"
    yield PlanItem("Python and libraries", base.process.anonymous_bytes, base.process.file_bytes, how)
    if choice.head_backend == "torch" and base.torch is not None:
        yield PlanItem("torch", base.torch.anonymous_bytes, base.torch.file_bytes, f"import and first step; {how}")
    size, precision = work.sizes.weights_bytes, work.sizes.precision
    copied = "widened" if precision in WIDENED else "prepacked" if choice.prepacking else ""
    note = f"{copied} copy and what stays memory-mapped" if copied else "memory-mapped"
    yield PlanItem("weights", *weights_held(size, precision, choice.prepacking), f"{precision}, {note}")
    yield PlanItem("inference session", *SESSION_BYTES, "onnxruntime's graph and kernels, measured once")
    shape = f"{choice.micro_batch} picture(s) x {choice.parallel_queries} adapter(s)"
    note = f"{shape}, from {work.sizes.activations_from}, arena {'on' if choice.arena else 'off'}"
    yield PlanItem("activations", activations(work.sizes, choice), 0, note)


def _learning_items(work: Work, choice: Placement) -> Iterator[PlanItem]:
    """Adapter, features and head."""
    options, k = work.options, choice.parallel_queries
    size, width = work.sizes.adapter_size, work.sizes.feature_size
    # theta, velocity, the bundle's values, a direction and a gradient; K copies unless in place.
    copies = 5 + (k if k > 1 else 1) + MORE_VECTORS[options.optimizer] + (2 if options.directions != "whole" else 0)
    yield PlanItem("adapter", 4 * size * copies, 0, f"{size} parameters, {copies} arrays")
    # float32 once, and of one adapter the losses' float64 with two temporaries.
    evaluations = work.evaluations + (2 if options.optimizer == "conserve" else 0)
    features = options.batch_size * width * (4 * evaluations + 3 * 8)
    yield PlanItem("features of a batch", features, 0, f"{evaluations} x {options.batch_size} x {width}")
    yield from _head_items(work, choice)


def _head_items(work: Work, choice: Placement) -> Iterator[PlanItem]:
    """The head at its largest, or while steps are taken, if the session that goes both ways needs more than that."""
    classes, width = max(work.classes, 1), work.sizes.feature_size
    largest = [PlanItem(name, size, 0, note) for name, size, note in head_costs(work.options, classes, width)]
    gradient = gradient_item(work, choice)
    if gradient is None:
        yield from largest
        return
    in_steps = [PlanItem(name, size, 0, note) for name, size, note in step_costs(work.options, classes, width)]
    most = [sum(item.anonymous_bytes for item in items) for items in (largest, in_steps)]
    if most[0] + sum(LEFT_BEHIND) > most[1] + gradient.anonymous_bytes + gradient.file_bytes:
        # That session is closed before the task ends: what it had is what the head's matrices take then.
        yield from largest
        yield PlanItem(gradient.name, *LEFT_BEHIND, "while steps are taken, in the room of the head's matrices")
    else:
        yield from [*in_steps, gradient]


def gradient_item(work: Work, choice: Placement) -> PlanItem | None:
    """What the session that goes both ways takes more; None where the adapter does not move by exact gradients."""
    if work.options.estimator != "exact" or not work.options.moves:
        return None
    return both_ways_item(work.sizes, choice)


def both_ways_item(sizes: BundleSizes, choice: Placement) -> PlanItem | None:
    """What the session that goes both ways takes more; None where no graph for it is known."""
    if sizes.gradient is None:
        return None
    ways = {(one.prepacking, one.arena): one for one in sizes.gradient}
    found = ways[choice.prepacking, choice.arena]
    # A run back has the room of a run forward, never both.
    more = max(0, (found.run or 0) - activations(sizes, choice))
    note = "weights for the way back, one picture at a time, from the export's measurement"
    return PlanItem("exact gradients", found.anonymous + more, found.file, note)


def activations(sizes: BundleSizes, choice: Placement) -> int:
    """Bytes of a run of the first graph."""
    together = sizes.activation_bytes.predict(choice.micro_batch, choice.parallel_queries)
    if choice.parallel_queries > 1 and not sizes.queries_share:
        together = int(together * UNSHARED_TOGETHER)
    return together if choice.arena else int(together * ARENA_OFF)
