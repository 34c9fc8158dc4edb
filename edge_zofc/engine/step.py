"""One step on one batch, by forward passes or by an exact gradient.

    spsa     features under every adapter, a head step, losses under the new head, an adapter step
    exact    features under theta, a head step, the loss's gradient at the features under the new head, which the
             backbone carries back to the adapter picture by picture, an adapter step

Neither holds more than the batch's features: a step's memory does not grow with the pictures in it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from edge_zofc.algorithm.episodes import Prototypes
from edge_zofc.algorithm.heads import cosine_rate
from edge_zofc.algorithm.spsa import BASE, Query, clip, clip_factor, coefficients, queries
from edge_zofc.engine.pictures import Picked
from edge_zofc.engine.trainer import Trainer
from edge_zofc.engine.work import GRADIENT_FORWARDS
from edge_zofc.errors import DivergedError, ImageError
from edge_zofc.inference.features import Pictures, query_features, readable_features


@dataclass(frozen=True)
class _Batch:
    """Features float32 [K, B, D] of the pictures ``kept``, and int64 [B]: their positions in ``class_ids``."""

    features: np.ndarray
    kept: Picked
    labels: np.ndarray
    class_ids: np.ndarray


@dataclass(frozen=True)
class _Estimate:
    """What a step does to the adapter: coefficients float32 [Q] or a gradient float32 [P], as applied and journalled.

    ``norm`` is the L2 norm of the gradient before clipping, ``loss`` the batch's mean.
    """

    applied: np.ndarray
    norm: float
    loss: float


def take_step(trainer: Trainer, picked: Picked) -> None:
    """One batch; where none of its pictures can be read nothing happens."""
    started = time.monotonic()
    estimated = _by_gradient(trainer, picked) if trainer.options.estimator == "exact" else _by_queries(trainer, picked)
    if estimated is None:
        return
    progress, rate, step = trainer.state.progress, trainer.options.adapter_lr, trainer.state.progress.step
    if trainer.options.estimator == "exact":
        trainer.state.adapter.apply_gradient(estimated.applied, rate)
    else:
        trainer.state.adapter.apply(step, estimated.applied, rate)
    progress.step += 1
    trainer.count_step(estimated.loss, estimated.norm, time.monotonic() - started)
    # Last, as what fails before it is done again; a crash in between goes back to a checkpoint all the same.
    trainer.record_step(step, estimated.applied, rate)
    trainer.check_band()


def _by_queries(trainer: Trainer, picked: Picked) -> _Estimate | None:
    """The coefficients of a batch's queries."""
    options, adapter, progress = trainer.options, trainer.state.adapter, trainer.state.progress
    looks_twice = options.optimizer == "conserve"
    needs_base = _trains_head(trainer) or looks_twice or trainer.prototypes is not None
    base = (BASE,) if needs_base or options.query_form == "one-sided" else ()
    wanted = base + queries(options.query_form, options.queries)
    batch = _batch(trainer, picked, wanted)
    if batch is None:
        return None
    _step_head(trainer, batch)
    losses = _losses(trainer, batch.features, batch)
    _check_finite(losses, progress.step)
    loss = float(losses[0] if base else losses.mean())
    raw = coefficients(options.query_form, losses[len(base) :], loss if base else None, adapter.eps)
    applied, norm = clip(adapter, progress.step, raw, options.clip_norm or None)
    if looks_twice:
        applied = _of_best_side(trainer, batch, applied)
    _absorb(trainer, batch)
    progress.forward_passes += len(wanted) * len(batch.kept)
    trainer.count_forwards((len(wanted) + (2 if looks_twice else 0)) * len(batch.kept))
    return _Estimate(applied, norm, loss)


def _by_gradient(trainer: Trainer, picked: Picked) -> _Estimate | None:
    """The exact gradient of a batch's loss."""
    options, progress = trainer.options, trainer.state.progress
    batch = _batch(trainer, picked, (BASE,))
    if batch is None:
        return None
    _step_head(trainer, batch)
    losses = _losses(trainer, batch.features, batch)
    _check_finite(losses, progress.step)
    gradient = _carried_back(trainer, batch)
    _check_finite(gradient, progress.step)
    norm = float(np.sqrt(np.dot(gradient, gradient)))
    applied = (gradient * clip_factor(norm, options.clip_norm or None)).astype(np.float32)
    _absorb(trainer, batch)
    progress.forward_passes += len(batch.kept)
    progress.gradient_passes += len(batch.kept)
    trainer.count_forwards((1 + GRADIENT_FORWARDS) * len(batch.kept))
    return _Estimate(applied, norm, float(losses[0]))


def _batch(trainer: Trainer, picked: Picked, wanted: tuple[Query, ...]) -> _Batch | None:
    """The features of a batch under the ``wanted`` adapters; None if no picture can be read."""
    adapter, step = trainer.state.adapter, trainer.state.progress.step
    found = trainer.pictures.batch(
        picked, lambda pictures: query_features(trainer.backbone, adapter, step, wanted, pictures)
    )
    if found is None:
        return None
    features, kept = found
    _check_finite(features, step)
    optimiser = trainer.state.optimiser
    # The classes of the loss: the cosine head's are the task's, as in the paper; the solved head's all seen.
    class_ids = np.arange(len(trainer.state.head.rows)) if optimiser is None else optimiser.class_ids
    return _Batch(features, kept, np.searchsorted(class_ids, [sample.class_id for _, sample in kept]), class_ids)


def _trains_head(trainer: Trainer) -> bool:
    return trainer.state.optimiser is not None and trainer.state.progress.epoch < trainer.options.head_epochs


def _step_head(trainer: Trainer, batch: _Batch) -> None:
    """A step of a cosine head on the features under theta."""
    optimiser, options, epoch = trainer.state.optimiser, trainer.options, trainer.state.progress.epoch
    if optimiser is not None and _trains_head(trainer):
        optimiser.step(batch.features[0], batch.labels, cosine_rate(options.head_lr, epoch, options.head_epochs))


def _losses(trainer: Trainer, features: np.ndarray, batch: _Batch) -> np.ndarray:
    """What each adapter's features float32 [K, B, D] of a batch's pictures cost, float64 [K]."""
    prototypes = _prototypes(trainer)
    if prototypes is None:
        return trainer.state.head.losses(features, batch.labels, batch.class_ids)
    return prototypes.losses(features, batch.labels)


def _prototypes(trainer: Trainer) -> Prototypes | None:
    """What steers the adapter by episodes, None where the head's loss does."""
    prototypes, sums = trainer.prototypes, trainer.state.prototype_sums
    if prototypes is None or sums is None:
        return None
    prototypes.sums = sums  # those of the state, which may have been put back since
    return prototypes


def _absorb(trainer: Trainer, batch: _Batch) -> None:
    """Let the class means follow the adapter."""
    if trainer.prototypes is not None:
        trainer.prototypes.absorb(batch.features[0], batch.labels)


def _carried_back(trainer: Trainer, batch: _Batch) -> np.ndarray:
    """The gradient of the batch's loss by theta, float64 [P], a picture at a time in their order.

    Pictures are decoded a second time, so that memory does not depend on the batch. One that cannot be read any more is
    left out of the sum.
    """
    backbone, theta, prototypes = trainer.backbone, trainer.state.adapter.theta, _prototypes(trainer)
    features, labels = batch.features[0], batch.labels
    if prototypes is None:
        towards = trainer.state.head.gradients(features, labels, batch.class_ids)
    else:
        towards = prototypes.gradients(features, labels)
    load, total = trainer.pictures.loader(batch.kept), np.zeros(len(theta))
    for index, picture in enumerate(batch.kept):
        trainer.signals.check()
        try:
            load(index, backbone.gradient_image[0])
        except ImageError as error:
            trainer.pictures.leave_out(*picture, error)
            continue
        total += backbone.gradient(theta, towards[index])
    return total


def _of_best_side(trainer: Trainer, batch: _Batch, applied: np.ndarray) -> np.ndarray:
    """ZO-SGD-Conserve: ``applied`` float32 [Q] times 0 to stay, 1 for theta - lr g or -1 for theta + lr g.

    Two more forward passes a picture at the very bits that the step would leave (ZO-bench, arXiv 2402.11592; ZeroFlow,
    arXiv 2501.01045). The judge is the head's loss on the batch. To stay wins a tie. A side whose loss is not finite is
    not taken. Pictures are decoded a second time, so that memory does not depend on the batch.
    """
    state, rate, picked = trainer.state, trainer.options.adapter_lr, batch.kept
    sides = [state.adapter.candidate(state.progress.step, sign * applied, rate) for sign in (1, -1)]

    def lost(index: int, error: ImageError) -> None:
        trainer.pictures.leave_out(*picked[index], error)

    pictures = Pictures(len(picked), trainer.pictures.loader(picked), trainer.signals.check)
    found = list(readable_features(trainer.backbone, sides, pictures, lost))
    if not found:
        return np.zeros_like(applied)
    indices = np.concatenate([part for part, _ in found])
    features = np.concatenate([batch.features[:1, indices], np.concatenate([part for _, part in found], axis=1)])
    with np.errstate(invalid="ignore", over="ignore"):
        losses = _losses(trainer, features, replace(batch, labels=batch.labels[indices]))
    state.progress.forward_passes += 2 * len(indices)
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    # Not a product: zero times a negative number would journal a sign.
    return (np.zeros_like(applied), applied, -applied)[best]


def _check_finite(values: np.ndarray, step: int) -> None:
    if not np.isfinite(values).all():
        raise DivergedError(f"The loss of step {step} is not finite.")
