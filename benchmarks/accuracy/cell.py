"""One cell of the comparison, a method with a seed, in a process of its own.

    python -m edge_zofc.benchmarks.cell REQUEST.json CELL.json

What may surprise: the process is what is measured. Its peak resident memory includes Python and torch, as it
would on a device, and the file appears only when the cell is finished.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from edge_zofc.algorithm.metrics import mean_per_class_accuracy, summarise
from edge_zofc.benchmarks.methods.names import SEARCH_FACTORS, TRAINING_FREE, best
from edge_zofc.data.stream import read_stream


class Request(BaseModel):
    """What one cell is asked to do; paths are absolute. ``search`` counts the learning rates to try.

    ``batch_size`` None: each method's own. ``adapter_lr`` and ``clip_norm`` None: the preset's; both are for ZO-FC's
    relatives in torch. ``lr_factor`` multiplies every rate of a method in torch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    seed: int
    stream: Path
    bundle: Path | None
    backbone: str | None
    checkpoint: Path | None
    img_size: int | None
    preset: str
    epochs: int
    epoch_factor: int
    search: int
    threads: int
    work: Path
    learn_options: tuple[str, ...] = ()
    adapter_lr: float | None = None
    batch_size: int | None = None
    clip_norm: float | None = None
    lr_factor: float = 1.0


@dataclass
class Counted:
    """Right answers by stage and task, and by class at the last stage."""

    correct: list[list[int]]
    total: list[int]
    correct_by_class: list[int]
    total_by_class: list[int]


def run(request: Request) -> dict[str, Any]:
    """Run the cell; returns what is written to its file."""
    if request.method == "zo-fc":
        from edge_zofc.benchmarks.accuracy.runtime_cell import run_zofc

        return run_zofc(request)
    return run_in_torch(request)


def run_in_torch(request: Request) -> dict[str, Any]:
    """All methods but zo-fc."""
    import torch

    from edge_zofc.algorithm.options import PRESETS
    from edge_zofc.benchmarks.methods.problem import Problem, read_tasks, validation_task
    from edge_zofc.benchmarks.methods.registry import build, training

    torch.set_num_threads(request.threads)
    vit, spec = load_vit(request)
    settings = settings_of(request)
    # One transform for all methods, that of ``learn`` under the same preset.
    preset = PRESETS[settings.preset]
    transform = (preset.normalise, preset.augment)
    tasks = read_tasks(read_stream(request.stream))
    searched, search_forwards = {}, 0
    if request.search > 1 and request.method not in TRAINING_FREE:
        for factor in SEARCH_FACTORS[: request.search]:
            torch.manual_seed(request.seed)
            part = [validation_task(tasks[0])]
            trial = Problem(vit, spec, part, request.seed, *transform, task_count=len(tasks))
            tried = build(request.method, trial, replace(settings, lr_factor=request.lr_factor * factor))
            counted, _, _ = learn_all(trial, tried)
            searched[str(factor)] = counted.correct[0][0] / max(1, counted.total[0])
            search_forwards += trial.cost.forwards
        settings = replace(settings, lr_factor=request.lr_factor * best(searched))
    torch.manual_seed(request.seed)
    problem = Problem(vit, spec, tasks, request.seed, *transform)
    method = build(request.method, problem, settings)
    counted, details, seconds = learn_all(problem, method)
    cost = problem.cost
    how = {} if request.method in TRAINING_FREE else asdict(training(request.method, settings))
    return {
        **numbers(counted),
        **details,
        "forward_passes": cost.forwards,
        "backward_passes": cost.backwards,
        "evaluation_forward_passes": cost.evaluation_forwards,
        "seconds": round(seconds, 2),
        "peak_rss_mib": peak_rss_mib(),
        "training": how,
        "search": searched,
        "search_forward_passes": search_forwards,
    }


def learn_all(problem: Any, method: Any) -> tuple[Counted, dict[str, Any], float]:
    """Learn every task and evaluate after each; also losses and parameters by task, and seconds of learning."""
    import torch

    frozen_tests: list[Any] = []
    counted = Counted([], [], [], [])
    losses, parameters, seconds = [], [], 0.0
    for stage, task in enumerate(problem.tasks):
        started = time.monotonic()
        losses.append(method.learn(task))
        seconds += time.monotonic() - started
        parameters.append(method.parameters_of(task))
        problem.evaluating = True
        with torch.no_grad():
            if method.frozen:
                frozen_tests.append(problem.frozen_features(task.test) if task.test else None)
            right = [0] * task.classes_seen
            total = [0] * task.classes_seen
            row = []
            for index, seen in enumerate(problem.tasks[: stage + 1]):
                before = sum(right)
                cached = [frozen_tests[index]] if method.frozen and seen.test else None
                for inputs, labels in problem.plain_batches(seen.test) if cached is None else cached:
                    hits = method.logits(inputs).argmax(dim=-1) == labels
                    for label, hit in zip(labels.tolist(), hits.tolist(), strict=True):
                        right[label] += hit
                        total[label] += 1
                row.append(sum(right) - before)
        problem.evaluating = False
        counted.correct.append(row)
        counted.total.append(len(task.test))
        counted.correct_by_class, counted.total_by_class = right, total
    return counted, {"losses": losses, "trainable_parameters": parameters}, seconds


def numbers(counted: Counted) -> dict[str, Any]:
    """The metrics of ``edge_zofc.algorithm.metrics`` under the names of ``result.json``."""
    return {
        **asdict(summarise(counted.correct, counted.total)),
        "mean_per_class_accuracy": mean_per_class_accuracy(counted.correct_by_class, counted.total_by_class),
    }


def load_vit(request: Request) -> tuple[Any, Any]:
    """The torch backbone and its image transform. Raises InputError if it is not the bundle's."""
    from edge_zofc.errors import InputError
    from edge_zofc.export.backbones import load_backbone
    from edge_zofc.storage.bundle import read_bundle

    loaded = load_backbone(
        request.backbone,
        pretrained=request.backbone is not None and request.checkpoint is None,
        checkpoint=request.checkpoint,
        img_size=request.img_size,
    )
    if request.bundle is not None:
        inside = read_bundle(request.bundle).manifest.backbone
        if (inside.weights_sha256, inside.depth) != (loaded.info.weights_sha256, loaded.info.depth):
            raise InputError(
                f"{request.bundle} holds {inside.name} ({inside.depth} blocks), not the benchmark's backbone "
                f"{loaded.info.name} ({loaded.info.depth} blocks); give the same --backbone and --checkpoint."
            )
    return loaded.model, loaded.image


def settings_of(request: Request) -> Any:
    """Settings for ``methods.build``, with the layout of the bundle's adapter if there is a bundle."""
    from edge_zofc.benchmarks.methods.registry import Settings
    from edge_zofc.storage.bundle import read_bundle

    preset: Any = request.preset
    settings = Settings(
        epochs=request.epochs, preset=preset, epoch_factor=request.epoch_factor,
        adapter_lr=request.adapter_lr, batch_size=request.batch_size, clip_norm=request.clip_norm,
        lr_factor=request.lr_factor,
    )  # fmt: skip
    if request.bundle is None:
        return settings
    layout = read_bundle(request.bundle).manifest.adapter
    return replace(settings, blocks=layout.blocks, rank=layout.rank, scale=layout.scale)


def peak_rss_mib() -> float:
    """VmHWM of this process: the most that was resident since it began."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    return float("nan")


def main(arguments: list[str]) -> int:
    """Read the request, run it, write the cell."""
    request = Request.model_validate_json(Path(arguments[0]).read_text(encoding="utf-8"))
    stream = read_stream(request.stream)
    classes = [[stream.class_names[i] for i in task.class_ids] for task in stream.tasks]
    found = {"method": request.method, "seed": request.seed, "classes": classes, **run(request)}
    out = Path(arguments[1])
    part = out.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
