"""One step on one batch: features under every adapter, a head step, losses under the new head, an adapter step."""

from __future__ import annotations

import time

import numpy as np

from edge_zofc.algorithm.heads import cosine_rate
from edge_zofc.algorithm.spsa import BASE, clip, coefficients, queries
from edge_zofc.engine.pictures import Picked
from edge_zofc.engine.trainer import Trainer
from edge_zofc.errors import DivergedError, ImageError
from edge_zofc.inference.features import Pictures, query_features, readable_features


def take_step(trainer: Trainer, picked: Picked) -> None:
    """One batch: features, head step, losses under the new head, adapter step."""
    options, state, progress = trainer.options, trainer.state, trainer.state.progress
    optimiser, adapter = state.optimiser, state.adapter
    started, step = time.monotonic(), progress.step
    trains_head = optimiser is not None and progress.epoch < options.head_epochs
    looks_twice = options.optimizer == "conserve"
    needs_base = trains_head or looks_twice or trainer.prototypes is not None
    base = (BASE,) if needs_base or options.query_form == "one-sided" else ()
    wanted = base + queries(options.query_form, options.queries)

    found = trainer.pictures.batch(
        picked, lambda pictures: query_features(trainer.backbone, adapter, step, wanted, pictures)
    )
    if found is None:
        return
    features, kept = found  # [K, B, D]
    _check_finite(features, step)
    class_ids = _class_ids(trainer)
    labels = np.searchsorted(class_ids, [sample.class_id for _, sample in kept])
    if optimiser is not None and trains_head:
        optimiser.step(features[0], labels, cosine_rate(options.head_lr, progress.epoch, options.head_epochs))
    losses = _losses(trainer, features, labels, class_ids)
    _check_finite(losses, step)
    loss = float(losses[0] if base else losses.mean())
    raw = coefficients(options.query_form, losses[len(base) :], loss if base else None, adapter.eps)
    applied, norm = clip(adapter, step, raw, options.clip_norm or None)
    if looks_twice:
        applied = _of_best_side(trainer, kept, features[0], labels, applied)
    if trainer.prototypes is not None:
        trainer.prototypes.absorb(features[0], labels)
    adapter.apply(step, applied, options.adapter_lr)
    progress.step += 1
    progress.forward_passes += len(wanted) * len(kept)
    trainer.count_forwards((len(wanted) + (2 if looks_twice else 0)) * len(kept))
    trainer.count_step(loss, norm, time.monotonic() - started)
    # Last, as what fails before it is done again; a crash in between goes back to a checkpoint all the same.
    trainer.record_step(step, applied, options.adapter_lr)
    trainer.check_band()


def _class_ids(trainer: Trainer) -> np.ndarray:
    """The classes of the loss: the cosine head's are the task's, as in the paper; the solved head's all seen."""
    optimiser = trainer.state.optimiser
    return np.arange(len(trainer.state.head.rows)) if optimiser is None else optimiser.class_ids


def _losses(trainer: Trainer, features: np.ndarray, labels: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """What each adapter's features float32 [K, B, D] cost, float64 [K]; ``labels`` are positions in ``class_ids``."""
    state, prototypes = trainer.state, trainer.prototypes
    if prototypes is None or state.prototype_sums is None:
        return state.head.losses(features, labels, class_ids)
    prototypes.sums = state.prototype_sums  # those of the state, which may have been put back since
    return prototypes.losses(features, labels)


def _of_best_side(
    trainer: Trainer, picked: Picked, base: np.ndarray, labels: np.ndarray, applied: np.ndarray
) -> np.ndarray:
    """ZO-SGD-Conserve: ``applied`` float32 [Q] times 0 to stay, 1 for theta - lr g or -1 for theta + lr g.

    Two more forward passes a picture at the very bits that the step would leave (ZO-bench, arXiv 2402.11592; ZeroFlow,
    arXiv 2501.01045). The judge is the head's loss on the batch: ``base`` float32 [B, D] are the features at theta of
    the ``picked`` pictures, ``labels`` int64 [B] their positions in the loss. To stay wins a tie. A side whose loss is
    not finite is not taken. Pictures are decoded a second time, so that memory does not depend on the batch.
    """
    state, rate = trainer.state, trainer.options.adapter_lr
    class_ids = _class_ids(trainer)
    sides = [state.adapter.candidate(state.progress.step, sign * applied, rate) for sign in (1, -1)]

    def lost(index: int, error: ImageError) -> None:
        trainer.pictures.leave_out(*picked[index], error)

    pictures = Pictures(len(picked), trainer.pictures.loader(picked), trainer.signals.check)
    found = list(readable_features(trainer.backbone, sides, pictures, lost))
    if not found:
        return np.zeros_like(applied)
    indices = np.concatenate([part for part, _ in found])
    features = np.concatenate([base[None, indices], np.concatenate([part for _, part in found], axis=1)])
    with np.errstate(invalid="ignore", over="ignore"):
        losses = _losses(trainer, features, labels[indices], class_ids)
    state.progress.forward_passes += 2 * len(indices)
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    # Not a product: zero times a negative number would journal a sign.
    return (np.zeros_like(applied), applied, -applied)[best]


def _check_finite(values: np.ndarray, step: int) -> None:
    if not np.isfinite(values).all():
        raise DivergedError(f"The loss of step {step} is not finite.")
