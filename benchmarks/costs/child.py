"""The process that is one variant: ``python -m edge_zofc.benchmarks.costs.child REQUEST``.

It reads lines. ``step`` runs one batch and answers {"seconds", "forward_seconds", "loss"}. ``memory`` answers the
memory after the imports ("base"), with the model ("built") and at the peak ("peak"). It ends when its input ends.
Several variants can stay alive and be measured in turn.

Nothing heavy is imported before the variant is known. A CUDA build of torch takes several hundred MiB before there is
a model, so what the imports and a first call of torch take is reported apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.costs.setup import Setup
from edge_zofc.benchmarks.costs.variants import Variant
from edge_zofc.benchmarks.process import Child, command
from edge_zofc.device.system import PeakSampler, usage


def start(setup: Setup, variant: Variant, sampled: bool = True) -> Child:
    """A process that is this variant.

    ``sampled``: it samples its memory all the time. Where many variants wait for their turn, sampling takes a good part
    of a core, so ``bench speed`` does without.
    """
    request = Path(setup.folder) / f"{variant.name}.request.json"
    asked = {"setup": dataclasses.asdict(setup), "variant": dataclasses.asdict(variant), "sampled": sampled}
    request.write_text(json.dumps(asked))
    return Child(f"The arm {variant.name}", command(__name__, request.absolute()))


def main(arguments: list[str]) -> None:
    """Read the request, then answer every line."""
    request = json.loads(Path(arguments[0]).read_text())
    setup, variant = Setup(**request["setup"]), Variant(**request["variant"])
    sampler = PeakSampler()
    with sampler if request["sampled"] else contextlib.nullcontext():
        _import(setup, variant)
        base = usage()
        stepper = _stepper(setup, variant)
        built = usage()
        for line in sys.stdin:
            if line.strip() == "step":
                answer: dict[str, Any] = _timed(stepper)
            else:
                found = {"base": base, "built": built, "peak": sampler.peak()}
                answer = {name: dataclasses.asdict(used) for name, used in found.items()}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


def _import(setup: Setup, variant: Variant) -> None:
    if variant.in_torch or (variant.kind == "zo-fc" and variant.head == "torch"):
        # A variant of onnxruntime with the torch head imports torch, and not timm.
        importlib.import_module("torch")
        first_backward(setup.threads)
    if variant.in_torch:
        importlib.import_module("edge_zofc.benchmarks.costs.in_torch")
    else:
        importlib.import_module("edge_zofc.benchmarks.costs.in_onnx")
        importlib.import_module(f"edge_zofc.engine.{'run' if variant.kind == 'zo-fc' else 'predict'}")


def first_backward(threads: int) -> None:
    """Differentiate eight numbers: it starts threads and loads code that belong to torch, not to training."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    weights = torch.ones(4, 64, requires_grad=True)
    cosines = functional.normalize(torch.ones(8, 64)) @ functional.normalize(weights).T
    torch.autograd.grad(functional.cross_entropy(cosines, torch.zeros(8, dtype=torch.long)), weights)


def _stepper(setup: Setup, variant: Variant) -> Any:
    if variant.in_torch:
        from edge_zofc.benchmarks.costs.in_torch import TorchStep

        return TorchStep(setup, variant)
    from edge_zofc.benchmarks.costs.in_onnx import RuntimeStep

    return RuntimeStep(setup, variant)


def _timed(stepper: Any) -> dict[str, Any]:
    before = getattr(stepper, "forward_seconds", 0.0)
    started = time.perf_counter()
    loss = stepper.step()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "forward_seconds": getattr(stepper, "forward_seconds", 0.0) - before, "loss": loss}


if __name__ == "__main__":
    main(sys.argv[1:])
