"""Whether a run begins at its bundle's tuned start (``export --tune``) or at the one before the tuning.

A start that was tuned on another kind of things loses. Before the first task its pictures are named under both starts,
by closed-form heads that were solved from the other four fifths of each class. The tuned start stays unless it is
worse by more than a standard error. It takes one more pass over the first task's pictures.

From then on the run belongs to the bundle from that start (``Bundle.starts``), so that a replay begins there too. A
power cut on the way leaves a run that asks again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from edge_zofc.algorithm.episodes import HELD_OUT, part_of
from edge_zofc.algorithm.options import Options
from edge_zofc.data.stream import Task, list_samples
from edge_zofc.engine.evaluation import class_statistics, labels_of, train_features
from edge_zofc.engine.feature_store import FeatureStore, PictureSet
from edge_zofc.engine.gate import right_without, verdict
from edge_zofc.engine.opening import header_of
from edge_zofc.engine.trainer import Trainer
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.journal import Journal
from edge_zofc.storage.lesson_log import LESSON
from edge_zofc.storage.reading import is_there


def chooses(options: Options, bundle: Bundle) -> bool:
    """Whether a new run with these options chooses its start."""
    return options.adapter == "auto" and options.head == "lda" and bundle.manifest.keeps_untuned


def is_open(trainer: Trainer) -> bool:
    """Whether a run has yet to choose: nothing was learnt, undone or shown so far."""
    is_new = not trainer.journal.records and not is_there(trainer.run.path / LESSON)
    return is_new and trainer.state.progress.start is None and chooses(trainer.options, trainer.bundle)


def judge_start(trainer: Trainer, task: Task) -> None:
    """Name the pictures of the first ``task`` under both starts; the state holds what came of it."""
    samples = list_samples(trainer.stream, task, "train")
    adapters = [bundle.initial_adapter() for bundle in trainer.bundle.starts()]
    pictures, labels = train_features(trainer, task, samples, adapters, again=True), labels_of(samples)
    unreadable = trainer.store.kept(pictures, adapters[0]).unreadable
    tuned, untuned = (
        np.delete(_named_rightly(trainer.store, pictures, adapter, labels), unreadable) for adapter in adapters
    )
    trainer.state.progress.start = verdict(moved=tuned, frozen=untuned)


def _named_rightly(store: FeatureStore, pictures: PictureSet, adapter: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Bool [n]: which pictures are named rightly by a head that is solved without their part of their class."""
    parts, right = part_of(labels), np.zeros(len(labels), bool)
    statistics = class_statistics(store, pictures, adapter, labels, int(labels.max()) + 1, moment=True)
    readable = np.array(store.kept(pictures, adapter).positions, np.int64)

    def rows(part: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for positions, features in store.rows(pictures, adapter):
            mine = parts[positions] == part
            yield labels[positions[mine]], features[mine]

    for part in range(HELD_OUT):
        right[readable[parts[readable] == part]] = right_without(statistics, partial(rows, part))
    return right


def settle_start(trainer: Trainer) -> None:
    """Go on from the start that was judged the better one; told, and on the disk when this returns."""
    found, (tuned, untuned) = trainer.state.progress.start, trainer.bundle.starts()
    if found is None:
        return
    chosen = tuned if found.keeps else untuned
    if chosen.identity != trainer.bundle.identity:
        _begin_from(trainer, chosen)
    trainer.save()
    where = "as it was tuned" if found.keeps else "untuned"
    trainer.note(
        f"The adapter starts {where}: of the first task's {found.held_out} pictures {found.right_moved} are named "
        f"rightly from the tuned start, {found.right_frozen} from the untuned one."
    )


def _begin_from(trainer: Trainer, bundle: Bundle) -> None:
    """Begin the run again, in place, from another start of its bundle."""
    run = trainer.run
    trainer.journal.close()
    run.begin_again()
    run.write_settings(run.settings().model_copy(update={"bundle_identity": bundle.identity}))
    trainer.bundle, trainer.frozen_theta = bundle, bundle.initial_adapter()
    trainer.state.restart(trainer.frozen_theta)
    trainer.journal = Journal.create(run.journal, header_of(trainer.options, bundle, trainer.state.adapter))
