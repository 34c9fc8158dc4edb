"""How flat is the minimum that a method found, and does flatness go with little forgetting?

    python -m edge_zofc.benchmarks.questions.flatness --stream S --methods zo-fc-torch,fo-fc --out FILE.json

On the test pictures of the old tasks, with the cross-entropy over all classes seen, after each task but the first:

    gradient_rise   L(p + rho g / |g|) - L(p) along the true gradient g, the SAM-style rise (arXiv 2010.01412)
    mean_rise, max_rise   of L(p + r s) - L(p) over random sign vectors s: a ball of radius r in L-infinity

p is the adapter and the trained rows together, as in the code of the ZO-FC authors. ZO-FC runs in torch here, because
the runtime of the device has no gradient.
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

from edge_zofc.benchmarks.accuracy.torch_cell import TorchBackbone, learn_all, make_problem, numbers, with_adapters
from edge_zofc.benchmarks.methods.problem import Problem, TaskData, read_tasks
from edge_zofc.benchmarks.methods.registry import MethodSettings, build, options_of
from edge_zofc.benchmarks.methods.zofc import AdapterAndHead
from edge_zofc.benchmarks.tables import write_json
from edge_zofc.data.stream import Sample, read_stream
from edge_zofc.export.adapted import AdapterRequest
from edge_zofc.export.backbones import BackboneRequest, load_backbone
from edge_zofc.export.shipped import OWN_VIT

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
    return {"loss": base, "gradient_rise": along, "mean_rise": statistics.fmean(around), "max_rise": max(around)}


def measure(
    method: AdapterAndHead, problem: Problem, old: list[TaskData], pictures: int, directions: int
) -> dict[str, float]:
    """Rises on at most ``pictures`` test pictures of the ``old`` tasks, spread evenly over them."""
    samples: list[Sample] = [sample for task in old for sample in task.test]
    samples = samples[:: max(1, -(-len(samples) // pictures))]
    batches = list(problem.plain_batches(samples))
    rows = nn.Parameter(method.head.rows.clone())
    parameters = [*method.part, rows]
    sigma = float(method.head.sigma.detach())

    def loss() -> Tensor:
        losses = []
        for images, labels in batches:
            found = functional.normalize(method.features(images), dim=-1)
            logits = sigma * found @ functional.normalize(rows, dim=-1).T
            losses.append(functional.cross_entropy(logits, labels, reduction="sum"))
        return torch.stack(losses).sum() / len(samples)

    return rises(loss, parameters, directions, torch.Generator().manual_seed(problem.seed))


class _Watched:
    """A method that is measured after each task but the first."""

    def __init__(self, method: AdapterAndHead, problem: Problem, pictures: int, directions: int) -> None:
        self.method, self.problem, self.pictures, self.directions = method, problem, pictures, directions
        self.frozen, self.logits, self.parameters_of = method.frozen, method.logits, method.parameters_of
        self.found: list[dict[str, float]] = []

    def learn(self, task: TaskData) -> list[float]:
        losses = self.method.learn(task)
        if task.index:
            old = self.problem.tasks[: task.index]
            self.found.append(measure(self.method, self.problem, old, self.pictures, self.directions))
        return losses


def measure_method(name: str, backbone: TorchBackbone, options: argparse.Namespace) -> dict[str, Any]:
    """Learn the stream with one method; its rises after each task but the first, and its accuracies."""
    tasks = read_tasks(read_stream(options.stream))
    problem = make_problem(backbone, tasks, options.seed, options_of(name, options.preset))
    settings = MethodSettings(
        epochs=options.epochs, preset=options.preset, adapter_lr=options.adapter_lr, batch_size=options.batch_size
    )
    method = build(name, problem, settings)
    assert isinstance(method, AdapterAndHead)
    watched = _Watched(method, problem, options.pictures, options.directions)
    counted, _, _ = learn_all(problem, watched)
    known = numbers(counted)
    accuracies = {key: known[key] for key in ("average_accuracy", "last_accuracy", "forgetting")}
    return {"after_task": watched.found, **accuracies}


def _parser() -> argparse.ArgumentParser:
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
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment on the package's ViT; prints and writes one JSON object."""
    options = _parser().parse_args(argv)
    torch.set_num_threads(1)
    backbone = with_adapters(load_backbone(BackboneRequest(OWN_VIT)), AdapterRequest())
    methods = {name: measure_method(name, backbone, options) for name in options.methods.split(",")}
    answer = {"rho": RHO, "radius": RADIUS, "methods": methods}
    write_json(options.out, answer)
    print(json.dumps(answer))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
