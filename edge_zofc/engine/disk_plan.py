"""What a run takes on the disk, told before it begins.

    journal        a record a step and two a task, for good: it is the adapter
    snapshots      the last KEEP and, while saving, one more; as large as after the last task
    task ends      what each finished task changed, for rollbacks: what grows over the months
    classes        what each class gave to a closed-form head, so that it can be forgotten: grows too
    features       of the test pictures, and of the training pictures of the task at work, a cache
    pixels         of the same pictures where they are large, a cache of at most LIMIT_BYTES
    events         two logs of at most EVENTS_LIMIT_BYTES, whatever the run's length

Only the length of an event is measured. A state with the run's shapes is made and encoded, so a change of the format
changes the prediction too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_zofc.algorithm import symmetric
from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.algorithm.divergence import WINDOW
from edge_zofc.algorithm.options import Options
from edge_zofc.engine.class_parts import bytes_of
from edge_zofc.engine.feature_store import PIECE_BYTES
from edge_zofc.engine.mistakes import PAIRS_WITH_PICTURES
from edge_zofc.engine.pixel_store import KEEP_FACTOR, LIMIT_BYTES, slot_bytes
from edge_zofc.engine.progress import TaskProgress
from edge_zofc.engine.state import RunState
from edge_zofc.engine.task_ends import end_bytes
from edge_zofc.engine.trainer import TaskSize
from edge_zofc.storage import checkpoint
from edge_zofc.storage.journal_format import HEADER_BYTES, record_bytes
from edge_zofc.storage.manifest import BundleSizes
from edge_zofc.storage.result import MOST_CELLS, WrongPictures
from edge_zofc.storage.run_folder import EVENTS_LIMIT_BYTES

EVENT_BYTES = 300
"""One step's line of events.jsonl; 220 to 260 bytes were seen."""
PART_HEADER_BYTES = 512
"""What a file of ``engine/class_parts.py`` has beside its numbers, and more."""
REST_BYTES = 1 << 16
"""settings.json, result.json and the lock of a run of some tens of tasks."""


@dataclass(frozen=True)
class DiskItem:
    """One kind of file and its bytes."""

    name: str
    bytes: int
    note: str


@dataclass(frozen=True)
class DiskPlan:
    """What the run folder holds at most after the tasks it was made for; ``steps`` is how many steps those take."""

    items: tuple[DiskItem, ...]
    steps: int

    @property
    def bytes(self) -> int:
        """All items together."""
        return sum(item.bytes for item in self.items)


def predict_disk(sizes: BundleSizes, options: Options, tasks: Sequence[TaskSize]) -> DiskPlan:
    """The disk that learning ``tasks`` takes; a class that comes back counts as a new one, on the safe side."""
    numbered = list(enumerate(tasks))
    steps = sum(options.steps_of(t.train_images) for i, t in numbered if options.moves_in(i, t.classes))
    state, ends = _new_state(sizes, options), 0
    largest, last = checkpoint.file_bytes(state.to_snapshot()), 0
    for index, task in enumerate(tasks):
        _grow(state, index, task)
        if options.adapter == "auto" and options.moves_in(index, task.classes):
            state.frozen_moment = symmetric.zeros(sizes.feature_size)
        largest = checkpoint.file_bytes(state.to_snapshot())
        last = end_bytes(state) if index else largest
        ends += last
    record = record_bytes(options.queries, sizes.adapter_size, options.estimator == "exact")
    journal = HEADER_BYTES + record * (steps + 2 * len(tasks))
    # A row and at most a piece's frame, under theta and under the frozen adapter.
    row_bytes = 2 * (4 * (sizes.feature_size + 1) + PIECE_BYTES)
    parts = _parts_bytes(sizes, options, tasks)
    pictures = sum(task.test_images for task in tasks) + max((task.train_images for task in tasks), default=0)
    side = sizes.image_side
    # Where theta rests no picture is decoded twice.
    pixels = min(LIMIT_BYTES, pictures * slot_bytes(side)) if options.moves else 0
    kept = checkpoint.KEEP + 1
    return DiskPlan(
        (
            DiskItem("journal", journal, f"{record} bytes a step"),
            DiskItem("snapshots", kept * largest, f"{kept} of {_kib(largest)} KiB"),
            DiskItem("task ends", ends, f"one a finished task, the last of {_kib(last)} KiB"),
            DiskItem("classes", parts, "what each class of each task gave, to be forgotten one day"),
            DiskItem("features", pictures * row_bytes, f"{row_bytes} bytes a picture; training pictures of one task"),
            DiskItem("pixels", pixels, f"of pictures above {KEEP_FACTOR * side**2 / 1e6:.2g} megapixels, at most"),
            DiskItem(
                "events",
                min(2 * EVENTS_LIMIT_BYTES, EVENT_BYTES * (steps + 8 * len(tasks))),
                f"about {EVENT_BYTES} bytes a step, at most {2 * EVENTS_LIMIT_BYTES >> 20} MiB",
            ),
            DiskItem("the rest", REST_BYTES, ""),
        ),
        steps,
    )


def _parts_bytes(sizes: BundleSizes, options: Options, tasks: Sequence[TaskSize]) -> int:
    """Of all classes: as if each had as many pictures, which takes the most; twice while the adapter may go back."""
    if options.head != "lda":
        return 0
    each = [bytes_of(-(-t.train_images // max(t.classes, 1)), sizes.feature_size) + PART_HEADER_BYTES for t in tasks]
    twice = 2 if options.adapter == "auto" and any(options.moves_in(i, t.classes) for i, t in enumerate(tasks)) else 1
    return twice * sum(one * task.classes for one, task in zip(each, tasks, strict=True))


def _new_state(sizes: BundleSizes, options: Options) -> RunState:
    start = np.zeros(sizes.adapter_size, np.float32)
    adapter = Adapter(start, options.seed, options.eps, options.momentum, options.optimizer)
    state = RunState.start(adapter, sizes.feature_size, options.head)
    state.progress.head_backend = "numpy"  # the same bytes, without loading torch
    return state


def _grow(state: RunState, index: int, task: TaskSize) -> None:
    """Make ``state`` as large as it is while a task of this size is learnt."""
    first, size = len(state.progress.class_names), state.head.rows.shape[1]
    names = [f"a class of twenty {number:03d}" for number in range(first, first + task.classes)]
    state.add_classes(names, np.zeros((task.classes, size), np.float32))
    losses = [1 / 3] * WINDOW
    for learnt in state.progress.tasks:
        learnt.first_losses = learnt.recent_losses = []
    state.progress.tasks.append(
        TaskProgress(
            name=f"{index:03d}_a task of about thirty",
            class_ids=list(range(first, first + task.classes)),
            fingerprint="0" * 64,
            first_losses=losses,
            recent_losses=losses,
        )
    )
    state.progress.total.append(task.test_images)
    for counts in (state.progress.learner, state.progress.floor, state.progress.frozen):
        counts.correct.append([task.test_images] * (index + 1))
        counts.correct_by_class = [task.test_images] * (first + task.classes)
    if state.statistics is None:
        state.begin_optimiser()
    else:
        state.head.biases = np.zeros(first + task.classes, np.float32)
        state.statistics.sums = np.zeros((first + task.classes, size))
        state.statistics.counts = np.zeros(first + task.classes, np.int64)
    # All test pictures named wrongly, each in another way.
    pairs = min(sum(state.progress.total), (first + task.classes) * (first + task.classes - 1), MOST_CELLS)
    state.confusion = np.zeros((pairs, 3), np.int64)
    some = WrongPictures(class_id=first, named_id=first, paths=["a path of about forty characters in all"])
    state.progress.wrong_pictures = [some] * min(pairs, PAIRS_WITH_PICTURES)


def _kib(count: int) -> str:
    return f"{count / 1024:.1f}"
