"""What a run shares with its fleet: statistics of its classes under the adapter's start, and what it keeps to itself.

An adapter that moved (``learn --adapter auto`` moves it in the first task) is another one on each device, and features
of different adapters do not add up. So a share has the features under the start, which all devices of a bundle have.
A run keeps their statistics for the gate (``engine/gate.py``): the same ones as with ``--adapter off``.

Classes have the names that they are shown by, and what was forgotten is not shared (``engine/lesson.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.engine.class_parts import keys_of
from edge_zofc.engine.lesson import Knowledge, LessonView, learnt_knowledge, view_of
from edge_zofc.engine.predict import run_bundle
from edge_zofc.engine.progress import progress_of
from edge_zofc.engine.state import RunState
from edge_zofc.engine.task_ends import load_end
from edge_zofc.errors import InputError
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.fleet_journal import adapter_digest
from edge_zofc.storage.lesson_log import LessonFolder
from edge_zofc.storage.run_folder import RunFolder
from edge_zofc.storage.share import Share, device_name

MIN_PICTURES = 8
"""The sum of a class with one picture is that picture's feature; of fewer than these, a class is not shared."""
LEAVES = (
    "class names, the number of pictures and the sum of their features for each class, and one matrix of how all "
    "features vary together; never a picture"
)
"""What leaves a device with a share, in words."""
STEPS_LEAVE = (
    "Where the fleet takes steps (fleet serve --steps), also: how the loss of some of its pictures changes with the "
    "adapter, one number a direction or the gradient, and how many held-out pictures are named rightly."
)
"""What leaves it besides where the fleet's adapter moves."""
SINCE = "Who keeps two shares of a device knows the sums of what it learnt between them."


@dataclass(frozen=True)
class Sharing:
    """A share, and what is not in it: classes with too few pictures, with these numbers, and ``shown`` pictures of a
    lesson that ``learn`` has not learnt yet.
    """

    share: Share
    left_out: dict[str, int]
    shown: int


@dataclass(frozen=True)
class Learnt:
    """The state of a run at the end of its last finished task, and its lesson; ``number``: see ``share_of``."""

    bundle: Bundle
    normalise: bool
    state: RunState
    view: LessonView
    number: int


def share_of(run: Path, name: str, min_pictures: int = MIN_PICTURES, bundle_folder: Path | None = None) -> Sharing:
    """The share of the tasks that a run has finished, for a device called ``name``.

    Its number is that of the records in the run's journal and of the entries in its lesson's log, which only grow: the
    same state gives the same share. Raises InputError where there is no such run, nothing in it that can be shared, or
    parts of a class that is left out were not kept, else as ``run_bundle``.
    """
    found = learnt_of(run, bundle_folder)
    bundle, view = found.bundle, found.view
    state = replace(found.state, statistics=_under_start(found.state, bundle, run))
    known = learnt_knowledge(run, state, view, moved=False)
    left_out = {text: count for text, count in known.learnt.items() if count < min_pictures}
    if left_out:
        known = _without(run, state, view, left_out)
    if not known.names:
        raise InputError(
            f"No class of the run in {run} has {min_pictures} pictures or more, so there is nothing to share; "
            "take more pictures, or give a smaller --min-pictures."
        )
    share = Share(
        name=device_name(name),
        number=found.number,
        bundle_identity=bundle.identity,
        adapter_sha256=adapter_sha256(bundle),
        normalise=found.normalise,
        class_names=tuple(known.names),
        statistics=known.statistics,
    )
    return Sharing(share, left_out, len(view.pictures))


def learnt_of(run: Path, bundle_folder: Path | None = None) -> Learnt:
    """Raises InputError where there is no such run or it has finished no task, else as ``run_bundle``."""
    folder, lesson = RunFolder(run), LessonFolder(run)
    settings = folder.settings()
    bundle, (base, entries, _) = run_bundle(folder, settings, bundle_folder), lesson.read()
    records, state = _finished_state(folder, RunState.of(bundle, settings.options))
    view = view_of(lesson, base, entries, [task.name for task in state.finished_tasks])
    return Learnt(bundle, settings.options.normalise, state, view, records + base.lines + len(entries))


def adapter_sha256(bundle: Bundle) -> str:
    """The SHA-256 of the adapter's start, 64 hex digits."""
    return adapter_digest(bundle.initial_adapter())


def _finished_state(folder: RunFolder, state: RunState) -> tuple[int, RunState]:
    """How many records the run's journal has, and the state at the end of its last finished task, in place."""
    found = folder.latest()
    progress = None if found is None else progress_of(found.snapshot)
    finished = 0 if progress is None else len(progress.tasks) - (progress.phase != "idle")
    if found is None or progress is None or not finished:
        raise InputError(f"The run in {folder.path} has finished no task yet, so there is nothing to share.")
    # Of a task at work nobody knows yet whether it will stay.
    state.restore(found.snapshot if progress.phase == "idle" else load_end(folder.state, finished - 1))
    return progress.journal_records, state


def _under_start(state: RunState, bundle: Bundle, run: Path) -> Statistics:
    """Of all tasks under the adapter's start. Raises InputError where the run did not keep them."""
    if state.statistics is None:
        raise InputError(f"The run in {run} has a cosine head, which keeps no sums to share; learn with --head lda.")
    if state.frozen_moment is not None:
        return Statistics(state.class_sums, state.class_counts, state.frozen_moment)
    if not np.array_equal(state.adapter.theta, bundle.initial_adapter()):
        raise InputError(
            f"The adapter of the run in {run} moved in every task, so that its features are not those of other "
            "devices; learn into a new run with --adapter auto or off."
        )
    return state.statistics


def _without(run: Path, state: RunState, view: LessonView, left_out: dict[str, int]) -> Knowledge:
    """What is known without classes, as if they had been forgotten: not a bit of them is left."""
    ids = [i for i, own in enumerate(state.progress.class_names) if view.shown(own) in left_out]
    forgotten = view.forgotten | set(keys_of(state.finished_tasks, ids))
    try:
        return learnt_knowledge(run, state, replace(view, forgotten=forgotten), moved=False)
    except InputError as error:
        few = ", ".join(f"{text} ({count})" for text, count in left_out.items())
        raise InputError(
            f"Classes with too few pictures ({few}) cannot be left out, so that this run can be shared with "
            f"--min-pictures 1 alone: {error}"
        ) from error
