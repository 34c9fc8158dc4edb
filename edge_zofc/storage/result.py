"""``result.json``: the numbers by which a run is judged, one model that is written and read.

Of the last evaluation it has a count by class and the confusion counts, sparse:

    classes          by class id: train_images, test_images, and accuracy, None without test pictures
    confusion        [class id, id that it was named as, test pictures] of the pairs that were confused, the most
                     frequent first, at most MOST_CELLS of them; right answers are not in it; null: not measured
    wrong_pictures   of the most confused pairs, the first few wrong pictures: paths in ``stream_folder``
    next_steps       what to do next, a sentence each; none where all is well

A file of an earlier version has none of these and is read as before.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from edge_zofc.algorithm.metrics import task_forgetting
from edge_zofc.errors import InputError
from edge_zofc.storage.reading import load_model, read_bounded

RESULT = "result.json"
MOST_CELLS = 10_000
"""Pairs of classes in ``confusion``: all that 100 classes have."""
RESULT_LIMIT_BYTES = 64 << 20  # 1,000 tasks make a matrix of about 10 MB

Fraction = Annotated[float, Field(ge=0, le=1)]
Change = Annotated[float, Field(ge=-1, le=1)]
Mebibytes = Annotated[float, Field(ge=0, le=1e9)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Cell = Annotated[list[Count], Field(min_length=3, max_length=3)]
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


class Paired(_Record):
    """The moved adapter beside its start, same head, same pictures: ``pictures`` of which so many are named rightly.

    ``gain`` is the difference as a fraction, ``low`` and ``high`` its 95 % interval where pictures are independent.
    """

    pictures: Count
    right_frozen: Count
    right_moved: Count
    gain: Change
    low: Annotated[float, Field(ge=-3, le=3)]
    high: Annotated[float, Field(ge=-3, le=3)]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Paired:
        if max(self.right_frozen, self.right_moved) > self.pictures:
            raise ValueError(f"more than the {self.pictures} pictures are named rightly")
        if abs(self.gain * self.pictures - (self.right_moved - self.right_frozen)) > 1e-6 * self.pictures:
            raise ValueError(f"the gain is {self.gain}, not that of {self.right_moved} and {self.right_frozen}")
        if not self.low <= self.gain <= self.high:
            raise ValueError(f"the gain {self.gain} lies outside of its interval")
        return self


class AdapterResult(_Record):
    """What the adapter was worth: on held-out training pictures, which decide, and on test pictures, which do not.

    ``state``: ``moved`` and stayed, ``rests`` after it did harm, ``start``: it was not to move. Before the first step
    ``crowding`` of the first task's classes decides that (``algorithm/crowding.py``); None where nobody asked.
    ``start`` is ``tuned`` or ``untuned`` where the bundle has both; on the first task's pictures, ``from_tuned``, which
    decide, the frozen is the untuned one and the moved the tuned one.
    """

    state: Literal["moved", "rests", "start"]
    start: Literal["tuned", "untuned"] | None = None
    from_tuned: Paired | None = None
    crowding: Change | None = None
    held_out: Paired | None = None
    tested: Paired | None = None


class ClassResult(_Record):
    """One class: the training pictures that were read, and the test pictures of the last evaluation."""

    train_images: Count
    test_images: Count
    accuracy: Fraction | None = None


class WrongPictures(_Record):
    """Some test pictures of one class that were named as another; ``paths`` are relative to the stream's folder."""

    class_id: Count
    named_id: Count
    paths: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=20)]

    @model_validator(mode="after")
    def _stays_in_the_stream(self) -> WrongPictures:
        for path in map(PurePosixPath, self.paths):
            if path.is_absolute() or ".." in path.parts or "\0" in str(path):
                raise ValueError("a path leaves the stream's folder")
        return self


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
    frozen_head: Scores | None = None
    """The closed-form head under the adapter's start."""
    adapter: AdapterResult | None = None
    beats_class_mean_floor: bool | None = None
    forward_passes: Count | None = None
    gradient_passes: Count | None = None
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
    stream_folder: str | None = None
    """Relative to the run's folder where one parent holds both, so that they can move together."""
    classes: list[ClassResult] = Field(default_factory=list)
    confusion: Annotated[list[Cell], Field(max_length=MOST_CELLS)] | None = None
    wrong_pictures: Annotated[list[WrongPictures], Field(max_length=100)] = Field(default_factory=list)
    next_steps: Annotated[list[str], Field(max_length=10)] = Field(default_factory=list)
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
        for what, scores in (("matrix", self), ("class-mean", self.class_mean_floor), ("frozen", self.frozen_head)):
            if scores is not None and len(scores.accuracy_matrix) > len(self.tasks):
                raise ValueError(f"{len(scores.accuracy_matrix)} {what} rows for {len(self.tasks)} tasks")
        for task in self.tasks:
            if max(task.class_ids, default=-1) >= len(self.class_names):
                raise ValueError(f"a task names class {max(task.class_ids)} of {len(self.class_names)} classes")
        self._check_classes()
        return self

    def _check_classes(self) -> None:
        known = len(self.class_names)
        if len(set(self.class_names)) < known:
            raise ValueError("a class stands in it twice")
        if len(self.classes) not in (0, known):
            raise ValueError(f"{len(self.classes)} classes are counted of {known}")
        wrong = [0] * known
        for class_id, named_id, count in self.confusion or ():
            if max(class_id, named_id) >= known or class_id == named_id or not count:
                raise ValueError(f"class {class_id} named as {named_id} is no mistake of {known} classes")
            wrong[class_id] += count
        if any(max(found.class_id, found.named_id) >= known for found in self.wrong_pictures):
            raise ValueError(f"a wrong picture's class is beyond the {known} that there are")
        for class_id, count in enumerate(wrong):
            if count > (self.classes[class_id].test_images if self.classes else 0):
                raise ValueError(f"class {class_id} has {count} wrong pictures, more than were tested")


def stream_folder(result: RunResult, run_folder: Path) -> Path | None:
    """Where the stream of a run lay when it was learnt; None where the result does not say."""
    if not result.stream_folder or "\0" in result.stream_folder:
        return None
    here = os.path.realpath(run_folder)
    return Path(os.path.normpath(os.path.join(here, result.stream_folder)))  # noqa: PTH118 - need not be there


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
