"""One arm of ``bench gpu`` in torch: ``python -m edge_zofc.benchmarks.costs.gpu_torch REQUEST``.

Prints a line of JSON for each batch size: peak device memory as ``torch.cuda.max_memory_allocated`` counts it, weights
and pictures included, and the median seconds of a step. The pictures lie on the device. torch's own settings of TF32
are left as they are: off for products, on for convolutions.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.costs.setup import MIB, Setup, write_pictures
from edge_zofc.benchmarks.costs.variants import Variant

BATCHES = (1, 8, 48, 128)
WARM, TIMED = 2, 5
ENOUGH_SECONDS = 4.0
"""After so long one timed step will do."""


@dataclass(frozen=True)
class Arm:
    """A variant, whether it is the paper's network (``TorchStep``), and whether products are in bfloat16."""

    variant: Variant
    as_the_paper: bool = False
    bf16: bool = False

    @property
    def name(self) -> str:
        """What the results call it."""
        return f"{self.variant.name}{'-paper' * self.as_the_paper}{'-bf16' * self.bf16}"


def arms() -> list[Arm]:
    """All arms, those of the paper's claim first."""
    inference = Variant("inference", "inference", "inference", micro_batch=0)
    first = Variant("first-order", "first order, whole batch", "first-order", micro_batch=0)
    spsa = Variant("spsa", "SPSA, two-sided, in place", "spsa", form="two-sided", micro_batch=0)
    one = Variant("spsa-one-sided", "SPSA, one-sided, in place", "spsa", micro_batch=0)
    thrifty = Variant(
        "checkpoint", "first order, activation checkpointing", "first-order", micro_batch=0, checkpoint=True
    )
    micro = Variant("micro", "first order, 1 picture at a time, checkpointing", "first-order", checkpoint=True)
    spsa_micro = Variant("spsa-micro", "SPSA, two-sided, 8 pictures at a time", "spsa", form="two-sided", micro_batch=8)
    return [
        *(Arm(each, as_the_paper=True) for each in (first, spsa, inference)),
        *(Arm(each) for each in (first, spsa, thrifty, micro, spsa_micro, inference, one)),
        *(Arm(each, as_the_paper=True, bf16=True) for each in (first, spsa)),
        *(Arm(each, bf16=True) for each in (thrifty, inference)),
    ]


@dataclass(frozen=True)
class OneModel(Setup):
    """A setup whose backbone is made once a process."""

    def load(self) -> Any:
        """As ``Setup.load``."""
        return _loaded(Setup(self.folder, self.backbone, self.img_size, self.depth, self.random_weights))


@functools.cache
def _loaded(setup: Setup) -> Any:
    return setup.load()


def main(arguments: list[str]) -> None:
    """Read the request, a JSON object with "arm", "setup", "device" and "batches"; measure every batch size."""
    request = json.loads(arguments[0])
    arm = Arm(Variant(**request["arm"].pop("variant")), **request["arm"])
    largest = max(request["batches"])
    setup = OneModel(**{**request["setup"], "batch_size": largest})
    if not setup.pictures().exists():
        write_pictures(setup, setup.load().image.size)
    for batch in request["batches"]:
        found = _attempt(arm, dataclasses.replace(setup, batch_size=batch), request["device"])
        sys.stdout.write(json.dumps({"arm": arm.name, "batch": batch, **found}) + "\n")
        sys.stdout.flush()


def _attempt(arm: Arm, setup: OneModel, device: str) -> dict[str, Any]:
    try:
        return measure(arm, setup, device)
    except RuntimeError as error:  # out of memory, above all
        return {"failed": str(error).splitlines()[0][:300]}


def measure(arm: Arm, setup: OneModel, device: str, timed: int = TIMED) -> dict[str, Any]:
    """Memory in MiB, None without CUDA, and seconds of one batch size."""
    import torch

    is_cuda = device.startswith("cuda")
    gc.collect()
    if is_cuda:
        torch.cuda.empty_cache()
    step = _on_device(arm, setup, device)
    built = torch.cuda.memory_allocated() if is_cuda else 0
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    loss, seconds = 0.0, list[float]()
    with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=arm.bf16):
        for count in range(WARM + timed):
            if count > WARM and sum(seconds) > ENOUGH_SECONDS:
                break
            began = time.perf_counter()
            loss = step.step()
            if is_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    found = {"seconds": statistics.median(seconds[WARM:]), "loss": loss}
    if is_cuda:
        found["built_mib"] = built / MIB
        found["peak_mib"] = torch.cuda.max_memory_allocated() / MIB
        found["reserved_mib"] = torch.cuda.max_memory_reserved() / MIB
    return found


def _on_device(arm: Arm, setup: OneModel, device: str) -> Any:
    from edge_zofc.benchmarks.costs.in_torch import TorchStep

    class OnDevice(TorchStep):
        """The pictures lie on the device: no step reads or copies them."""

        def __init__(self) -> None:
            super().__init__(setup, arm.variant, device, arm.as_the_paper)
            self.kept = list(super()._micro_batches())

        def _micro_batches(self) -> Iterator[Any]:
            return iter(self.kept)

    return OnDevice()


def request_of(arm: Arm, setup: Setup, device: str, batches: tuple[int, ...]) -> str:
    """What ``main`` reads."""
    asked = {"arm": dataclasses.asdict(arm), "setup": dataclasses.asdict(setup), "device": device, "batches": batches}
    return json.dumps(asked)


def with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, with how many times the peak of first order of the same network, precision and batch is this one's."""
    peaks = {(row["arm"], row["batch"]): row.get("peak_mib") for row in rows}

    def ratio(row: dict[str, Any]) -> float | None:
        end = row["arm"].partition("-paper")[1] + ("-bf16" if row["arm"].endswith("-bf16") else "")
        first = peaks.get((f"first-order{end}", row["batch"]))
        return first / row["peak_mib"] if first and row.get("peak_mib") else None

    return [{**row, "ratio": ratio(row)} for row in rows]


COLUMNS = {
    "arm": ("arm", ""),
    "batch": ("batch", "d"),
    "peak_mib": ("peak MiB allocated", ".0f"),
    "reserved_mib": ("reserved", ".0f"),
    "built_mib": ("before the first step", ".0f"),
    "ratio": ("first order / this", ".2f"),
    "seconds": ("s a step", ".4f"),
}


def folder_setup(folder: Path, tiny: bool, threads: int) -> Setup:
    """ViT-B/16 at 224 px, or for ``tiny`` two blocks of the package's ViT."""
    if tiny:
        return Setup(str(folder), depth=2)
    return Setup(str(folder), "vit_base_patch16_224", random_weights=True, threads=threads)


if __name__ == "__main__":
    main(sys.argv[1:])
