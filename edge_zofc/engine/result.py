"""What a run came to so far: its state in the form of ``result.json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edge_zofc import __version__
from edge_zofc.algorithm.advice import ClassCounts, advice
from edge_zofc.algorithm.metrics import FORGETTING_DEFINITION, mean_per_class_accuracy, summarise
from edge_zofc.algorithm.paired import gain
from edge_zofc.device.memory_plan import MemoryPlan
from edge_zofc.device.profiles import DeviceProfile
from edge_zofc.device.system import mib
from edge_zofc.engine.progress import Counts, Gate, RunProgress, TaskProgress
from edge_zofc.engine.state import RunState
from edge_zofc.engine.trainer import Trainer
from edge_zofc.errors import printable
from edge_zofc.storage.result import AdapterResult, ClassResult, LearnCost, Paired, RunResult, Scores, TaskResult, beats
from edge_zofc.storage.settings import folder_place

MOST_NAME = 40
"""Characters of a class's name in a sentence."""


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
        **_by_class(trainer.state),
        edge_zofc=__version__,
        last_learn=cost,
        completed=not trainer.pending_tasks(),
        class_names=list(progress.class_names),
        tasks=[_task_result(task) for task in trainer.state.finished_tasks],
        forgetting_definition=FORGETTING_DEFINITION,
        class_mean_floor=baseline,
        beats_class_mean_floor=beats(learner, baseline),
        frozen_head=_scores(progress.frozen, progress) if progress.frozen.correct else None,
        adapter=_adapter_result(trainer),
        predicted_peak_mib=mib(plan.peak_bytes),
        memory_budget_mib=mib(plan.budget_bytes),
        head_backend=progress.head_backend,
        backbone=manifest.backbone.name,
        image_size=manifest.image.size,
        feature_size=manifest.feature_size,
        bundle_identity=trainer.bundle.identity,
        stream=_utf8(trainer.stream.root.name),
        stream_folder=_stream_folder(trainer),
        precision=manifest.precision,
        device_profile=profile.name,
        options=asdict(options),
        stopped=trainer.signals.name,
    )


def _adapter_result(trainer: Trainer) -> AdapterResult | None:
    """None for a cosine head, where nobody asked what the adapter is worth, and before the first steps are judged."""
    progress = trainer.state.progress
    if trainer.options.head != "lda" or trainer.options.adapter == "on":
        return None
    finished = trainer.state.finished_tasks
    known: dict[str, Any] = {"crowding": finished[0].crowding if finished else None}
    if (start := progress.start) is not None:
        known |= {"start": "tuned" if start.keeps else "untuned", "from_tuned": _of_gate(start)}
    gates = [task.gate for task in finished if task.gate is not None]
    if not gates:
        return None if progress.step else AdapterResult(state="start", **known)
    known["held_out"] = _of_gate(gates[-1])
    if not gates[-1].keeps:
        return AdapterResult(state="rests", **known)
    right = [sum(counts.correct_by_class) for counts in (progress.frozen, progress.learner)]
    pictures = sum(progress.total_by_class)
    tested = _paired(pictures, right[0], right[1], progress.only_frozen, progress.only_moved) if pictures else None
    return AdapterResult(state="moved", **known, tested=tested)


def _of_gate(gate: Gate) -> Paired:
    return _paired(gate.held_out, gate.right_frozen, gate.right_moved, gate.only_frozen, gate.only_moved)


def _paired(pictures: int, right_frozen: int, right_moved: int, only_frozen: int, only_moved: int) -> Paired:
    value, low, high = gain(only_frozen, only_moved, pictures)
    counts = {"pictures": pictures, "right_frozen": right_frozen, "right_moved": right_moved}
    return Paired(**counts, gain=value, low=low, high=high)


def _stream_folder(trainer: Trainer) -> str | None:
    """None where the path is not UTF-8: JSON has no place for it."""
    place = folder_place(trainer.run.path, trainer.stream.root)
    return place if _utf8(place) == place else None


def _utf8(text: str) -> str:
    """A name whose bytes need not be UTF-8, with backslashes for those that are not."""
    return text.encode(errors="backslashreplace").decode()


def _by_class(state: RunState) -> dict[str, Any]:
    """Pictures and accuracy of each class, what was confused, and what that means for the next step."""
    progress, known = state.progress, len(state.progress.class_names)
    # Counts are those of the last evaluation; a task that is being learnt may have brought classes since.
    right, total = (
        [*counts, *[0] * (known - len(counts))]
        for counts in (progress.learner.correct_by_class, progress.total_by_class)
    )
    cells = [] if state.confusion is None else state.confusion.tolist()
    names = [printable(name, MOST_NAME) for name in progress.class_names]
    rows = zip(names, state.class_counts.tolist(), total, right, strict=True)
    counts = [ClassCounts(*row) for row in rows]
    return {
        "classes": [
            ClassResult(
                train_images=one.train, test_images=one.test, accuracy=one.right / one.test if one.test else None
            )
            for one in counts
        ],
        "confusion": None if state.confusion is None else cells,
        "wrong_pictures": progress.wrong_pictures,
        "next_steps": advice(counts, cells),
    }


def _costs(progress: RunProgress) -> dict[str, Any]:
    training_seconds = sum(task.seconds for task in progress.tasks)
    return {
        "steps": progress.step,
        "forward_passes": progress.forward_passes,
        "gradient_passes": progress.gradient_passes,
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
