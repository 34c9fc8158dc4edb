"""ZO-FC on a stream of tasks: zeroth order on the adapter, first order on the head (arXiv 2510.21019).

    for each task:
        begin     class means of the new pictures; new head rows; a new optimiser
        train     for each batch: features under theta and under every perturbed theta (forward passes only),
                  one head step, losses under the *updated* head, one adapter step, one journal record
        finish    accuracy over every class seen, beside the class-mean baseline; checkpoint; result.json

With ``--head lda`` there is no head step. The head is solved in closed form when a task begins, and its loss over every
class seen steers the adapter. It is solved again when the task ends, since its rows are then those of an adapter that
has moved.
"""

from __future__ import annotations

import time

import numpy as np

from edge_zofc.algorithm.directions import batches, uniform_rows
from edge_zofc.algorithm.heads import Statistics, cosine_rate, solve
from edge_zofc.algorithm.spsa import BASE, clip, coefficients, queries
from edge_zofc.data.stream import Sample, Task, fingerprint, list_samples
from edge_zofc.engine.evaluation import class_statistics, evaluate_learned, labels_of, mean_rows, picture_set
from edge_zofc.engine.feature_store import FeatureStore, adapter_key
from edge_zofc.engine.out_of_memory import retry_smaller
from edge_zofc.engine.pictures import Picked
from edge_zofc.engine.state import TaskProgress
from edge_zofc.engine.trainer import Trainer
from edge_zofc.errors import DamagedFileError, DivergedError, ImageError, Stopped
from edge_zofc.inference.features import Pictures, query_features, readable_features
from edge_zofc.storage.journal import Kind


def learn(trainer: Trainer) -> None:
    """Learn every pending task.

    Raises Stopped, with the state saved, when asked to stop; DivergedError, with the state of before the task
    saved, when a task's loss leaves its band.
    """
    try:
        # Asked anew each time: a class without a readable picture changes the ids of the classes after it.
        while pending := trainer.pending_tasks():
            _learn_task(trainer, pending[0])
    except Stopped as stop:
        trainer.save()
        trainer.events.write("stopped", signal=trainer.signals.name or str(stop))
        raise


def _learn_task(trainer: Trainer, task: Task) -> None:
    before = len(trainer.state.finished_tasks) - 1
    trainer.bundle.verify_changed()
    try:
        if trainer.state.progress.phase == "idle":
            dropped: list[int] = []
            retry_smaller(trainer, _drop_unreadable_classes, task, dropped)
            task = trainer.pending_tasks()[0]
            retry_smaller(trainer, _begin, task, list_samples(trainer.stream, task, "train"), sum(dropped))
        samples = list_samples(trainer.stream, task, "train")
        if trainer.state.progress.phase == "training":
            _train(trainer, samples)
        _check_bundle(trainer, task, before)
        retry_smaller(trainer, _finish, task)
    except DivergedError as error:
        trainer.undo_task(before)
        trainer.events.write("diverged", task=before + 1, name=task.name, reason=str(error))
        trainer.note(f"Task {task.name} diverged and is undone: {error}")
        trainer.on_task_end(trainer)
        rates = trainer.options.adapter_lr, trainer.options.head_lr
        raise DivergedError(
            f"Task {task.name} diverged and the run is as it was before it. {error} Look at the task's pictures, "
            f"or go on with a smaller --adapter-lr or --head-lr (now {rates[0]} and {rates[1]})."
        ) from error


def _check_bundle(trainer: Trainer, task: Task, before: int) -> None:
    """Undo the task and raise DamagedFileError if the bundle's files changed: nobody knows which steps saw them."""
    try:
        trainer.bundle.verify_changed()
    except DamagedFileError as error:
        trainer.undo_task(before)
        trainer.note(f"The bundle changed while task {task.name} was being learnt: the task is undone.")
        raise DamagedFileError(
            f"{error} It changed while task {task.name} was being learnt, so the run is as it was before that task; "
            "put the bundle back and go on with 'edge-zofc learn --resume'."
        ) from error


def _drop_unreadable_classes(trainer: Trainer, task: Task, dropped: list[int]) -> None:
    """Take the classes of which no train picture can be read out of the task, and name them: they are no classes.

    The number of their pictures is added to ``dropped``.
    """
    samples, number = list_samples(trainer.stream, task, "train"), len(trainer.state.progress.tasks)
    pictures, labels = picture_set(f"{number:03d}-train", samples), labels_of(samples)
    adapters = trainer.distinct_adapters()
    trainer.store.ensure(trainer.backbone, [pictures], adapters, trainer.pictures.reader(task.name, len(samples)))
    unreadable = trainer.store.kept(pictures, adapters[0]).unreadable
    trainer.pictures.check_skipped(task.name, len(unreadable), len(samples))
    lost = set(labels[unreadable].tolist()) - set(np.delete(labels, unreadable).tolist())
    if lost:
        names = ", ".join(trainer.stream.class_names[index] for index in sorted(lost))
        trainer.note(f"task {task.name}: not learnt, for no train picture of the class can be read: {names}.")
        dropped.append(int(np.isin(labels, sorted(lost)).sum()))
        trainer.stream = trainer.stream.without(task.name, lost, len(trainer.state.progress.class_names))


def _begin(trainer: Trainer, task: Task, samples: list[Sample], dropped: int) -> None:
    """Class means of the task's pictures, rows for its new classes, a new optimiser.

    ``dropped`` pictures of classes that are none could not be read.
    """
    state, names, number = trainer.state, trainer.stream.class_names, len(trainer.state.progress.tasks)
    classes = max(len(state.progress.class_names), max(task.class_ids) + 1)
    store, adapters = trainer.store, trainer.distinct_adapters()
    pictures, labels = picture_set(f"{number:03d}-train", samples), labels_of(samples)
    store.ensure(trainer.backbone, [pictures], adapters, trainer.pictures.reader(task.name, len(samples)))
    unreadable = store.kept(pictures, adapters[0]).unreadable
    state.progress.floor_forward_passes += len(samples) * (len(adapters) - 1)
    state.progress.forward_passes += len(samples)
    found, frozen = (
        class_statistics(store, pictures, adapter, labels, classes, moment)
        for adapter, moment in ((adapters[0], state.statistics is not None), (adapters[-1], False))
    )
    _add_classes(trainer, task, found)
    state.class_sums += frozen.sums
    state.class_counts += frozen.counts
    read_count = len(samples) - len(unreadable)
    state.progress.tasks.append(
        TaskProgress(
            name=task.name,
            class_ids=list(task.class_ids),
            train_images=read_count,
            skipped_images=len(unreadable) + dropped,
            fingerprint=fingerprint(trainer.stream, task),
            begun_under=adapter_key(state.adapter.theta),
            unreadable=unreadable,
        )
    )
    state.progress.epoch = state.progress.batch = 0
    # A task with one class has a constant local loss: nothing to descend.
    state.progress.phase = "trained" if len(task.class_ids) == 1 else "training"
    state.adapter.reset_velocity()
    if state.statistics is None:
        state.begin_optimiser()
    trainer.record(Kind.TASK_START)
    trainer.events.write(
        "task_started",
        task=number,
        name=task.name,
        classes=[names[index] for index in task.class_ids],
        train_images=read_count,
    )
    trainer.save()


def _add_classes(trainer: Trainer, task: Task, found: Statistics) -> None:
    """Rows for the task's new classes; the closed-form head is solved with this task's ``found`` statistics."""
    state, options, names = trainer.state, trainer.options, trainer.stream.class_names
    first, classes = len(state.progress.class_names), len(found.counts)
    means = mean_rows(found.sums, found.counts)
    is_random = options.head_init == "random"
    rows = uniform_rows(options.seed, first, classes, means.shape[1]) if is_random else means[first:]
    state.add_classes(list(names[first:classes]), rows)
    is_single = len(task.class_ids) == 1
    if state.statistics is not None:
        state.head.rows, state.head.biases = solve(state.statistics.plus(found))
    elif is_single:
        is_new = task.class_ids[0] >= first
        _set_single_row(trainer, task.class_ids[0], means, 0 if is_new else int(found.counts[task.class_ids[0]]))
    if is_single:
        name = names[task.class_ids[0]]
        trainer.note(f"The task has the single class {name}: its row is the class mean, the adapter is not trained.")


def _set_single_row(trainer: Trainer, class_id: int, means: np.ndarray, added: int) -> None:
    """A task's only class has its mean as row; that of a class seen before moves by the ``added`` pictures' share."""
    head, old = trainer.state.head, int(trainer.state.class_counts[class_id])
    if not added:
        head.rows[class_id] = means[class_id]
        return
    length = max(float(np.linalg.norm(head.rows[class_id])), 1e-12)
    mixed = (old * head.rows[class_id] / length + added * means[class_id]) / (old + added)
    head.rows[class_id] = mixed * length


def _train(trainer: Trainer, samples: list[Sample]) -> None:
    """All remaining epochs of the current task."""
    progress, options = trainer.state.progress, trainer.options
    task_index = len(progress.tasks) - 1
    while progress.epoch < options.epochs:
        order = batches(len(samples), options.batch_size, options.seed, task_index, progress.epoch)
        while progress.batch < len(order):
            if trainer.max_steps is not None and progress.step >= trainer.max_steps:
                raise Stopped(f"max-steps {trainer.max_steps} reached")
            picked = trainer.pictures.picked(samples, order[progress.batch])
            if picked:
                retry_smaller(trainer, _step, picked)
            progress.batch += 1
            trainer.save_when_due()
        progress.epoch, progress.batch = progress.epoch + 1, 0
    trainer.check_band(at_end=True)
    progress.phase = "trained"
    trainer.save()


def _step(trainer: Trainer, picked: Picked) -> None:
    """One batch: features, head step, losses under the new head, adapter step."""
    options, state, progress = trainer.options, trainer.state, trainer.state.progress
    optimiser, head, adapter = state.optimiser, state.head, state.adapter
    started, step = time.monotonic(), progress.step
    trains_head = optimiser is not None and progress.epoch < options.head_epochs
    looks_twice = options.optimizer == "conserve"
    base = (BASE,) if trains_head or looks_twice or options.query_form == "one-sided" else ()
    wanted = base + queries(options.query_form, options.queries)

    found = trainer.pictures.batch(
        picked, lambda pictures: query_features(trainer.backbone, adapter, step, wanted, pictures)
    )
    if found is None:
        return
    features, kept = found  # [K, B, D]
    _check_finite(features, step)
    # The cosine head's loss is over the task's classes, as in the paper; the solved head's over all seen.
    class_ids = np.arange(len(head.rows)) if optimiser is None else optimiser.class_ids
    labels = np.searchsorted(class_ids, [sample.class_id for _, sample in kept])
    if optimiser is not None and trains_head:
        optimiser.step(features[0], labels, cosine_rate(options.head_lr, progress.epoch, options.head_epochs))
    losses = head.losses(features, labels, class_ids)
    _check_finite(losses, step)
    loss = float(losses[0] if base else losses.mean())
    raw = coefficients(options.query_form, losses[len(base) :], loss if base else None, adapter.eps)
    applied, norm = clip(adapter, step, raw, options.clip_norm or None)
    if looks_twice:
        applied = _of_best_side(trainer, kept, features[0], labels, applied)
    adapter.apply(step, applied, options.adapter_lr)
    progress.step += 1
    progress.forward_passes += len(wanted) * len(kept)
    trainer.count_forwards((len(wanted) + (2 if looks_twice else 0)) * len(kept))
    trainer.count_step(loss, norm, time.monotonic() - started)
    # Last, as what fails before it is done again; a crash in between goes back to a checkpoint all the same.
    trainer.record_step(step, applied, options.adapter_lr)
    trainer.check_band()


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
    class_ids = np.arange(len(state.head.rows)) if state.optimiser is None else state.optimiser.class_ids
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
        losses = state.head.losses(features, labels[indices], class_ids)
    state.progress.forward_passes += 2 * len(indices)
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    # Not a product: zero times a negative number would journal a sign.
    return (np.zeros_like(applied), applied, -applied)[best]


def _finish(trainer: Trainer, task: Task) -> None:
    """Refresh a closed-form head, evaluate all tasks learnt so far, close the task, save."""
    state, progress = trainer.state, trainer.state.progress
    samples = list_samples(trainer.stream, task, "train")
    trainer.pictures.check_still_there(len(samples))
    store = trainer.store
    statistics = _refreshed(trainer, task, samples, store)
    by_task = evaluate_learned(trainer, store)
    measured = [tally for tally in by_task if tally is not None]
    for counts, name in ((progress.learner, "correct"), (progress.floor, "floor_correct")):
        counts.correct.append([None if t is None else int(getattr(t, name).sum()) for t in by_task])
        counts.correct_by_class = _by_class([getattr(tally, name) for tally in measured])
    progress.total_by_class = _by_class([tally.total for tally in measured])
    progress.phase = "idle"
    state.optimiser, state.statistics = None, statistics
    trainer.record(Kind.TASK_END)
    number = len(progress.tasks) - 1
    if fingerprint(trainer.stream, task) != state.current_task.fingerprint:
        trainer.note(f"task {task.name} changed while it was being learnt.")
    trainer.events.write("evaluated", task=number, correct=progress.learner.correct[-1], total=progress.total)
    trainer.save(task_end=number)
    trainer.on_task_end(trainer)


def _by_class(counts: list[np.ndarray]) -> list[int]:
    """The sum of counts by class, int64 [C] each; [] where nothing was measured."""
    found: list[int] = np.sum(counts, axis=0).tolist() if counts else []
    return found


def _refreshed(trainer: Trainer, task: Task, samples: list[Sample], store: FeatureStore) -> Statistics | None:
    """The closed-form head's statistics with this task's pictures under the adapter as it is now; solves it anew."""
    state, theta = trainer.state, trainer.state.adapter.theta
    if state.statistics is None:
        return None
    pictures = picture_set(f"{len(state.progress.tasks) - 1:03d}-train", samples)
    store.ensure(trainer.backbone, [pictures], [theta], trainer.pictures.reader(task.name, len(samples), quiet=True))
    known, labels = len(state.progress.class_names), labels_of(samples)
    found = class_statistics(store, pictures, theta, labels, known, moment=True)
    trainer.pictures.check_still_there(int(found.counts.sum()))
    if state.current_task.begun_under != adapter_key(theta):
        state.progress.forward_passes += len(samples)
    statistics = state.statistics.plus(found)
    state.head.rows, state.head.biases = solve(statistics)
    return statistics


def _check_finite(values: np.ndarray, step: int) -> None:
    if not np.isfinite(values).all():
        raise DivergedError(f"The loss of step {step} is not finite.")
