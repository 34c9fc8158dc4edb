"""From a run's state to ``result.json``: the numbers by which a run is judged, learner and floor alike.

What may surprise: both learners go through the same function, so that no number of the one can be defined
differently from the other's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edge_zofc import __version__
from edge_zofc.algorithm.metrics import FORGETTING_DEFINITION, mean_per_class_accuracy, summarise
from edge_zofc.device.system import mib
from edge_zofc.engine.state import Counts, Progress, TaskProgress
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.run_folder import Settings

_TASK_KEYS = {
    "name", "class_ids", "train_images", "test_images", "skipped_images", "steps", "seconds", "first_loss", "last_loss",
}  # fmt: skip


@dataclass(frozen=True)
class Circumstances:
    """What a result says of where it was made: names, the budget and the plan's prediction in bytes."""

    stream: str
    device_profile: str
    budget_bytes: int
    predicted_peak_bytes: int
    micro_batch: int
    parallel_queries: int
    completed: bool


def result_of(bundle: Bundle, settings: Settings, progress: Progress, where: Circumstances) -> dict[str, Any]:
    """The content of ``result.json``: JSON-able, finite numbers or None, accuracies as fractions."""
    options, manifest = settings.run_options(), bundle.manifest
    finished = progress.tasks if progress.phase == "idle" else progress.tasks[:-1]
    learner = _metrics(progress.learner, progress)
    floor = _metrics(progress.floor, progress)
    return {
        "format_version": 1,
        "edge_zofc": __version__,
        "backbone": manifest.backbone.name,
        "image_size": manifest.image.size,
        "feature_size": manifest.feature_size,
        "bundle_identity": bundle.identity,
        "stream": where.stream,
        "preset": options.preset,
        "options": asdict(options),
        "class_names": progress.class_names,
        "tasks": [_task(task) for task in finished],
        **learner,
        "forgetting_definition": FORGETTING_DEFINITION,
        "class_mean_floor": floor,
        "beats_class_mean_floor": _beats(learner, floor),
        "steps": progress.step,
        "forward_passes": progress.forward_passes,
        "evaluation_forward_passes": progress.evaluation_forward_passes,
        "floor_forward_passes": progress.floor_forward_passes,
        "seconds": round(progress.seconds, 3),
        "seconds_per_step": _per_step(progress),
        "peak_rss_mib": mib(progress.peak_rss_bytes),
        "peak_anonymous_mib": mib(progress.peak_anonymous_bytes),
        "peak_file_mib": mib(progress.peak_file_bytes),
        "predicted_peak_mib": mib(where.predicted_peak_bytes),
        "memory_budget_mib": mib(where.budget_bytes),
        "micro_batch": where.micro_batch,
        "parallel_queries": where.parallel_queries,
        "queries": options.queries,
        "query_form": options.query_form,
        "optimizer": options.optimizer,
        "head_backend": progress.head_backend,
        "precision": manifest.precision,
        "device_profile": where.device_profile,
        "seed": options.seed,
        "skipped_images": sum(task.skipped_images for task in progress.tasks),
        "completed": where.completed,
    }


def _metrics(counts: Counts, progress: Progress) -> dict[str, Any]:
    summary = summarise(counts.correct, progress.total)
    by_class = mean_per_class_accuracy(counts.correct_by_class, progress.total_by_class)
    found = {**asdict(summary), "mean_per_class_accuracy": by_class}
    # Tuples become lists, so that the dictionary is the same before and after a trip through JSON.
    found["accuracy_matrix"] = [list(row) for row in summary.accuracy_matrix]
    found["stage_accuracy"] = list(summary.stage_accuracy)
    return found


def _beats(learner: dict[str, Any], floor: dict[str, Any]) -> bool | None:
    """Whether the learner's average accuracy is above the floor's; None where there is none."""
    if learner["average_accuracy"] is None or floor["average_accuracy"] is None:
        return None
    return bool(learner["average_accuracy"] > floor["average_accuracy"])


def _task(task: TaskProgress) -> dict[str, Any]:
    return {**task.model_dump(include=_TASK_KEYS), "seconds": round(task.seconds, 3)}


def _per_step(progress: Progress) -> float | None:
    seconds = sum(task.seconds for task in progress.tasks)
    return round(seconds / progress.step, 6) if progress.step else None
