"""The arms of ``bench estimators``: inference, SPSA, exact gradients, first order in torch, a process each.

    fast      the plan chooses under a budget that limits nothing
    thrifty   one picture and one adapter a run, under the least budget that the plan accepts

Inference is placed as SPSA is, with one adapter a run. ``shifts`` are the directions that ``learn`` takes by default;
an adapter without shifts has no arm of them, as they would be its balanced ones.

An image-forward is one picture once through the network. A gradient pass counts as GRADIENT_PASS of them: the way
forward, and about two for the way back. SPSA takes Q + 1 image-forwards a picture. Exact gradients in onnxruntime take
a forward pass for the loss and a gradient pass. torch keeps the first one's activations; with checkpointing it computes
them again.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge_zofc.algorithm.directions import BALANCED, SHIFTS
from edge_zofc.algorithm.options import make_options
from edge_zofc.benchmarks.costs.learn import budget
from edge_zofc.benchmarks.costs.setup import PLENTY_BYTES
from edge_zofc.benchmarks.process import Ended, command, run
from edge_zofc.errors import InputError
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.run_folder import EVENTS

Estimator = Literal["inference", "spsa", "exact", "torch"]
GRADIENT_PASS = 3


@dataclass(frozen=True)
class Arm:
    """One way to learn, or inference. ``directions`` are SPSA's, ``checkpoint`` is torch's.

    ``thrifty``: one picture at a time.
    """

    name: str
    title: str
    estimator: Estimator
    thrifty: bool
    directions: str = ""
    checkpoint: bool = False

    @property
    def is_learn(self) -> bool:
        """Whether ``learn`` runs it."""
        return self.estimator in ("spsa", "exact")

    def image_forwards(self, batch_size: int) -> int:
        """Of a step."""
        if self.estimator == "inference":
            return batch_size
        if self.estimator == "spsa":
            return batch_size * (make_options("edge", self.changes(batch_size, 1)).queries + 1)
        return batch_size * (GRADIENT_PASS + (self.estimator == "exact" or self.checkpoint))

    def changes(self, batch_size: int, steps: int) -> dict[str, Any]:
        """The options of ``learn``, by name; of the arms that it does not run, those of the plan."""
        estimator = self.estimator if self.is_learn else "spsa"
        changes = {"adapter": "on", "estimator": estimator, "batch_size": batch_size, "steps": steps}
        return changes | ({"directions": self.directions} if self.directions else {})


def _in_onnxruntime(name: str, title: str, estimator: Estimator, directions: str = "") -> list[Arm]:
    return [
        Arm(f"{name}-fast", f"{title}, fast", estimator, False, directions),
        Arm(f"{name}-thrifty", f"{title}, thrifty", estimator, True, directions),
    ]


ARMS = (
    *_in_onnxruntime("inference", "inference", "inference"),
    *_in_onnxruntime("spsa-shifts", "SPSA, shifts", "spsa", "shifts"),
    *_in_onnxruntime("spsa-balanced", "SPSA, balanced directions", "spsa", "balanced"),
    *_in_onnxruntime("spsa-whole", "SPSA, whole directions", "spsa", "whole"),
    *_in_onnxruntime("exact", "exact, onnxruntime", "exact"),
    Arm("torch-batch", "first order in torch, whole batch", "torch", False),
    Arm("torch-batch-checkpoint", "first order in torch, whole batch, checkpointing", "torch", False, checkpoint=True),
    Arm("torch-micro", "first order in torch, one picture at a time", "torch", True),
    Arm("torch-micro-checkpoint", "first order in torch, one picture, checkpointing", "torch", True, checkpoint=True),
)


def lacking(arm: Arm, bundle: Bundle) -> str:
    """Why an arm cannot run with a bundle, or would only repeat another one; "" where it can."""
    manifest = bundle.manifest
    if arm.estimator == "torch" and manifest.precision != "fp32":
        return f"torch has no {manifest.precision}"
    if arm.estimator == "exact" and not manifest.goes_back:
        return "the bundle has no graph for exact gradients"
    shifts, balanced = (np.asarray(bundle.scales(scheme)) for scheme in (SHIFTS, BALANCED))
    if arm.directions == "shifts" and np.array_equal(shifts, balanced):
        return "the adapter has no shifts of its own, so they would be the balanced directions"
    return ""


@dataclass(frozen=True)
class Task:
    """What all arms do: ``steps`` steps of ``batch_size`` pictures of the first task of a stream of ``classes``."""

    bundle: Path
    stream: Path
    classes: int
    batch_size: int
    steps: int


@dataclass(frozen=True)
class Command:
    """An arm's command line for a task. ``base_mib``: its process with its imports, None: it says so itself."""

    line: Sequence[str]
    run: Path | None
    base_mib: float | None
    least_budget_mib: float | None


def command_of(arm: Arm, task: Task, folder: Path) -> Command:
    """The arm's command; ``folder`` is new, for its run. Raises InputError with the reason where there is no plan."""
    changes = arm.changes(task.batch_size, task.steps)
    plan = _planned(task, changes)
    if not arm.is_learn:
        return Command(_own_process(arm, task, plan), None, None, None)
    words: list[object] = ["learn", "--bundle", task.bundle, "--stream", task.stream, "--run", folder, "--json"]
    for name, value in changes.items():
        words += [f"--{name.replace('_', '-')}", value]
    words += ["--memory-budget", budget(plan["least_budget_bytes"] if arm.thrifty else PLENTY_BYTES)]
    if arm.thrifty:
        words += ["--micro-batch", 1, "--parallel-queries", 1]
    least = plan["least_budget_bytes"] / 2**20
    return Command(command("edge_zofc", *words), folder, plan["base_mib"], least if arm.thrifty else None)


def _own_process(arm: Arm, task: Task, plan: dict[str, Any]) -> list[str]:
    """The command line of an arm that ``learn`` does not run."""
    asked = {
        "bundle": str(task.bundle), "stream": str(task.stream), "batch_size": task.batch_size, "steps": task.steps
    }  # fmt: skip
    if arm.estimator == "torch":
        more = {"micro_batch": int(arm.thrifty), "checkpoint": arm.checkpoint, "threads": plan["threads"]}
        return command("edge_zofc.benchmarks.costs.estimator_torch", json.dumps(asked | more))
    placement = plan["placements"]["thrifty" if arm.thrifty else "fast"] | {"parallel_queries": 1}
    return command("edge_zofc.benchmarks.costs.estimator_inference", json.dumps(asked | {"placement": placement}))


def _planned(task: Task, changes: dict[str, Any]) -> dict[str, Any]:
    asked = {"bundle": str(task.bundle), "changes": changes, "classes": task.classes}
    ended = run(command("edge_zofc.benchmarks.costs.estimator_plan", json.dumps(asked)))
    if ended.code:
        raise InputError(f"There is no plan for {task.bundle}: {ended.message}")
    return ended.answer


def numbers(command: Command, ended: Ended) -> dict[str, Any]:
    """What a finished process says: memory in MiB, seconds a step, losses."""
    answer = ended.answer
    base = command.base_mib if command.base_mib is not None else answer["base_mib"]
    seconds = answer.get("step_seconds") or step_seconds((command.run or Path()) / EVENTS)
    losses = answer.get("losses") or [answer["tasks"][0][name] for name in ("first_loss", "last_loss")]
    kept = ("peak_rss_mib", "peak_anonymous_mib", "peak_file_mib", "predicted_peak_mib", "loading_peak_mib")
    return {
        **{key: answer.get(key) for key in (*kept, "micro_batch", "parallel_queries")},
        "base_mib": base,
        "above_base_mib": answer["peak_rss_mib"] - base,
        "least_budget_mib": command.least_budget_mib,
        "seconds_per_step": typical(seconds),
        "step_seconds": seconds,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "seconds": round(ended.seconds, 1),
    }


def typical(seconds: Sequence[float]) -> float:
    """The median without the first step, which opens and allocates; that one where there is no other."""
    return statistics.median(seconds[1:] or seconds)


def step_seconds(events: Path) -> list[float]:
    """Seconds of each step of a run."""
    lines = map(json.loads, events.read_text(encoding="utf-8").splitlines())
    return [event["seconds"] for event in lines if event["event"] == "step"]


def ending(ended: Ended, steps: int) -> str:
    """In a few words how a process ended; "" where it did its steps."""
    if ended.code == 0 and ended.answer.get("steps") == steps:
        return ""
    if ended.code == 0:
        return f"it did {ended.answer.get('steps')} of {steps} steps"
    return "killed or out of time" if ended.code == -9 else f"exit {ended.code}: {ended.message[:160]}"


def beside_inference(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with ``over_inference``: the peak over that of inference of the same placement, bundle and batch.

    Of torch one picture at a time is compared with thrifty inference. None where inference was not measured.
    """
    is_thrifty = {arm.name: arm.thrifty for arm in ARMS}

    def key(row: dict[str, Any]) -> tuple[str, int, bool]:
        return row["bundle"], row["batch_size"], is_thrifty[row["arm"]]

    ran = [row for row in rows if not row["failed"]]
    peaks = {key(row): row["peak_rss_mib"] for row in ran if row["arm"].startswith("inference")}
    ratios = {id(row): row["peak_rss_mib"] / peaks[key(row)] for row in ran if key(row) in peaks}
    return [row | {"over_inference": ratios.get(id(row))} for row in rows]
