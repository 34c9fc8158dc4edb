"""The variants that are compared: ZO-FC in several configurations, inference, and first order and SPSA in torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from edge_zofc.benchmarks.costs.setup import Setup

Kind = Literal["inference", "zo-fc", "head", "first-order", "full", "spsa"]
Blocks = Literal["early", "late"]
Form = Literal["one-sided", "two-sided"]
BLOCKS: tuple[Blocks, ...] = ("early", "late")
FORMS: tuple[Form, ...] = ("one-sided", "two-sided")
REFERENCE = "zo-fc-in-place"
"""The variant that the memory of all others is compared with."""


@dataclass(frozen=True)
class Variant:
    """One way to use or train the backbone. ``micro_batch`` 0: the whole batch at once.

    ``parallel`` adapters a run of the graph. ``arena``, ``prepacking`` and ``head`` are options of the runtime,
    ``checkpoint`` (activation checkpointing) is one of torch. Packed weights take as much memory as unpacked ones, but
    the kernel cannot drop them and read them again.
    """

    name: str
    title: str
    kind: Kind
    precision: str = "fp32"
    blocks: Blocks = "early"
    form: Form = "one-sided"
    micro_batch: int = 1
    parallel: int = 1
    arena: bool = False
    prepacking: bool = False
    head: Literal["torch", "numpy"] = "numpy"
    checkpoint: bool = False

    @property
    def in_torch(self) -> bool:
        """Whether the backbone itself runs in torch."""
        return self.kind in ("first-order", "full", "spsa")

    def pictures_a_run(self, setup: Setup) -> int:
        """b, at most the batch."""
        return min(self.micro_batch or setup.batch_size, setup.batch_size)


def memory_variants(precisions: list[str], queries: int, micro_batch: int = 8) -> list[Variant]:
    """Those of ``bench memory``: of onnxruntime once for each precision, of torch in fp32."""
    found: list[Variant] = []
    for precision in precisions:
        end = "" if precision == precisions[0] else f"-{precision}"
        found += _in_onnxruntime(precision, end, queries, micro_batch)
    return [*found, *_in_torch()]


def _in_onnxruntime(precision: str, end: str, queries: int, micro_batch: int) -> list[Variant]:
    def make(name: str, title: str, kind: Kind, **rest: Any) -> Variant:
        return Variant(name + end, f"{title} ({precision})", kind, precision, **rest)

    fast = f"ZO-FC fast: {queries + 1} adapters x {micro_batch} pictures a run, torch head"
    room = {"micro_batch": micro_batch, "parallel": queries + 1, "arena": True, "prepacking": True}
    return [
        make("inference", "inference", "inference"),
        make(REFERENCE, "ZO-FC in place, torch head", "zo-fc", head="torch"),
        make("zo-fc-in-place-numpy", "ZO-FC in place, numpy head", "zo-fc"),
        make("zo-fc-fast", fast, "zo-fc", head="torch", **room),
        make("head-only", "head only, on frozen features (numpy)", "head"),
    ]


def _in_torch() -> list[Variant]:
    def make(name: str, title: str, kind: Kind, **rest: Any) -> Variant:
        return Variant(name, f"{title} (fp32)", kind, **rest)

    batch, checkpointed = "first order: adapter + head, whole batch", "first order, activation checkpointing"
    micro = "first order at its best: 1 picture at a time, checkpointing"
    return [
        make("fo-batch", batch, "first-order", micro_batch=0),
        make("fo-checkpoint", checkpointed, "first-order", micro_batch=0, checkpoint=True),
        make("fo-micro", micro, "first-order", checkpoint=True),
        make("full", "full fine-tuning, whole batch", "full", micro_batch=0),
    ]


def speed_variants(
    precisions: list[str], blocks: list[str], forms: list[str], queries: int, fast: int
) -> list[Variant]:
    """Those of ``bench speed``: torch's for each place of the adapters, ZO-FC in every combination."""
    found: list[Variant] = []
    for where in (each for each in BLOCKS if each in blocks):
        chosen = [form for form in FORMS if form in forms]
        for size, how in ((0, "whole batch"), (fast, f"micro-batch {fast}")):
            end, place = f"{where}-{size}", f"in torch, {where} blocks"
            title = f"first order {place}, {how} (fp32)"
            found.append(Variant(f"fo-{end}", title, "first-order", blocks=where, micro_batch=size))
            for form in chosen:
                name, title = f"spsa-{end}-{form}", f"SPSA {place}, {form}, {how} (fp32)"
                found.append(Variant(name, title, "spsa", blocks=where, form=form, micro_batch=size))
        for precision in precisions:
            for form in chosen:
                found += _zofc(precision, where, form, queries, fast)
    return found


def _zofc(precision: str, where: Blocks, form: Form, queries: int, fast: int) -> list[Variant]:
    count = queries + 1 if form == "one-sided" else 2 * queries + 1
    return [
        Variant(
            f"zo-{precision}-{where}-{form}-{size}-{parallel}",
            f"ZO-FC {how}, {where} blocks, {form} ({precision})",
            *("zo-fc", precision, where, form, size, parallel),
            arena=size > 1,
            prepacking=size > 1,
        )
        for size, parallel, how in ((1, 1, "in place"), (fast, 1, f"b {fast}"), (fast, count, "fast"))
    ]
