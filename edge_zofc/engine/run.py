"""Opening a run, learning under its plan and cap, and writing down what it cost.

What may surprise: starting a run may be cut off anywhere too. ``settings.json`` is written first and makes the
folder a run; a journal without a snapshot beside it holds nothing yet and is started again.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.heads import set_torch_threads
from edge_zofc.algorithm.options import Options
from edge_zofc.data.stream import Stream, fingerprint, read_stream
from edge_zofc.device import memory_limit, memory_plan
from edge_zofc.device.profiles import DeviceProfile, load_profile
from edge_zofc.device.system import PeakSampler
from edge_zofc.engine.loop import learn
from edge_zofc.engine.result import Circumstances, result_of
from edge_zofc.engine.setup import Request, check_trainable, settings_and_plan
from edge_zofc.engine.signals import SignalBell
from edge_zofc.engine.state import RunState
from edge_zofc.engine.trainer import Session
from edge_zofc.errors import DamagedFileError, InputError, Stopped
from edge_zofc.inference.backbone import Backbone, BackboneOptions, Providers, choose_providers
from edge_zofc.storage import checkpoint, journal
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.lock import LOCK_FILE, RunLock
from edge_zofc.storage.reading import check_folder
from edge_zofc.storage.run_folder import (
    FROZEN,
    JOURNAL,
    SETTINGS,
    STATE,
    EventLog,
    Settings,
    is_run,
    write_result,
)
from edge_zofc.storage.writing import TEMPORARY_PREFIX, make_folder, sweep

log = logging.getLogger("edge_zofc")


def learn_run(request: Request, on_step: Callable[[Session, float], None]) -> dict[str, Any]:
    """Learn the stream's pending tasks in ``request.run`` and return the content of ``result.json``.

    Every error is one of ``errors``; whatever happens, the run folder holds the last good state.
    """
    bundle = read_bundle(request.bundle)
    profile = load_profile(request.profile)
    stream = read_stream(request.stream, only=request.tasks)
    with run_folder(request):
        return learn_locked(request, bundle, profile, stream, on_step)


@contextmanager
def run_folder(request: Request) -> Iterator[None]:
    """The run's folder, made if need be, locked and without what a crash left over."""
    _refuse_strangers(request)
    make_folder(request.run)
    with RunLock(request.run):
        for folder in (request.run, request.run / STATE, request.run / FROZEN):
            if folder != request.run:
                check_folder(folder)
            if folder.is_dir():
                sweep(folder)
        yield


def learn_locked(
    request: Request,
    bundle: Bundle,
    profile: DeviceProfile,
    stream: Stream,
    on_step: Callable[[Session, float], None],
) -> dict[str, Any]:
    """``learn_run`` inside ``run_folder``."""
    with ExitStack() as stack:
        settings, plan = settings_and_plan(request, bundle, profile, stream)
        check_trainable(bundle, settings.run_options())
        usage, bell = stack.enter_context(PeakSampler()), stack.enter_context(SignalBell())
        # A CUDA process reserves more address space than any cap on it could allow.
        providers = choose_providers(profile.session_providers())
        memory_limit.enforce(plan, accelerator=providers[0][0] != "CPUExecutionProvider")
        session = _open(request, bundle, settings, plan, profile, usage, stack)
        session.on_step = on_step
        where = _Where(request, plan, profile)

        def write(now: Session) -> None:
            write_result(request.run, _result(now, settings, where))

        session.on_task_end = write
        _tell_start(session, plan, settings)
        bell.answer = lambda: session.backbone.interrupt()  # another backbone, once memory ran out
        with _stop_on_signals(session):
            try:
                learn(session)
            except Stopped:
                write(session)
                return {**_result(session, settings, where), "stopped": session.stop_signal}
        session.events.write("finished")
        session.save()
        write(session)
        return _result(session, settings, where)


@dataclass(frozen=True)
class _Where:
    request: Request
    plan: memory_plan.MemoryPlan
    profile: DeviceProfile


def _refuse_strangers(request: Request) -> None:
    """A folder that is not a run, and a --resume without a run, are the user's slip of the pen."""
    folder = request.run
    if is_run(folder):
        return
    if request.resume:
        raise InputError(f"There is no run to resume in {folder}; leave out --resume to start one.")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give --run a folder.")
    # A lock and a half-written settings.json are what a start leaves behind that was cut off in its first instant.
    if folder.is_dir() and not all(_is_leftover(entry) for entry in folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no run; give --run a new folder.")


def _is_leftover(path: Path) -> bool:
    return path.name == LOCK_FILE or (path.name.startswith(TEMPORARY_PREFIX) and path.name.endswith(SETTINGS))


def _open(
    request: Request,
    bundle: Bundle,
    settings: Settings,
    plan: memory_plan.MemoryPlan,
    profile: DeviceProfile,
    usage: PeakSampler,
    stack: ExitStack,
) -> Session:
    """Session, state, journal and log of a run, at its newest snapshot."""
    options = settings.run_options()
    state = RunState.of(bundle, options)
    events = EventLog(request.run)
    stack.callback(events.close)
    found = checkpoint.load_latest(request.run / STATE)
    if found is not None:
        state.restore(found.snapshot)
        for text in found.notes:
            log.warning(text)
    else:
        state.progress.head_backend = plan.head_backend
    written = _open_journal(request.run / JOURNAL, state, bundle, options, found is None)
    stack.callback(written.close)
    stream = read_stream(request.stream, state.progress.class_names, request.tasks)
    backbone = Backbone(
        bundle,
        _backbone_options(plan, settings.execution.threads, choose_providers(profile.session_providers())),
    )
    if state.progress.head_backend == "torch":
        set_torch_threads(settings.execution.threads)
    session = Session(
        bundle, stream, request.run, options, state, backbone, written, events, usage, request.max_steps
    )
    if found is None:
        make_folder(request.run / STATE)
        session.save()
    _tell_changes(session)
    if _is_changed(session):
        # Batches and class ids of the steps so far are those of pictures that are no longer the same.
        name = state.current_task.name
        session.undo_task(len(state.finished_tasks) - 1)
        session.note(f"task {name} changed while it was being learnt: it is begun again.")
        session.stream = read_stream(request.stream, state.progress.class_names, request.tasks)
    return session


def _open_journal(
    path: Path, state: RunState, bundle: Bundle, options: Options, is_new: bool
) -> journal.Journal:
    """The run's journal, cut back to the records that the snapshot knows; a new one for a new run."""
    kept = state.progress.journal_records
    header = journal.Header(
        options.seed,
        bundle.identity,
        state.adapter.size,
        state.adapter.eps,
        options.momentum,
        options.queries,
        optimizer=options.optimizer,
    )
    if is_new and not os.path.lexists(path):
        return journal.Journal.create(path, header)
    if journal.read(path)[0] != header:
        raise DamagedFileError(
            f"{path} is the journal of another run (its seed, bundle or options are not those in {SETTINGS}); "
            "put back this run's own."
        )
    if is_new and next(journal.read(path)[1], None) is not None:
        # The first snapshot is older than the first record: its folder is lost or not mounted.
        raise DamagedFileError(
            f"{path} holds records but {path.parent / STATE} holds no snapshot; put the folder {STATE} back "
            "(the adapter alone can be rebuilt with 'edge-zofc replay')."
        )
    return journal.Journal.open_for_append(path, keep_records=kept)


def _backbone_options(plan: memory_plan.MemoryPlan, threads: int, providers: Providers) -> BackboneOptions:
    return BackboneOptions(
        micro_batch=plan.micro_batch,
        parallel_adapters=plan.parallel_queries,
        threads=threads,
        providers=providers,
        prepacking=plan.prepacking,
        arena=plan.arena,
    )


def _tell_changes(session: Session) -> None:
    """Name what the stream left out, and tasks whose pictures changed after they were learnt."""
    for text in session.stream.notes:
        session.note(text)
    by_name = {task.name: task for task in session.stream.tasks}
    for learnt in session.state.finished_tasks:
        task = by_name.get(learnt.name)
        if task is not None and fingerprint(session.stream, task) != learnt.fingerprint:
            session.note(
                f"task {learnt.name} changed after it was learnt; it is not learnt again (add its new pictures "
                "as a new task folder)."
            )


def _is_changed(session: Session) -> bool:
    """Whether the pictures of the task that is half learnt are others than when it began."""
    unfinished = session.unfinished_task()
    if unfinished is None:
        return False
    return fingerprint(session.stream, unfinished) != session.state.current_task.fingerprint


def _tell_start(session: Session, plan: memory_plan.MemoryPlan, settings: Settings) -> None:
    session.events.write(
        "run_started",
        **settings.options,
        micro_batch=plan.micro_batch,
        parallel_queries=plan.parallel_queries,
        predicted_peak_bytes=plan.peak_bytes,
        budget_bytes=plan.budget_bytes,
    )
    log.info("%d task(s) to learn; %s", len(session.pending_tasks()), plan.reason)


def _result(session: Session, settings: Settings, where: _Where) -> dict[str, Any]:
    circumstances = Circumstances(
        stream=session.stream.root.name,
        device_profile=where.profile.name,
        budget_bytes=where.plan.budget_bytes,
        predicted_peak_bytes=where.plan.peak_bytes,
        micro_batch=session.backbone.options.micro_batch,
        parallel_queries=session.backbone.options.parallel_adapters,
        completed=not session.pending_tasks(),
    )
    return result_of(session.bundle, settings, session.state.progress, circumstances)


@contextmanager
def _stop_on_signals(session: Session) -> Iterator[None]:
    """SIGINT and SIGTERM ask the loop to stop at the next picture or run of the graph; a second one does not wait."""

    def ask(number: int, frame: object) -> None:
        if session.stop_signal is not None:
            raise KeyboardInterrupt
        session.stop_signal = signal.Signals(number).name
        log.warning("%s: saving the state and stopping.", session.stop_signal)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
