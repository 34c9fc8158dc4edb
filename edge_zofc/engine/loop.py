"""ZO-FC on a stream of tasks: zeroth order on the adapter, first order on the head (arXiv 2510.21019).

    for each task:
        begin     class means of the new pictures; new head rows; a new optimiser
        train     for each batch: features under theta and under every perturbed theta (forward passes only),
                  one head step, losses under the *updated* head, one adapter step, one journal record
        finish    accuracy over every class seen, beside the class-mean baseline; checkpoint; result.json

With ``--head lda`` there is no head step. The head is solved in closed form when a task begins, and again when it ends,
since its rows are then those of an adapter that has moved. What steers the adapter is by default the loss of
``algorithm/episodes.py``, in the first task; ``gate.py`` says before whether it moves, and judges what came of it.
"""

from __future__ import annotations

import numpy as np

from edge_zofc.algorithm.directions import uniform_rows
from edge_zofc.algorithm.heads import NEVER, solve
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.data.stream import Sample, Task, fingerprint, list_samples
from edge_zofc.engine.class_parts import keep_parts
from edge_zofc.engine.evaluation import (
    Tally,
    class_statistics,
    evaluate_learned,
    labels_of,
    mean_rows,
    picture_set,
    train_features,
)
from edge_zofc.engine.feature_store import adapter_key
from edge_zofc.engine.gate import add_to_frozen, before_steps, keep_frozen, pass_gate
from edge_zofc.engine.mistakes import confusion_of, pictures_of
from edge_zofc.engine.out_of_memory import retry_smaller
from edge_zofc.engine.progress import TaskProgress
from edge_zofc.engine.state import RunState
from edge_zofc.engine.trainer import Trainer
from edge_zofc.engine.training import train_by_episodes, train_by_epochs
from edge_zofc.engine.tuned_start import is_open, judge_start, settle_start
from edge_zofc.errors import DamagedFileError, DivergedError, Stopped
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
            if is_open(trainer):
                retry_smaller(trainer, judge_start, task)
                settle_start(trainer)
            retry_smaller(trainer, _begin, task, list_samples(trainer.stream, task, "train"), sum(dropped))
        samples = list_samples(trainer.stream, task, "train")
        if trainer.state.progress.phase == "training":
            _train(trainer, task, samples)
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
    samples, adapters = list_samples(trainer.stream, task, "train"), trainer.distinct_adapters()
    pictures, labels = train_features(trainer, task, samples, adapters), labels_of(samples)
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
    state, store, adapters = trainer.state, trainer.store, trainer.distinct_adapters()
    classes = max(len(state.progress.class_names), max(task.class_ids) + 1)
    pictures, labels = train_features(trainer, task, samples, adapters), labels_of(samples)
    unreadable = store.kept(pictures, adapters[0]).unreadable
    state.progress.floor_forward_passes += len(samples) * (len(adapters) - 1)
    state.progress.forward_passes += len(samples)
    moves, crowding = before_steps(trainer, task, pictures, labels)
    progress = TaskProgress(
        name=task.name,
        class_ids=list(task.class_ids),
        train_images=len(samples) - len(unreadable),
        skipped_images=len(unreadable) + dropped,
        fingerprint=fingerprint(trainer.stream, task),
        begun_under=adapter_key(state.adapter.theta),
        unreadable=unreadable,
        crowding=crowding,
    )
    wanted = (_solves_now(state, moves), state.frozen_moment is not None)
    found, frozen = (
        class_statistics(store, pictures, adapter, labels, classes, moment)
        for adapter, moment in zip((adapters[0], adapters[-1]), wanted, strict=True)
    )
    add_to_frozen(state, frozen)
    _add_classes(trainer, task, found)
    state.class_sums += frozen.sums
    state.class_counts += frozen.counts
    if trainer.options.adapter == "auto" and moves:
        keep_frozen(state, found)
    _open_task(trainer, progress, moves)


def _solves_now(state: RunState, moves: bool) -> bool:
    """Whether a closed-form head is solved when a task begins: for its steps, and where only one adapter is known."""
    return state.statistics is not None and (moves or state.frozen_moment is None)


def _open_task(trainer: Trainer, task: TaskProgress, moves: bool) -> None:
    """The first batch of a task whose head rows are there; recorded, told and saved."""
    state, names = trainer.state, trainer.stream.class_names
    state.progress.tasks.append(task)
    state.progress.epoch = state.progress.batch = 0
    number = len(state.progress.tasks) - 1
    state.progress.phase = "training" if moves else "trained"
    state.adapter.reset_velocity()
    if state.statistics is None:
        state.begin_optimiser()
    trainer.record(Kind.TASK_START)
    trainer.events.write(
        "task_started",
        task=number,
        name=task.name,
        classes=[names[index] for index in task.class_ids],
        train_images=task.train_images,
    )
    trainer.save()


def _add_classes(trainer: Trainer, task: Task, found: Statistics) -> None:
    """Rows for the task's new classes. A moment in ``found`` solves a closed-form head and becomes the whole run's."""
    state, options, names = trainer.state, trainer.options, trainer.stream.class_names
    first, classes = len(state.progress.class_names), len(found.counts)
    means = mean_rows(found.sums, found.counts)
    is_random = options.head_init == "random"
    rows = uniform_rows(options.seed, first, classes, means.shape[1]) if is_random else means[first:]
    state.add_classes(list(names[first:classes]), rows)
    is_single = len(task.class_ids) == 1
    if state.statistics is not None and state.head.biases is not None:
        if found.moment.size:
            found.absorb(state.statistics)
            state.head.rows, state.head.biases = solve(found)
        else:
            state.head.biases[first:] = NEVER
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


def _train(trainer: Trainer, task: Task, samples: list[Sample]) -> None:
    """All remaining steps of the current task."""
    progress = trainer.state.progress
    try:
        if trainer.options.loss == "episodic":
            pictures = train_features(trainer, task, samples, [trainer.frozen_theta])
            train_by_episodes(trainer, samples, pictures)
        else:
            pixels = picture_set(f"{len(progress.tasks) - 1:03d}-train", samples, trainer.reads_again(task))
            train_by_epochs(trainer, samples, pixels.pixel_file)
    finally:
        trainer.backbone.go_back(False)
    trainer.check_band(at_end=True)
    progress.phase = "trained"
    trainer.save()


def _finish(trainer: Trainer, task: Task) -> None:
    """Refresh a closed-form head, evaluate all tasks learnt so far, close the task, save."""
    state, progress = trainer.state, trainer.state.progress
    samples = list_samples(trainer.stream, task, "train")
    trainer.pictures.check_still_there(len(samples))
    statistics = _refreshed(trainer, task, samples)
    by_task = evaluate_learned(trainer, trainer.store)
    measured = [tally for tally in by_task if tally is not None]
    kinds = [(progress.learner, "correct"), (progress.floor, "floor_correct")]
    if statistics is not None and trainer.options.adapter != "on":
        kinds.append((progress.frozen, "frozen_correct"))
    progress.only_frozen, progress.only_moved = (
        sum(getattr(tally, name) for tally in measured) for name in ("only_frozen", "only_moved")
    )
    for counts, name in kinds:
        counts.correct.append([None if t is None else int(getattr(t, name).sum()) for t in by_task])
        counts.correct_by_class = _by_class([getattr(tally, name) for tally in measured])
    progress.total_by_class = _by_class([tally.total for tally in measured])
    _keep_mistakes(trainer, measured)
    progress.phase = "idle"
    # A finished task is not judged again.
    state.current_task.first_losses, state.current_task.recent_losses = [], []
    state.optimiser, state.statistics = None, statistics
    trainer.record(Kind.TASK_END)
    number = len(progress.tasks) - 1
    if fingerprint(trainer.stream, task) != state.current_task.fingerprint:
        trainer.note(f"task {task.name} changed while it was being learnt.")
    trainer.events.write("evaluated", task=number, correct=progress.learner.correct[-1], total=progress.total)
    trainer.save(task_end=number)
    trainer.on_task_end(trainer)


def _keep_mistakes(trainer: Trainer, measured: list[Tally]) -> None:
    """Which classes were taken for which at this evaluation; None of it where nothing was measured."""
    state = trainer.state
    state.confusion = confusion_of([tally.wrong for tally in measured]) if sum(state.progress.total_by_class) else None
    wrong = [(tally.wrong, tally.samples) for tally in measured]
    kept = np.zeros((0, 3), np.int64) if state.confusion is None else state.confusion
    state.progress.wrong_pictures = pictures_of(kept, wrong, trainer.stream.root)


def _by_class(counts: list[np.ndarray]) -> list[int]:
    """The sum of counts by class, int64 [C] each; [] where nothing was measured."""
    found: list[int] = np.sum(counts, axis=0).tolist() if counts else []
    return found


def _refreshed(trainer: Trainer, task: Task, samples: list[Sample]) -> Statistics | None:
    """The closed-form head's statistics with this task's pictures under the adapter as it is now; solves it anew."""
    state, theta = trainer.state, trainer.state.adapter.theta
    if state.statistics is None:
        return None
    adapters = [theta] if state.frozen_moment is None else trainer.distinct_adapters()  # after a cut they may be gone
    pictures = train_features(trainer, task, samples, adapters)
    known, labels = len(state.progress.class_names), labels_of(samples)
    found = class_statistics(trainer.store, pictures, theta, labels, known, moment=True)
    trainer.pictures.check_still_there(int(found.counts.sum()))
    keep_parts(trainer, pictures, labels, adapters)
    if state.current_task.begun_under != adapter_key(theta):
        state.progress.forward_passes += len(samples)
    found.absorb(state.statistics)
    found = pass_gate(trainer, found, pictures, labels)
    state.head.rows, state.head.biases = solve(found)
    return found
