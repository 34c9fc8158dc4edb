"""``result.json``: the numbers by which a run is judged, one model that is written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from edge_zofc.algorithm.metrics import task_forgetting
from edge_zofc.errors import InputError
from edge_zofc.storage.reading import load_model, read_bounded

RESULT = "result.json"
RESULT_LIMIT_BYTES = 64 << 20  # 1,000 tasks make a matrix of about 10 MB

Fraction = Annotated[float, Field(ge=0, le=1)]
Change = Annotated[float, Field(ge=-1, le=1)]
Mebibytes = Annotated[float, Field(ge=0, le=1e9)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Loss = Annotated[float, Field(ge=-1e300, le=1e300)]


class _Record(BaseModel):
    # Unknown keys are let through: a newer edge-zofc may say more, and a report needs only what it knows.
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class TaskResult(_Record):
    """One learnt task; ``class_ids`` index ``RunResult.class_names``."""

    name: str
    class_ids: list[Count]
    train_images: Count
    test_images: Count
    skipped_images: Count = 0
    steps: Count
    seconds: Seconds | None = None
    first_loss: Loss | None = None
    last_loss: Loss | None = None


class Scores(_Record):
    """Fractions; ``accuracy_matrix[i][j]`` is task j after task i, None without test pictures."""

    accuracy_matrix: list[list[Fraction | None]]
    stage_accuracy: list[Fraction | None]
    average_accuracy: Fraction | None = None
    last_accuracy: Fraction | None = None
    mean_per_class_accuracy: Fraction | None = None
    forgetting: Change | None = None
    backward_transfer: Change | None = None

    @model_validator(mode="after")
    def _is_a_triangle(self) -> Scores:
        for index, row in enumerate(self.accuracy_matrix):
            if len(row) != index + 1:
                raise ValueError(f"row {index} of an accuracy matrix has {len(row)} entries, not {index + 1}")
        stages, rows = len(self.stage_accuracy), len(self.accuracy_matrix)
        if stages != rows:
            raise ValueError(f"{stages} stage accuracies beside {rows} matrix rows")
        return self

    def task_forgetting(self) -> list[float | None]:
        """Best accuracy over all stages minus the last one, for every task but the last."""
        return task_forgetting(self.accuracy_matrix)


class LearnCost(_Record):
    """What the last ``learn`` was predicted to take at most, and what it took.

    ``image_forwards`` are pictures x adapters through the graph. ``predicted_seconds`` is None where it ended before
    there was anything to predict from.
    """

    predicted_image_forwards: Count
    predicted_seconds: Seconds | None = None
    image_forwards: Count
    seconds: Seconds


class RunResult(Scores):
    """``result.json`` as ``learn`` writes it; forward passes are images x adapters."""

    format_version: Literal[1] = 1
    edge_zofc: str
    completed: bool
    class_names: list[str]
    tasks: list[TaskResult]
    steps: Count
    forgetting_definition: str | None = None
    class_mean_floor: Scores | None = None
    beats_class_mean_floor: bool | None = None
    forward_passes: Count | None = None
    evaluation_forward_passes: Count | None = None
    floor_forward_passes: Count | None = None
    seconds: Seconds | None = None
    seconds_per_step: Seconds | None = None
    last_learn: LearnCost | None = None
    peak_rss_mib: Mebibytes | None = None
    peak_anonymous_mib: Mebibytes | None = None
    peak_file_mib: Mebibytes | None = None
    predicted_peak_mib: Mebibytes | None = None
    memory_budget_mib: Mebibytes | None = None
    micro_batch: Count | None = None
    parallel_queries: Count | None = None
    queries: Count | None = None
    query_form: str | None = None
    optimizer: str | None = None
    head_backend: str | None = None
    backbone: str | None = None
    image_size: Count | None = None
    feature_size: Count | None = None
    bundle_identity: str | None = None
    stream: str | None = None
    preset: str | None = None
    precision: str | None = None
    device_profile: str | None = None
    seed: int | None = None
    skipped_images: Count | None = None
    options: dict[str, JsonValue] = Field(default_factory=dict)
    stopped: str | None = None
    """The signal, or the reason, that ended this ``learn``; not in the file."""

    @model_validator(mode="after")
    def _parts_agree(self) -> RunResult:
        for what, scores in (("matrix", self), ("class-mean", self.class_mean_floor)):
            if scores is not None and len(scores.accuracy_matrix) > len(self.tasks):
                raise ValueError(f"{len(scores.accuracy_matrix)} {what} rows for {len(self.tasks)} tasks")
        for task in self.tasks:
            if max(task.class_ids, default=-1) >= len(self.class_names):
                raise ValueError(f"a task names class {max(task.class_ids)} of {len(self.class_names)} classes")
        return self


def beats(learner: Scores, baseline: Scores) -> bool | None:
    """The one rule: whether the average accuracy is above the class-mean baseline's; None where there is none."""
    if learner.average_accuracy is None or baseline.average_accuracy is None:
        return None
    return learner.average_accuracy > baseline.average_accuracy


def check_result(result: dict[str, Any] | bytes, where: str = RESULT) -> RunResult:
    """The checked result from its JSON text or object. Raises DamagedFileError with the first thing wrong."""
    return load_model(RunResult, result, f"{where} is damaged at", ending="; run learn again")


def read_result(folder: Path) -> RunResult:
    """Read ``R/result.json``. Raises InputError if there is none, DamagedFileError if it is wrong."""
    path = folder / RESULT
    if not path.exists():
        raise InputError(f"{folder} holds no {RESULT}: run edge-zofc learn first.")
    return check_result(read_bounded(path, RESULT_LIMIT_BYTES), str(path))
