"""Whether the adapter moves at all, and whether the moved one stays.

Before the first step: where the classes stand far apart (``algorithm/crowding.py``) it stays at its start. That takes
one look at kept features and no pass through the graph. The steps take 4 to 30 times the passes of all the rest.

After the steps: the heads of both adapters on held-out pictures of all classes known.
A fifth of each class's training pictures takes no part in the steps: the last ones in the order of their names, so
that a burst is not torn apart. Their features are kept at a task's end, under the adapter and under its start, in files
of the feature store. A row's position is there the picture's class. Where such a file of an earlier task was deleted,
the others decide.

At each task's end both heads are solved without them and name them. The moved adapter stays unless it is worse by more
than a standard error. Else it rests at its start for good, with the statistics that were kept for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from edge_zofc.algorithm.crowding import LIMIT, crowding
from edge_zofc.algorithm.episodes import held_out
from edge_zofc.algorithm.heads import unit
from edge_zofc.algorithm.naming import named, solved_head
from edge_zofc.algorithm.options import LEAST_EPISODIC_CLASSES
from edge_zofc.algorithm.paired import is_worse
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.data.stream import Task
from edge_zofc.engine.feature_store import FeatureStore, PictureSet
from edge_zofc.engine.progress import Gate
from edge_zofc.engine.state import RunState
from edge_zofc.engine.trainer import Trainer
from edge_zofc.storage.journal import Kind


def held_out_set(trainer: Trainer, index: int) -> PictureSet:
    """The kept features of the held-out pictures of task number ``index``."""
    return PictureSet(f"{index:03d}-held-{trainer.state.progress.tasks[index].fingerprint[:16]}", ())


def before_steps(trainer: Trainer, task: Task, pictures: PictureSet, labels: np.ndarray) -> tuple[bool, float | None]:
    """Whether the adapter moves in the ``task`` that begins, and its crowding, None where that is not asked.

    ``pictures`` are in the store, ``labels`` int64 [n] their class ids. Tells the user where a first task leaves the
    adapter at its start.
    """
    options, number, classes = trainer.options, len(trainer.state.progress.tasks), len(task.class_ids)
    if not options.moves_in(number, classes):
        if options.moves and options.loss == "episodic" and number == 0:
            least = LEAST_EPISODIC_CLASSES
            trainer.note(f"The adapter stays where it is: the first task has {classes} classes, it needs {least}.")
        return False, None
    if options.adapter != "auto" or options.loss != "episodic":
        return True, None
    found = _crowding(trainer, pictures, labels)
    if found < LIMIT:
        trainer.note(
            f"The adapter stays at its start: the classes of the first task stand far apart, a class and the one most "
            f"like it are {found:.2f} alike. Below {LIMIT:.2f} it wins little; --adapter on moves it all the same."
        )
    return found >= LIMIT, found


def _crowding(trainer: Trainer, pictures: PictureSet, labels: np.ndarray) -> float:
    """Of the classes of ``pictures`` under the adapter's start."""
    classes = int(labels.max()) + 1
    sums, counts = np.zeros((classes, trainer.store.feature_size)), np.zeros(classes, np.int64)
    for positions, features in trainer.store.rows(pictures, trainer.frozen_theta):
        # One after the other, so that portions do not change a bit.
        np.add.at(sums, labels[positions], unit(features.astype(np.float64)))
        counts += np.bincount(labels[positions], minlength=classes)
    return crowding(sums, counts)


def keep_frozen(state: RunState, statistics: Statistics) -> None:
    """Before the adapter moves for the first time: keep its start's ``statistics`` of all tasks, this one too."""
    if state.frozen_moment is None:
        state.frozen_moment = statistics.moment.copy()


def add_to_frozen(state: RunState, found: Statistics) -> None:
    """Count a new task's pictures under the adapter's start into what was kept; ``found`` gives up its moment."""
    if state.frozen_moment is not None:
        found.moment += state.frozen_moment
        state.frozen_moment = found.moment


def frozen_statistics(trainer: Trainer) -> Statistics | None:
    """Of all tasks under the adapter's start; None where they are those of the run, or where nobody needs them."""
    state = trainer.state
    if state.frozen_moment is None or len(trainer.distinct_adapters()) == 1:
        return None
    return Statistics(state.class_sums, state.class_counts, state.frozen_moment)


def pass_gate(trainer: Trainer, statistics: Statistics, pictures: PictureSet, labels: np.ndarray) -> Statistics:
    """Judge the moved adapter at the end of the present task; returns the statistics of the adapter that goes on.

    ``statistics`` are those of all tasks under the moved adapter, ``pictures`` the task's, ``labels`` int64 [n] their
    class ids. Changes the state where the adapter is to rest.
    """
    frozen, state, store = frozen_statistics(trainer), trainer.state, trainer.store
    if frozen is None:
        return statistics
    adapters = trainer.distinct_adapters()
    codes = np.where(held_out(labels), labels, -1)
    for adapter in adapters:
        store.copy_some(pictures, held_out_set(trainer, len(state.progress.tasks) - 1), adapter, codes)
    state.current_task.held_out = int((codes >= 0).sum())
    both = _kept_under(trainer, adapters)
    if len(both) < len(state.progress.tasks):
        lost = len(state.progress.tasks) - len(both)
        trainer.note(f"Held-out features of {lost} earlier task(s) were deleted: the others decide.")
    right = [_named_rightly(store, both, *one) for one in zip(adapters, (statistics, frozen), strict=True)]
    gate = verdict(moved=right[0], frozen=right[1])
    if not gate.keeps:
        state.adapter.rest(trainer.frozen_theta)
        state.frozen_moment = None
        trainer.record(Kind.REST)
        trainer.note(
            f"The adapter rests: {gate.right_moved} of {gate.held_out} held-out pictures were named rightly with it, "
            f"{gate.right_frozen} without."
        )
    state.current_task.gate = gate
    return statistics if gate.keeps else frozen


def verdict(moved: np.ndarray, frozen: np.ndarray) -> Gate:
    """From which pictures are named rightly under each adapter, bool [n]."""
    only_frozen, only_moved = int((frozen & ~moved).sum()), int((moved & ~frozen).sum())
    return Gate(
        held_out=len(moved),
        right_frozen=int(frozen.sum()),
        right_moved=int(moved.sum()),
        only_frozen=only_frozen,
        only_moved=only_moved,
        keeps=not is_worse(only_frozen, only_moved),
    )


def _kept_under(trainer: Trainer, adapters: list[np.ndarray]) -> list[PictureSet]:
    """The held-out pictures of all tasks whose features are there under each of ``adapters``."""
    found = []
    for index, task in enumerate(trainer.state.progress.tasks):
        pictures = held_out_set(trainer, index)
        counts = {len(trainer.store.kept(pictures, adapter)) for adapter in adapters}
        if len(counts) == 1 and 0 <= task.held_out - counts.pop() <= task.skipped_images:
            found.append(pictures)
    return found


def _named_rightly(
    store: FeatureStore, sets: list[PictureSet], adapter: np.ndarray, statistics: Statistics
) -> np.ndarray:
    """Bool [n]: which held-out pictures are named rightly by the head that is solved without them."""

    def rows() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for found in sets:
            yield from store.rows(found, adapter)

    return right_without(statistics, rows)


def right_without(statistics: Statistics, rows: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]) -> np.ndarray:
    """Bool [n]: which pictures are named rightly by the head that is solved from ``statistics`` without them.

    ``rows`` gives their class ids int64 [m] and features float32 [m, D] a portion at a time, each time it is called.
    ``statistics``, which count them, are changed and changed back, to the same bits.
    """
    taken = 0
    try:
        for labels, features in rows():
            statistics.add(features, labels, times=-1)
            taken += 1
        head = solved_head(statistics)
    finally:
        for labels, features in rows():
            if not taken:
                break
            statistics.add(features, labels)
            taken -= 1
    right = [named(head, features) == labels for labels, features in rows()]
    return np.concatenate([np.zeros(0, bool), *right])
