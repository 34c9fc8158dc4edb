"""A run from request to result: open, plan, limit the memory, learn, write down what it cost.

Starting a run may be cut off anywhere. ``settings.json`` is written first and makes the folder a run. A journal without
a checkpoint beside it holds nothing yet and is started again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from edge_zofc.data.stream import Stream, fingerprint, read_stream
from edge_zofc.device import memory_limit
from edge_zofc.device.profiles import AUTO, DeviceProfile, load_profile
from edge_zofc.device.system import PeakSampler
from edge_zofc.engine.loop import learn
from edge_zofc.engine.opening import Ground, Start, open_trainer
from edge_zofc.engine.predict import run_bundle
from edge_zofc.engine.progress import RunProgress, progress_of
from edge_zofc.engine.result import result_of
from edge_zofc.engine.setup import LearnRequest, kept_settings, new_settings, with_kept_device
from edge_zofc.engine.trainer import Trainer
from edge_zofc.engine.work import Forecast, forwards_left
from edge_zofc.errors import DamagedFileError, InputError, Stopped
from edge_zofc.inference.providers import choose_providers
from edge_zofc.signals import StopSignals, stop_signals
from edge_zofc.storage.bundle import BUNDLE_FOLDER, read_bundle
from edge_zofc.storage.result import RunResult
from edge_zofc.storage.run_folder import RunFolder

log = logging.getLogger("edge_zofc")

RESULT_SHARE = 20

OnStep = Callable[[Trainer, float], None]
OnForwards = Callable[[Trainer, int], None]


def silent(trainer: Trainer, number: float) -> None:
    """Nobody watches."""


def learn_run(request: LearnRequest, on_step: OnStep, on_forwards: OnForwards = silent) -> RunResult:
    """Learn the stream's pending tasks in ``request.run`` and return what ``result.json`` holds.

    Every error is one of ``errors``; whatever happens, the run folder holds the last good state.
    """
    with stop_signals() as signals, locked_run(request) as ground:
        return learn_locked(ground, signals, on_step, on_forwards)


@contextmanager
def locked_run(request: LearnRequest) -> Iterator[Ground]:
    """The verified bundle and profile, and the run's folder, made if need be and locked."""
    run = RunFolder(request.run)
    if request.resume and not run.is_run():
        raise InputError(f"There is no run to resume in {run.path}; leave out --resume to start one.")
    settings = run.settings() if run.is_run() else None
    if settings is None or request.bundle is not None:
        bundle = read_bundle(request.bundle or Path(BUNDLE_FOLDER))
    else:
        bundle = run_bundle(run, settings, None)
    asked = request if settings is None else with_kept_device(request, settings)
    profile = _profile(asked, is_kept=request.profile is None and settings is not None)
    with run.locked():
        yield Ground(asked, bundle, profile, run)


def _profile(request: LearnRequest, is_kept: bool) -> DeviceProfile:
    try:
        return load_profile(request.profile or AUTO)
    except InputError as error:
        if not is_kept:
            raise
        raise InputError(f"{error} The run was begun with it; name another one with --device-profile.") from error


def learn_locked(ground: Ground, signals: StopSignals, on_step: OnStep, on_forwards: OnForwards = silent) -> RunResult:
    """``learn_run`` inside ``locked_run``: read the stream, plan, limit the memory, open, learn, write the result."""
    ground.bundle.verify_changed()  # one watch reads it once, for months
    providers = choose_providers(ground.profile.session_providers())
    start = _start(ground, ground.profile.with_providers(dict(providers)))
    with PeakSampler() as usage, ExitStack() as files:
        # A CUDA process reserves more address space than any limit on it could allow.
        memory_limit.enforce(start.plan, accelerator=providers[0][0] != "CPUExecutionProvider")
        trainer = open_trainer(start, providers, usage, files)
        trainer.signals, trainer.on_step = signals, on_step
        signals.interrupt = lambda: trainer.backbone.interrupt()
        signals.bus_error = lambda: _bus_error(ground)
        _begin(trainer, start)
        forecast = _forecast(trainer, start, on_forwards)
        trainer.on_task_end = _result_writer(start, forecast)
        try:
            learn(trainer)
            trainer.events.write("finished")
            trainer.save()
        except Stopped:
            pass
        result = result_of(trainer, start.plan, start.ground.profile, forecast.cost())
        ground.run.write_result(result)
        return result


def _bus_error(ground: Ground) -> str:
    """Why a run of the graph met a page that cannot be read, and the way out."""
    try:
        ground.bundle.verify_changed()
        what = f"A file of {ground.bundle.folder} or of the program could not be read: look at the disk."
    except DamagedFileError as error:
        what = f"{error} It changed while a task was being learnt."
    return f"{what} The run in {ground.run.path} has its last saved state; go on with 'edge-zofc learn --resume'."


def _forecast(trainer: Trainer, start: Start, on_forwards: OnForwards) -> Forecast:
    """Tell what there is to do, and count what is done; ``on_forwards`` is told too."""
    forecast, pending = Forecast(forwards_left(trainer)), len(trainer.pending_tasks())

    def count(trainer: Trainer, image_forwards: int) -> None:
        forecast.count(image_forwards)
        on_forwards(trainer, image_forwards)

    trainer.on_forwards = count
    what = f", at most {forecast.image_forwards} image-forwards" if pending else ""
    log.info("%d task(s) to learn%s; %s", pending, what, start.plan.reason)
    return forecast


def _result_writer(start: Start, forecast: Forecast) -> Callable[[Trainer], None]:
    """Writes ``result.json`` after a task, but in no more than a twentieth of the time: it grows with their number."""
    free_again = 0.0

    def write(trainer: Trainer) -> None:
        nonlocal free_again
        began = time.monotonic()
        if began >= free_again:
            start.ground.run.write_result(result_of(trainer, start.plan, start.ground.profile, forecast.cost()))
            free_again = time.monotonic() + RESULT_SHARE * (time.monotonic() - began)

    return write


def _start(ground: Ground, profile: DeviceProfile) -> Start:
    """The stream, read once, and the settings and plan of the run that is there, or those of a new one, written.

    ``profile``: with the providers that start alone, for an arena that is not there must not shape the plan.
    """
    request, run = ground.request, ground.run
    found = run.latest()
    for text in () if found is None else found.notes:
        log.warning(text)
    progress = RunProgress() if found is None else progress_of(found.snapshot)
    learnt = {task.name: task.class_ids for task in progress.tasks}
    stream = read_stream(request.stream, progress.class_names, request.tasks, learnt)
    _refuse_other_stream(progress, stream, run)
    classes = len(stream.class_names)
    if run.is_run():
        # A run may have begun at the bundle's other start since it was read.
        bundle = ground.bundle.with_identity(run.settings().bundle_identity)
        ground = replace(ground, bundle=bundle)
        settings, plan = kept_settings(request, bundle, profile, run, classes)
    else:
        settings, plan = new_settings(request, ground.bundle, profile, classes)
        run.write_settings(settings)
    return Start(ground, found, stream, settings, plan)


def _refuse_other_stream(progress: RunProgress, stream: Stream, run: RunFolder) -> None:
    """Raise InputError where a task has no class in common with the learnt task of its name."""
    by_name = {task.name: task for task in stream.tasks}
    for learnt in progress.tasks:
        task = by_name.get(learnt.name)
        if task is not None and task.found and not set(task.class_ids) & set(learnt.class_ids):
            theirs, ours = ", ".join(task.found[:3]), ", ".join(stream.class_names[i] for i in learnt.class_ids[:3])
            raise InputError(
                f"The run in {run.path} has learnt another stream than {stream.root}: its task {learnt.name} has "
                f"the classes {ours}, and there it has {theirs}; give --run a new folder."
            )


def _begin(trainer: Trainer, start: Start) -> None:
    """Tell what the stream left out and what changed since; begin a half learnt task again if its pictures changed."""
    for text in trainer.stream.notes:
        trainer.note(text)
    by_name = {task.name: task for task in trainer.stream.tasks}
    for learnt in trainer.state.finished_tasks:
        task = by_name.get(learnt.name)
        if task is not None and fingerprint(trainer.stream, task) != learnt.fingerprint:
            trainer.note(
                f"task {learnt.name} changed after it was learnt; it is not learnt again (add its new pictures "
                "as a new task folder)."
            )
    unfinished = trainer.unfinished_task()
    if unfinished is not None:
        name = trainer.state.current_task.name
        if fingerprint(trainer.stream, unfinished) != trainer.state.current_task.fingerprint:
            # Batches and class ids of the steps so far are those of pictures that are no longer the same.
            trainer.undo_task(len(trainer.state.finished_tasks) - 1)
            trainer.note(f"task {name} changed while it was being learnt: it is begun again.")
            request, known = start.ground.request, trainer.state.progress.class_names
            learnt_ids = {task.name: task.class_ids for task in trainer.state.finished_tasks}
            trainer.stream = read_stream(request.stream, known, request.tasks, learnt_ids)
    trainer.events.write(
        "run_started",
        **asdict(trainer.options),
        micro_batch=start.plan.placement.micro_batch,
        parallel_queries=start.plan.placement.parallel_queries,
        predicted_peak_bytes=start.plan.peak_bytes,
        budget_bytes=start.plan.budget_bytes,
    )
