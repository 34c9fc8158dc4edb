"""How flat is the minimum that a method found, and does it go with forgetting? (the ZO-FC paper's question)

    python -m edge_zofc.benchmarks.flatness --stream S --methods zo-fc-torch,fo-fc,zo-all --epochs 2 --out FILE.json

On the *old* tasks' test pictures, with the cross-entropy over all classes seen, after each task but the first:

    gradient_rise   L(p + rho g / |g|) - L(p) along the true gradient g, the SAM-style rise (arXiv 2010.01412)
    mean_rise, max_rise   of L(p + r s) - L(p) over random sign vectors s: a ball of radius r in L-infinity

What may surprise: everything is over the adapter and the trained rows together, as the authors' code has it; and
ZO-FC is run in torch here, because the device runtime has no gradient to ask for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_zofc.algorithm.options import PRESETS
from edge_zofc.benchmarks.methods.problem import Problem, TaskData, read_tasks
from edge_zofc.benchmarks.methods.registry import Settings, build
from edge_zofc.benchmarks.methods.zofc import AdapterAndHead
from edge_zofc.data.stream import Sample, read_stream
from edge_zofc.export.backbones import load_backbone

METHODS = ("zo-fc-torch", "fo-fc", "zo-all", "fo-adapter+zo-head")
RADIUS = 0.005
RHO = 0.05


def rises(
    loss: Callable[[], Tensor],
    parameters: Sequence[nn.Parameter],
    directions: int,
    generator: torch.Generator,
    radius: float = RADIUS,
    rho: float = RHO,
) -> dict[str, float]:
    """The three rises of ``loss`` around ``parameters``, which come back as they were."""
    value = loss()
    gradient = torch.autograd.grad(value, list(parameters))
    norm = torch.stack([g.norm() for g in gradient]).norm().clamp(min=1e-12)
    base = float(value.detach())

    def rise(steps: Sequence[Tensor]) -> float:
        kept = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p, step in zip(parameters, steps, strict=True):
                p.add_(step)
            found = float(loss()) - base
            for p, start in zip(parameters, kept, strict=True):
                p.copy_(start)
        return found

    along = rise([rho * g / norm for g in gradient])
    around = [
        rise([radius * (torch.randint(0, 2, p.shape, generator=generator) * 2.0 - 1) for p in parameters])
        for _ in range(directions)
    ]
    return {
        "loss": base,
        "gradient_rise": along,
        "mean_rise": statistics.fmean(around),
        "max_rise": max(around),
    }


def measure(
    method: AdapterAndHead, problem: Problem, old: list[TaskData], pictures: int, directions: int
) -> dict[str, float]:
    """Rises on at most ``pictures`` test pictures of the ``old`` tasks, spread evenly over them."""
    samples: list[Sample] = [sample for task in old for sample in task.test]
    samples = samples[:: max(1, -(-len(samples) // pictures))]
    batches = list(problem.plain_batches(samples))
    rows = nn.Parameter(method.head.rows.clone())
    adapters = method.adapters
    assert adapters is not None
    parameters = [*adapters.parameters(), rows]
    sigma = float(method.head.sigma.detach())

    def loss() -> Tensor:
        losses = []
        for images, labels in batches:
            found = functional.normalize(problem.features(images, adapters.parts()), dim=-1)
            logits = sigma * found @ functional.normalize(rows, dim=-1).T
            losses.append(functional.cross_entropy(logits, labels, reduction="sum"))
        return torch.stack(losses).sum() / len(samples)

    return rises(loss, parameters, directions, torch.Generator().manual_seed(problem.seed))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment on the package's ViT; prints and writes one JSON object."""
    from edge_zofc.benchmarks.accuracy.cell import learn_all, numbers

    parser = argparse.ArgumentParser(prog="python -m edge_zofc.benchmarks.questions.flatness")
    parser.add_argument("--stream", type=Path, required=True)
    parser.add_argument("--methods", default="zo-fc-torch,fo-fc,zo-all", help=", ".join(METHODS))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--preset", choices=("edge", "paper"), default="edge")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--directions", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1993)
    parser.add_argument("--adapter-lr", type=float, help="default: the preset's")
    parser.add_argument("--batch-size", type=int, help="default: the preset's")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    loaded = load_backbone()
    settings = Settings(
        epochs=options.epochs,
        preset=options.preset,
        adapter_lr=options.adapter_lr,
        batch_size=options.batch_size,
    )
    answer: dict[str, Any] = {"rho": RHO, "radius": RADIUS, "methods": {}}
    for name in options.methods.split(","):
        torch.manual_seed(options.seed)
        problem = Problem(loaded.model, loaded.image, read_tasks(read_stream(options.stream)), options.seed)
        problem.normalise, problem.augment = (
            PRESETS[options.preset].normalise,
            PRESETS[options.preset].augment,
        )
        method = build(name, problem, settings)
        assert isinstance(method, AdapterAndHead)
        found: list[dict[str, float]] = []
        watched = _Watched(
            method,
            lambda task, m=method, p=problem, out=found: out.append(  # type: ignore[misc]
                measure(m, p, p.tasks[: task.index], options.pictures, options.directions)
            ),
        )
        counted, _, _ = learn_all(problem, watched)
        known = numbers(counted)
        answer["methods"][name] = {
            "after_task": found,
            **{key: known[key] for key in ("average_accuracy", "last_accuracy", "forgetting")},
        }
    options.out.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(answer))  # noqa: T201
    return 0


class _Watched:
    """A method that is measured after each task but the first."""

    def __init__(self, method: AdapterAndHead, after: Callable[[TaskData], None]) -> None:
        self.method, self.after, self.frozen = method, after, method.frozen
        self.logits, self.parameters_of = method.logits, method.parameters_of

    def learn(self, task: TaskData) -> list[float]:
        losses = self.method.learn(task)
        if task.index:
            self.after(task)
        return losses


if __name__ == "__main__":
    sys.exit(main())
