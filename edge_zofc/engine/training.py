"""The steps of a task: over all its pictures again and again, or by episodes.

An episode is a class-balanced batch, whose pictures are compared with class means (``algorithm/episodes.py``).
"""

from __future__ import annotations

import numpy as np

from edge_zofc.algorithm.directions import batches, episode
from edge_zofc.algorithm.episodes import Prototypes, held_out
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.data.stream import Sample
from edge_zofc.engine.evaluation import labels_of
from edge_zofc.engine.feature_store import PictureSet
from edge_zofc.engine.out_of_memory import retry_smaller
from edge_zofc.engine.pictures import Picked
from edge_zofc.engine.step import take_step
from edge_zofc.engine.trainer import Trainer
from edge_zofc.errors import Stopped


def train_by_epochs(trainer: Trainer, samples: list[Sample], pixel_file: str) -> None:
    """All remaining epochs of the current task, whose decoded pictures are kept in ``pixel_file`` ("": nowhere).

    Raises Stopped at ``max_steps``, else as ``take_step``.
    """
    progress, options = trainer.state.progress, trainer.options
    trainer.train_pixels = pixel_file
    while progress.epoch < options.epochs:
        index = len(progress.tasks) - 1
        order = batches(len(samples), options.batch_size, options.seed, index, progress.epoch)
        while progress.batch < len(order):
            _step(trainer, samples, order[progress.batch])
        progress.epoch, progress.batch = progress.epoch + 1, 0


def train_by_episodes(trainer: Trainer, samples: list[Sample], pictures: PictureSet) -> None:
    """All remaining steps of the current task; ``pictures`` are its ``samples``, whose features are in the store.

    Raises Stopped at ``max_steps``, else as ``take_step``.
    """
    state, progress, options = trainer.state, trainer.state.progress, trainer.options
    labels, index = labels_of(samples), len(progress.tasks) - 1
    fit = np.flatnonzero(~held_out(labels))
    retry_smaller(trainer, _set_prototypes, pictures, labels, fit)
    while progress.batch < options.steps_of(len(samples)):
        drawn = episode(labels[fit], options.batch_size, options.seed, index, progress.batch)
        _step(trainer, samples, fit[drawn])
    trainer.prototypes = state.prototype_sums = None


def _step(trainer: Trainer, samples: list[Sample], order: np.ndarray) -> None:
    """One step on the pictures at ``order`` int64 [B], and a checkpoint where one is due."""
    progress = trainer.state.progress
    if trainer.max_steps is not None and progress.step >= trainer.max_steps:
        raise Stopped(f"max-steps {trainer.max_steps} reached")
    picked = trainer.pictures.picked(samples, order)
    if picked:
        retry_smaller(trainer, _open_and_step, picked)
    progress.batch += 1
    trainer.save_when_due()


def _open_and_step(trainer: Trainer, picked: Picked) -> None:
    trainer.begin_steps()  # with another session where memory ran out
    take_step(trainer, picked)


def _set_prototypes(trainer: Trainer, pictures: PictureSet, labels: np.ndarray, fit: np.ndarray) -> None:
    """Those of the fit pictures at the adapter's start, with the class means as they are by now."""
    state = trainer.state
    found = Statistics.empty(len(state.progress.class_names), trainer.store.feature_size)
    for positions, features in trainer.store.rows(pictures, trainer.frozen_theta):
        is_fit = np.isin(positions, fit)
        found.add(features[is_fit], labels[positions[is_fit]])
    trainer.prototypes = Prototypes.of(found)
    if state.prototype_sums is None:
        state.prototype_sums = trainer.prototypes.sums
