"""The arms, and the child process that is one of them: ``python -m edge_zofc.benchmarks.cost_arms REQUEST``.

A child reads lines: ``step`` runs one batch and answers {"seconds", "forward_seconds", "loss"}, ``memory``
answers its peaks; it ends with its input. So several can stay alive and be measured in turn.

What may surprise: nothing heavy is imported before the arm is known, and what its imports and a first call of torch
cost is reported apart ("base"): a CUDA build of torch takes several hundred MiB before any model is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from edge_zofc.benchmarks.costs.setup import Setup, as_request
from edge_zofc.device.system import PeakSampler, Usage, usage
from edge_zofc.errors import DoesNotFitError

Kind = Literal["inference", "zo-fc", "head", "first-order", "full", "spsa"]
REFERENCE = "zo-fc-in-place"


@dataclass(frozen=True)
class Arm:
    """One way to use or train the backbone. ``micro_batch`` 0: the whole batch at once.

    ``parallel`` adapters a run of the graph; ``arena``, ``prepacking``, ``head`` are the runtime's; ``checkpoint`` is
    torch's. Packed weights are as much memory in all, but none that the kernel may drop and read again.
    """

    name: str
    title: str
    kind: Kind
    precision: str = "fp32"
    blocks: Literal["early", "late"] = "early"
    form: Literal["one-sided", "two-sided"] = "one-sided"
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


def memory_arms(precisions: list[str], queries: int, micro_batch: int = 8) -> list[Arm]:
    """Issue 3's arms; those of onnxruntime once for each precision, torch's in fp32."""
    arms: list[Arm] = []
    for precision in precisions:
        end = "" if precision == precisions[0] else f"-{precision}"
        make = _maker(end, precision)
        arms += [
            make("inference", "inference", "inference"),
            make(REFERENCE, "ZO-FC in place, torch head", "zo-fc", head="torch"),
            make("zo-fc-in-place-numpy", "ZO-FC in place, numpy head", "zo-fc"),
            make(
                "zo-fc-fast",
                f"ZO-FC fast: {queries + 1} adapters x {micro_batch} pictures a run, torch head",
                "zo-fc",
                micro_batch=micro_batch,
                parallel=queries + 1,
                arena=True,
                prepacking=True,
                head="torch",
            ),
            make("head-only", "head only, on frozen features (numpy)", "head"),
        ]
    whole = {"micro_batch": 0}
    make = _maker("", "fp32")
    return [
        *arms,
        make("fo-batch", "first order: adapter + head, whole batch", "first-order", **whole),
        make(
            "fo-checkpoint",
            "first order, activation checkpointing",
            "first-order",
            checkpoint=True,
            **whole,
        ),
        make(
            "fo-micro",
            "first order at its best: 1 picture at a time, checkpointing",
            "first-order",
            checkpoint=True,
        ),
        make("full", "full fine-tuning, whole batch", "full", **whole),
    ]


def _maker(end: str, precision: str) -> Any:
    def make(name: str, title: str, kind: Kind, **rest: Any) -> Arm:
        return Arm(name + end, f"{title} ({precision})", kind, precision, **rest)

    return make


class Child:
    """A running arm; a context manager. Raises DoesNotFitError, with its last line, if the process ends.

    ``sampled``: it watches its memory all the time. Where many arms wait for their turn that would take a good part of
    a core, so ``bench speed`` goes without.
    """

    def __init__(self, setup: Setup, arm: Arm, sampled: bool = True) -> None:
        self.arm = arm
        request = Path(setup.folder) / f"{arm.name}.request.json"
        request.write_text(json.dumps({**as_request(setup, arm), "sampled": sampled}))
        self._errors = (Path(setup.folder) / f"{arm.name}.stderr").open("w+")
        # This very package, in this very interpreter.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "edge_zofc.benchmarks.costs.arms", str(request.absolute())],
            cwd=setup.folder,  # not a checkout, whose edge_zofc/ would hide the installed package
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, what: str) -> dict[str, Any]:
        """Send a line, wait for its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(what + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process and wait for it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()

    def _fail(self) -> None:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        raise DoesNotFitError(
            f"The arm {self.arm.name} ended with code {code}: {lines[-1] if lines else 'no message'}"
        )


def main(arguments: list[str]) -> None:
    """The child process."""
    request = json.loads(Path(arguments[0]).read_text())
    setup, arm = Setup(**request["setup"]), Arm(**request["arm"])
    sampler = PeakSampler()
    with sampler if request["sampled"] else contextlib.nullcontext():
        _import(setup, arm)
        base = usage()
        stepper = _stepper(setup, arm)
        built = usage()
        for line in sys.stdin:
            if line.strip() == "step":
                answer: dict[str, Any] = _timed(stepper)
            else:
                answer = {
                    "base": dataclasses.asdict(base),
                    "built": dataclasses.asdict(built),
                    "peak": dataclasses.asdict(_peak(sampler)),
                }
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


def _import(setup: Setup, arm: Arm) -> None:
    import importlib

    if arm.in_torch or (arm.kind == "zo-fc" and arm.head == "torch"):
        # Of the arms in onnxruntime this one imports torch alone, not timm.
        importlib.import_module("torch")
        _first_backward(setup.threads)
    if arm.in_torch:
        importlib.import_module("edge_zofc.benchmarks.costs.in_torch")
    else:
        importlib.import_module("edge_zofc.benchmarks.costs.in_onnx")
        importlib.import_module("edge_zofc.engine.run" if arm.kind == "zo-fc" else "edge_zofc.engine.predict")


def _first_backward(threads: int) -> None:
    """Eight numbers: it starts threads and loads code that belong to torch, not to training."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    weights = torch.ones(4, 64, requires_grad=True)
    cosines = functional.normalize(torch.ones(8, 64)) @ functional.normalize(weights).T
    torch.autograd.grad(functional.cross_entropy(cosines, torch.zeros(8, dtype=torch.long)), weights)


def _stepper(setup: Setup, arm: Arm) -> Any:
    if arm.in_torch:
        from edge_zofc.benchmarks.costs.in_torch import TorchStep

        size = arm.micro_batch or setup.batch_size
        return TorchStep(setup, arm.kind, arm.blocks, size, arm.checkpoint, arm.form)
    from edge_zofc.benchmarks.costs.in_onnx import RuntimeStep
    from edge_zofc.inference.backbone import BackboneOptions

    options = BackboneOptions(
        micro_batch=min(arm.micro_batch or setup.batch_size, setup.batch_size),
        parallel_adapters=arm.parallel,
        threads=setup.threads,
        prepacking=arm.prepacking,
        arena=arm.arena,
    )
    folder = setup.bundle(arm.precision, arm.blocks)
    return RuntimeStep(setup, arm.kind, folder, options, arm.form, arm.head)


def _timed(stepper: Any) -> dict[str, Any]:
    before = getattr(stepper, "forward_seconds", 0.0)
    started = time.perf_counter()
    loss = stepper.step()
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "forward_seconds": getattr(stepper, "forward_seconds", 0.0) - before,
        "loss": loss,
    }


def _peak(sampler: PeakSampler) -> Usage:
    return sampler.peak()


if __name__ == "__main__":
    main(sys.argv[1:])
