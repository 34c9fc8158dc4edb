"""What a run came to so far: its state in the form of ``result.json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edge_zofc import __version__
from edge_zofc.algorithm.metrics import FORGETTING_DEFINITION, mean_per_class_accuracy, summarise
from edge_zofc.device.memory_plan import MemoryPlan
from edge_zofc.device.profiles import DeviceProfile
from edge_zofc.device.system import mib
from edge_zofc.engine.state import Counts, RunProgress, TaskProgress
from edge_zofc.engine.trainer import Trainer
from edge_zofc.storage.result import LearnCost, RunResult, Scores, TaskResult, beats


def result_of(trainer: Trainer, plan: MemoryPlan, profile: DeviceProfile, cost: LearnCost) -> RunResult:
    """What ``result.json`` holds: accuracies as fractions, learner and class means through the same function.

    ``cost`` is that of this ``learn``.
    """
    progress, options, manifest = trainer.state.progress, trainer.options, trainer.bundle.manifest
    learner, baseline = _scores(progress.learner, progress), _scores(progress.floor, progress)
    named = {name: getattr(options, name) for name in ("queries", "query_form", "optimizer", "preset", "seed")}
    return RunResult(
        **learner.model_dump(),
        **_costs(progress),
        **trainer.backbone.placement.model_dump(include={"micro_batch", "parallel_queries"}),
        **named,
        edge_zofc=__version__,
        last_learn=cost,
        completed=not trainer.pending_tasks(),
        class_names=list(progress.class_names),
        tasks=[_task_result(task) for task in trainer.state.finished_tasks],
        forgetting_definition=FORGETTING_DEFINITION,
        class_mean_floor=baseline,
        beats_class_mean_floor=beats(learner, baseline),
        predicted_peak_mib=mib(plan.peak_bytes),
        memory_budget_mib=mib(plan.budget_bytes),
        head_backend=progress.head_backend,
        backbone=manifest.backbone.name,
        image_size=manifest.image.size,
        feature_size=manifest.feature_size,
        bundle_identity=trainer.bundle.identity,
        stream=trainer.stream.root.name,
        precision=manifest.precision,
        device_profile=profile.name,
        options=asdict(options),
        stopped=trainer.signals.name,
    )


def _costs(progress: RunProgress) -> dict[str, Any]:
    training_seconds = sum(task.seconds for task in progress.tasks)
    return {
        "steps": progress.step,
        "forward_passes": progress.forward_passes,
        "evaluation_forward_passes": progress.evaluation_forward_passes,
        "floor_forward_passes": progress.floor_forward_passes,
        "seconds": round(progress.seconds, 3),
        "seconds_per_step": round(training_seconds / progress.step, 6) if progress.step else None,
        "peak_rss_mib": mib(progress.peak_rss_bytes),
        "peak_anonymous_mib": mib(progress.peak_anonymous_bytes),
        "peak_file_mib": mib(progress.peak_file_bytes),
        "skipped_images": sum(task.skipped_images for task in progress.tasks),
    }


def _scores(counts: Counts, progress: RunProgress) -> Scores:
    by_class = mean_per_class_accuracy(counts.correct_by_class, progress.total_by_class)
    summary = asdict(summarise(counts.correct, progress.total))
    summary["accuracy_matrix"] = [list(row) for row in summary["accuracy_matrix"]]
    summary["stage_accuracy"] = list(summary["stage_accuracy"])
    return Scores(**summary, mean_per_class_accuracy=by_class)


def _task_result(task: TaskProgress) -> TaskResult:
    known = task.model_dump(include=set(TaskResult.model_fields))
    return TaskResult(**{**known, "seconds": round(task.seconds, 3)})
