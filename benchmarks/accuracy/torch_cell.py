"""The cells of all methods but zo-fc: learn every task of a stream in torch, and evaluate after each."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_zofc.algorithm.metrics import mean_per_class_accuracy, summarise
from edge_zofc.algorithm.options import Options
from edge_zofc.benchmarks.accuracy.request import CellRequest
from edge_zofc.benchmarks.methods.names import SEARCH_FACTORS, TRAINING_FREE, best
from edge_zofc.benchmarks.methods.problem import Method, Problem, TaskData, read_tasks, validation_task
from edge_zofc.benchmarks.methods.registry import MethodSettings, build, options_of, training
from edge_zofc.data.stream import read_stream
from edge_zofc.device.system import PeakSampler
from edge_zofc.errors import InputError
from edge_zofc.export.adapted import Adapted, AdapterRequest, adapted
from edge_zofc.export.backbones import BackboneRequest, LoadedBackbone, load_backbone
from edge_zofc.export.probe_pictures import probe_pictures
from edge_zofc.export.shipped import SHIPPED
from edge_zofc.export.writer import PICTURES
from edge_zofc.storage.bundle import read_bundle
from edge_zofc.storage.manifest import ImageSpec

TorchBackbone = tuple[Adapted, ImageSpec]
"""A backbone with adapters and its image transform."""
Batch = tuple[Tensor, Tensor]
"""Pictures or features, and class ids."""


@dataclass
class Counted:
    """Right answers by stage and task, and by class at the last stage."""

    correct: list[list[int]] = field(default_factory=list)
    total: list[int] = field(default_factory=list)
    correct_by_class: list[int] = field(default_factory=list)
    total_by_class: list[int] = field(default_factory=list)


def run_in_torch(request: CellRequest) -> dict[str, Any]:
    """Run the cell; returns what is written to its file. Raises InputError."""
    torch.set_num_threads(request.threads)
    backbone, settings = load(request), settings_of(request)
    tasks = read_tasks(read_stream(request.stream))
    searched: dict[str, float] = {}
    search_forwards = 0
    if request.search > 1 and request.method not in TRAINING_FREE:
        searched, search_forwards = _search(request, backbone, tasks, settings)
        settings = replace(settings, lr_factor=request.lr_factor * best(searched))
    problem = make_problem(backbone, tasks, request.seed, options_of(request.method, request.preset))
    counted, details, seconds = learn_all(problem, build(request.method, problem, settings))
    how = {} if request.method in TRAINING_FREE else asdict(training(request.method, settings))
    return {
        **numbers(counted),
        **details,
        "forward_passes": problem.passes.forwards,
        "backward_passes": problem.passes.backwards,
        "evaluation_forward_passes": problem.passes.evaluation_forwards,
        "seconds": round(seconds, 2),
        "peak_rss_mib": round(PeakSampler().peak().rss_bytes / 2**20, 1),
        "training": how,
        "search": searched,
        "search_forward_passes": search_forwards,
    }


def _search(
    request: CellRequest, backbone: TorchBackbone, tasks: list[TaskData], settings: MethodSettings
) -> tuple[dict[str, float], int]:
    """Accuracy under each factor of the learning rates on a validation part of the first task; forward passes."""
    found: dict[str, float] = {}
    forwards = 0
    for factor in SEARCH_FACTORS[: request.search]:
        part = [validation_task(tasks[0])]
        options = options_of(request.method, request.preset)
        trial = make_problem(backbone, part, request.seed, options, task_count=len(tasks))
        tried = build(request.method, trial, replace(settings, lr_factor=request.lr_factor * factor))
        counted, _, _ = learn_all(trial, tried)
        found[str(factor)] = counted.correct[0][0] / max(1, counted.total[0])
        forwards += trial.passes.forwards
    return found, forwards


def make_problem(
    backbone: TorchBackbone, tasks: list[TaskData], seed: int, options: Options, task_count: int = 0
) -> Problem:
    """The problem with the picture transform of ``learn`` under these options. Seeds torch."""
    torch.manual_seed(seed)
    return Problem(*backbone, tasks, seed, options.normalise, options.augment, task_count=task_count)


def learn_all(problem: Problem, method: Method) -> tuple[Counted, dict[str, Any], float]:
    """Learn every task and evaluate after each; also losses and parameters by task, and seconds of learning."""
    counted = Counted()
    frozen_tests: list[list[Batch]] = []
    losses, parameters, seconds = [], [], 0.0
    for task in problem.tasks:
        started = time.monotonic()
        losses.append(method.learn(task))
        seconds += time.monotonic() - started
        parameters.append(method.parameters_of(task))
        problem.evaluating = True
        with torch.no_grad():
            if method.frozen:
                frozen_tests.append([problem.frozen_features(task.test)] if task.test else [])
            _evaluate(problem, method, frozen_tests, counted)
        problem.evaluating = False
    return counted, {"losses": losses, "trainable_parameters": parameters}, seconds


def _evaluate(problem: Problem, method: Method, frozen_tests: list[list[Batch]], counted: Counted) -> None:
    """Count the right answers on the tests of the tasks learnt so far; a new row of ``counted``."""
    stage = len(counted.correct)
    task = problem.tasks[stage]
    right, total, row = [0] * task.classes_seen, [0] * task.classes_seen, []
    for index, seen in enumerate(problem.tasks[: stage + 1]):
        before = sum(right)
        for inputs, labels in frozen_tests[index] if method.frozen else problem.plain_batches(seen.test):
            hits = method.logits(inputs).argmax(dim=-1) == labels
            for label, hit in zip(labels.tolist(), hits.tolist(), strict=True):
                right[label] += hit
                total[label] += 1
        row.append(sum(right) - before)
    counted.correct.append(row)
    counted.total.append(len(task.test))
    counted.correct_by_class, counted.total_by_class = right, total


def numbers(counted: Counted) -> dict[str, Any]:
    """The metrics of ``edge_zofc.algorithm.metrics`` under the names of ``result.json``."""
    return {
        **asdict(summarise(counted.correct, counted.total)),
        "mean_per_class_accuracy": mean_per_class_accuracy(counted.correct_by_class, counted.total_by_class),
    }


def load(request: CellRequest) -> TorchBackbone:
    """The backbone in torch, with the adapters of the bundle if there is one. Raises InputError if it is another."""
    loaded = load_asked(request.backbone, request.checkpoint, request.img_size)
    if request.bundle is None:
        return with_adapters(loaded, AdapterRequest())
    manifest = read_bundle(request.bundle).manifest
    inside, layout = manifest.backbone, manifest.adapter
    mine = loaded.info.weights_sha256, loaded.info.depth, loaded.image.size
    if (inside.weights_sha256, inside.depth, manifest.image.size) != mine:
        raise InputError(
            f"{request.bundle} holds {inside.name} ({inside.depth} blocks, {manifest.image.size} px), not the "
            f"benchmark's backbone {loaded.info.name} ({loaded.info.depth} blocks, {loaded.image.size} px); give the "
            "same --backbone, --checkpoint and --img-size."
        )
    blocks = ",".join(map(str, layout.blocks))
    asked = AdapterRequest(layout.kind, blocks, layout.rank or None, layout.scale)
    return with_adapters(loaded, asked)[0], manifest.image


def load_asked(name: str | None, checkpoint: Path | None, side: int | None) -> LoadedBackbone:
    """The backbone that the options name, with timm's weights unless it brings its own. Raises InputError."""
    pretrained = name not in (None, *SHIPPED) and checkpoint is None
    return load_backbone(BackboneRequest(name, pretrained, checkpoint, img_size=side))


def with_adapters(loaded: LoadedBackbone, request: AdapterRequest) -> TorchBackbone:
    """The backbone with adapters as an export makes them. The backbone is changed. Raises InputError."""
    return adapted(loaded, request, probe_pictures(loaded.image, PICTURES)), loaded.image


def settings_of(request: CellRequest) -> MethodSettings:
    """What the request says of training."""
    return MethodSettings(
        epochs=request.epochs,
        preset=request.preset,
        epoch_factor=request.epoch_factor,
        adapter_lr=request.adapter_lr,
        batch_size=request.batch_size,
        clip_norm=request.clip_norm,
        lr_factor=request.lr_factor,
    )
