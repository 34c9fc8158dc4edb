"""What a run shares with its fleet: statistics of its classes under the adapter's start, and what it keeps to itself.

An adapter that moved (``learn --adapter auto`` moves it in the first task) is another one on each device, and features
of different adapters do not add up. So a share has the features under the start, which all devices of a bundle have.
A run keeps their statistics for the gate (``engine/gate.py``): the same ones as with ``--adapter off``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_zofc.algorithm import symmetric
from edge_zofc.algorithm.statistics import GRID, Statistics
from edge_zofc.engine.predict import run_bundle
from edge_zofc.engine.progress import progress_of
from edge_zofc.engine.state import RunState
from edge_zofc.engine.task_ends import load_end
from edge_zofc.errors import InputError
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.checkpoint import Snapshot
from edge_zofc.storage.run_folder import RunFolder
from edge_zofc.storage.share import Share, device_name

MIN_PICTURES = 8
"""The sum of a class with one picture is that picture's feature; of fewer than these, a class is not shared."""
LEAVES = (
    "class names, the number of pictures and the sum of their features for each class, and one matrix of how all "
    "features vary together; never a picture"
)
"""What leaves a device with a share, in words."""


@dataclass(frozen=True)
class Sharing:
    """A share, and the classes with too few pictures that are not in it, with these numbers."""

    share: Share
    left_out: dict[str, int]


def share_of(run: Path, name: str, min_pictures: int = MIN_PICTURES, bundle_folder: Path | None = None) -> Sharing:
    """The share of the tasks that a run has finished, for a device called ``name``.

    Its number is that of the records in the run's journal, which only grow: the same state gives the same share. Raises
    InputError where there is no such run or nothing in it that can be shared, else as ``run_bundle``.
    """
    folder = RunFolder(run)
    settings, found = folder.settings(), folder.latest()
    bundle = run_bundle(folder, settings, bundle_folder)
    if found is None or not (finished := _finished_tasks(found.snapshot)):
        raise InputError(f"The run in {run} has finished no task yet, so there is nothing to share.")
    newest = progress_of(found.snapshot)
    # Of a task at work nobody knows yet whether it will stay.
    snapshot = found.snapshot if newest.phase == "idle" else load_end(folder.state, finished - 1)
    state = RunState.of(bundle, settings.options, snapshot)
    statistics, names = _under_start(state, bundle, run), state.progress.class_names
    left_out = [i for i, n in enumerate(statistics.counts.tolist()) if 0 < n < min_pictures]
    kept = np.flatnonzero(statistics.counts >= max(min_pictures, 1))
    if not len(kept):
        raise InputError(
            f"No class of the run in {run} has {min_pictures} pictures or more, so there is nothing to share; "
            "take more pictures, or give a smaller --min-pictures."
        )
    moment = _without(statistics, left_out)
    shared = Share(
        name=device_name(name),
        number=newest.journal_records,
        bundle_identity=bundle.identity,
        adapter_sha256=adapter_sha256(bundle),
        normalise=settings.options.normalise,
        class_names=tuple(names[i] for i in kept),
        statistics=Statistics(statistics.sums[kept], statistics.counts[kept], moment),
    )
    return Sharing(shared, {names[i]: int(statistics.counts[i]) for i in left_out})


def adapter_sha256(bundle: Bundle) -> str:
    """The SHA-256 of the adapter's start, 64 hex digits."""
    return hashlib.sha256(bundle.initial_adapter().astype("<f4").tobytes()).hexdigest()


def _finished_tasks(snapshot: Snapshot) -> int:
    progress = progress_of(snapshot)
    return len(progress.tasks) - (progress.phase != "idle")


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


def _without(statistics: Statistics, left_out: list[int]) -> np.ndarray:
    """The moment, a packed matrix, without the means of the classes ``left_out``.

    How the pictures of such a class vary around their mean stays in it, as a run does not keep that by class. Of a
    class with one picture nothing stays.
    """
    moment, size = statistics.moment.copy(), statistics.sums.shape[1]
    for class_id in left_out:
        total, count = statistics.sums[class_id], int(statistics.counts[class_id])
        for rows, slab in symmetric.slabs(moment, size):
            slab -= np.rint(np.outer(total[rows], total[rows.start :]) / count / GRID**2) * GRID**2
    return moment
