"""ZO-FC on a stream of tasks: zeroth order on the adapter, first order on the head (arXiv 2510.21019).

    for each task:
        begin     class means of the new pictures; new head rows; a new optimiser
        train     for each batch: features under theta and under every perturbed theta (forward passes only),
                  one head step, losses under the *updated* head, one adapter step, one journal record
        finish    accuracy over every class seen, beside the class-mean floor; snapshot; result.json

What may surprise: with ``--head lda`` there is no head step. The head is solved in closed form when a task begins,
its loss over every class seen steers the adapter, and it is solved again when the task ends, since its
rows are then those of an adapter that has moved.
"""

from __future__ import annotations

import hashlib
import math
import time
from pathlib import Path

import numpy as np

from edge_zofc.algorithm.directions import batches
from edge_zofc.algorithm.heads import Statistics, cosine_rate, solve
from edge_zofc.algorithm.spsa import BASE, clip, coefficients, queries
from edge_zofc.data.stream import Task, fingerprint, list_samples
from edge_zofc.engine.conserve import of_best_side
from edge_zofc.engine.evaluation import Tally, evaluate_task, feature_statistics, floor_head, mean_rows
from edge_zofc.engine.out_of_memory import with_room
from edge_zofc.engine.state import TaskProgress
from edge_zofc.engine.trainer import Picked, Session
from edge_zofc.errors import DivergedError, Stopped
from edge_zofc.storage.journal import Kind
from edge_zofc.storage.run_folder import FROZEN


def learn(session: Session) -> None:
    """Learn every pending task.

    Raises Stopped, with the state saved, when asked to stop; DivergedError, with the state of before the task
    saved, when a task's loss leaves its band.
    """
    try:
        for task in session.pending_tasks():
            _learn_task(session, task)
    except Stopped as stop:
        session.save()
        session.events.write("stopped", signal=session.stop_signal or str(stop))
        raise


def _learn_task(session: Session, task: Task) -> None:
    before = len(session.state.finished_tasks) - 1
    try:
        if session.state.progress.phase == "idle":
            with_room(session, _begin, task)
        if session.state.progress.phase == "training":
            _train(session, task)
        with_room(session, _finish, task)
    except DivergedError as error:
        session.undo_task(before)
        session.events.write("diverged", task=before + 1, name=task.name, reason=str(error))
        session.note(f"Task {task.name} diverged and is undone: {error}")
        session.on_task_end(session)
        rates = session.options.adapter_lr, session.options.head_lr
        raise DivergedError(
            f"Task {task.name} diverged and the run is as it was before it. {error} Look at the task's pictures, "
            f"or go on with a smaller --adapter-lr or --head-lr (now {rates[0]} and {rates[1]})."
        ) from error


def _begin(session: Session, task: Task) -> None:
    """Class means of the task's pictures, rows for its new classes, a new optimiser."""
    state, samples = session.state, list_samples(session.stream, task, "train")
    first_new = len(state.progress.class_names)
    classes = max(first_new, max(task.class_ids) + 1)
    adapters = session.distinct_adapters()
    scatter = state.statistics is not None
    found, unreadable = feature_statistics(
        session.backbone, adapters, samples, classes, session.reader(task.name, len(samples)), scatter
    )
    current, frozen = found[0], found[-1]
    session.check_skipped(task.name, len(unreadable), len(samples))
    state.progress.floor_forward_passes += len(samples) * (len(adapters) - 1)
    state.progress.forward_passes += len(samples)

    means = mean_rows(current.sums, current.counts)
    is_random = session.options.head_init == "random"
    rows = _random_rows(session, first_new, classes) if is_random else means[first_new:]
    state.add_classes(list(session.stream.class_names[first_new:classes]), rows)
    has_one_class = len(task.class_ids) == 1
    if state.statistics is not None:
        state.head.rows, state.head.biases = solve(state.statistics.plus(current))
    elif has_one_class:
        _set_single_row(session, task.class_ids[0], first_new, means, current.counts)
    if has_one_class:
        name = session.stream.class_names[task.class_ids[0]]
        session.note(
            f"The task has the single class {name}: its row is the class mean, the adapter is not trained."
        )
    state.class_sums += frozen.sums
    state.class_counts += frozen.counts
    state.progress.tasks.append(
        TaskProgress(
            name=task.name,
            class_ids=list(task.class_ids),
            train_images=len(samples) - len(unreadable),
            skipped_images=len(unreadable),
            fingerprint=fingerprint(session.stream, task),
            unreadable=unreadable,
        )
    )
    state.progress.epoch = state.progress.batch = 0
    state.progress.phase = "trained" if has_one_class else "training"
    state.adapter.reset_velocity()
    if state.statistics is None:
        state.begin_optimiser()
    session.record(Kind.TASK_START)
    session.events.write(
        "task_started",
        task=len(state.progress.tasks) - 1,
        name=task.name,
        classes=[session.stream.class_names[index] for index in task.class_ids],
        train_images=len(samples) - len(unreadable),
    )
    session.save()


def _train(session: Session, task: Task) -> None:
    """All remaining epochs of the current task."""
    progress, options = session.state.progress, session.options
    samples = list_samples(session.stream, task, "train")
    task_index = len(progress.tasks) - 1
    while progress.epoch < options.epochs:
        order = batches(len(samples), options.batch_size, options.seed, task_index, progress.epoch)
        while progress.batch < len(order):
            if session.max_steps is not None and progress.step >= session.max_steps:
                raise Stopped(f"max-steps {session.max_steps} reached")
            picked = session.picked(samples, order[progress.batch])
            if picked:
                with_room(session, _step, picked)
            progress.batch += 1
            session.save_when_due()
        progress.epoch, progress.batch = progress.epoch + 1, 0
    session.check_band(at_end=True)
    progress.phase = "trained"
    session.save()


def _step(session: Session, picked: Picked) -> None:
    """One batch: features, head step, losses under the new head, adapter step."""
    options, state = session.options, session.state
    progress, optimiser = state.progress, state.optimiser
    started, step = time.monotonic(), progress.step
    trains_head = optimiser is not None and progress.epoch < options.head_epochs
    looks_twice = options.optimizer == "conserve"
    base = (BASE,) if trains_head or looks_twice or options.query_form == "one-sided" else ()
    wanted = base + queries(options.query_form, options.queries)

    found = session.batch_features(step, wanted, picked)  # [K, B, D]
    if found is None:
        return
    features, kept = found
    _check_finite(session, features)
    # The cosine head's loss is over the task's classes, as in the paper; the solved head's over all seen.
    class_ids = np.arange(len(state.head.rows)) if optimiser is None else optimiser.class_ids
    labels = np.searchsorted(class_ids, [sample.class_id for _, sample in kept])
    if optimiser is not None and trains_head:
        rate = cosine_rate(options.head_lr, progress.epoch, options.head_epochs)
        optimiser.step(features[0], labels, rate)
    losses = state.head.losses(features, labels, class_ids)
    loss = float(losses[0] if base else losses.mean())
    _check_finite(session, losses)
    raw = coefficients(options.query_form, losses[len(base) :], loss if base else None, state.adapter.eps)
    applied, norm = clip(state.adapter, step, raw, options.clip_norm or None)
    if looks_twice:
        applied = of_best_side(session, kept, features[0], labels, class_ids, applied)
    state.adapter.apply(step, applied, options.adapter_lr)
    progress.step += 1
    progress.forward_passes += len(wanted) * len(kept)
    session.count_step(loss, norm, time.monotonic() - started)
    # Last, as what fails before it is done again; a crash in between goes back to a snapshot all the same.
    session.record(Kind.STEP, applied, options.adapter_lr, step=step)
    session.check_band()


def _finish(session: Session, task: Task) -> None:
    """Refresh a closed-form head, evaluate all tasks learnt so far, close the task, save."""
    state, progress = session.state, session.state.progress
    session.check_still_there(len(list_samples(session.stream, task, "train")))
    statistics = _refreshed(session, task)
    by_task = _evaluate(session)
    measured = [tally for tally in by_task if tally is not None]
    for counts, name in ((progress.learner, "correct"), (progress.floor, "floor_correct")):
        counts.correct.append([None if t is None else int(getattr(t, name).sum()) for t in by_task])
        counts.correct_by_class = np.sum([getattr(t, name) for t in measured], axis=0).tolist()
    progress.total_by_class = np.sum([tally.total for tally in measured], axis=0).tolist()
    progress.phase = "idle"
    state.optimiser, state.statistics = None, statistics
    session.record(Kind.TASK_END)
    number = len(progress.tasks) - 1
    if fingerprint(session.stream, task) != state.current_task.fingerprint:
        session.note(f"task {task.name} changed while it was being learnt.")
    session.events.write("evaluated", task=number, correct=progress.learner.correct[-1], total=progress.total)
    session.save(task_end=number)
    session.on_task_end(session)


def _refreshed(session: Session, task: Task) -> Statistics | None:
    """The closed-form head's statistics with this task's pictures under the adapter as it is now; solves it anew."""
    state = session.state
    if state.statistics is None:
        return None
    samples, known = list_samples(session.stream, task, "train"), len(state.progress.class_names)
    theta, reader = state.adapter.theta, session.reader(task.name, len(samples), quiet=True)
    (found,), _ = feature_statistics(session.backbone, [theta], samples, known, reader, scatter=True)
    session.check_still_there(int(found.counts.sum()))
    state.progress.forward_passes += len(samples)
    statistics = state.statistics.plus(found)
    state.head.rows, state.head.biases = solve(statistics)
    return statistics


def _evaluate(session: Session) -> list[Tally | None]:
    """A tally for each task learnt so far; None where its test pictures are gone or changed."""
    progress = session.state.progress
    by_name = {task.name: task for task in session.stream.tasks}
    tallies: list[Tally | None] = []
    for index, learnt in enumerate(progress.tasks):
        task = by_name.get(learnt.name)
        if task is None:
            session.note(
                f"task {learnt.name} is no longer in the stream: its accuracy is not measured again."
            )
            tallies.append(None)
            continue
        tally = _evaluate_one(session, index, task)
        progress.evaluation_forward_passes += tally.forward_passes
        progress.floor_forward_passes += tally.floor_forward_passes
        count = int(tally.total.sum())
        if index == len(progress.total):
            progress.total.append(count)
            learnt.test_images = count
        if count != progress.total[index]:
            # Right answers out of another number of pictures do not belong into the same column.
            session.note(
                f"the test pictures of task {learnt.name} changed: its accuracy is not measured again."
            )
            tallies.append(None)
        else:
            tallies.append(tally)
    return tallies


def _evaluate_one(session: Session, index: int, task: Task) -> Tally:
    """One task's tally; unreadable pictures are told when the task is evaluated for the first time."""
    state, is_new = session.state, index == len(session.state.progress.tasks) - 1
    samples = list_samples(session.stream, task, "test")
    # The rows in it carry class ids, so that they are part of its name.
    key = hashlib.sha256(f"{fingerprint(session.stream, task)} {task.class_ids}".encode()).hexdigest()
    cache = session.folder / FROZEN / f"{index:03d}-{key[:16]}.f32"
    floor = floor_head(state.class_sums, state.class_counts)
    skipped: list[Path] = []
    reader = session.reader(task.name, len(samples), skipped, quiet=not is_new)
    tally = evaluate_task(
        session.backbone, state.head, state.adapter.theta, floor, session.frozen_theta, samples, cache, reader
    )
    if is_new:
        session.check_skipped(task.name, len(skipped), len(samples))
        # Counted as if the cache was written just now, which a run that was cut off since may have done before.
        moved = len(session.distinct_adapters()) > 1
        tally.floor_forward_passes = tally.forward_passes if moved else 0
    return tally


def _check_finite(session: Session, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise DivergedError(f"The loss of step {session.state.progress.step} is not finite.")


def _random_rows(session: Session, first: int, end: int) -> np.ndarray:
    """Rows U(-1/sqrt D, 1/sqrt D), as the paper draws them, from (seed, class id)."""
    size = session.bundle.manifest.feature_size
    rows = np.empty((end - first, size), np.float32)
    for class_id in range(first, end):
        words = np.random.Philox(key=[session.options.seed, 1 << 32 | class_id]).random_raw(size)
        rows[class_id - first] = ((words >> np.uint64(11)) * 2.0**-53 * 2 - 1) / math.sqrt(size)
    return rows


def _set_single_row(
    session: Session, class_id: int, first_new: int, means: np.ndarray, counts: np.ndarray
) -> None:
    """A task with one class has a constant local loss: nothing to descend, its row is a class mean.

    For a class that was there before, the row moves towards the new pictures by their share.
    """
    head = session.state.head
    if class_id >= first_new:
        head.rows[class_id] = means[class_id]
        return
    old, new = int(session.state.class_counts[class_id]), int(counts[class_id])
    length = max(float(np.linalg.norm(head.rows[class_id])), 1e-12)
    mixed = (old * head.rows[class_id] / length + new * means[class_id]) / max(old + new, 1)
    head.rows[class_id] = mixed * length
