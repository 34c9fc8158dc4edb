"""An open run: its state, log, journal and session, at its newest checkpoint or at its beginning."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass

from edge_zofc.algorithm.adapter import Adapter
from edge_zofc.algorithm.directions import GRADIENT, SCHEMES
from edge_zofc.algorithm.heads import set_torch_threads
from edge_zofc.algorithm.options import Options
from edge_zofc.data.stream import Stream
from edge_zofc.device.memory_plan import MemoryPlan
from edge_zofc.device.profiles import DeviceProfile
from edge_zofc.device.system import PeakSampler
from edge_zofc.engine.setup import LearnRequest
from edge_zofc.engine.state import RunState
from edge_zofc.engine.trainer import Trainer
from edge_zofc.errors import DamagedFileError
from edge_zofc.inference.backbone import Backbone
from edge_zofc.inference.graph import Providers
from edge_zofc.storage import journal
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.checkpoint import Loaded
from edge_zofc.storage.run_folder import STATE, RunFolder
from edge_zofc.storage.settings import SETTINGS, Settings
from edge_zofc.storage.writing import make_folder


@dataclass(frozen=True)
class Ground:
    """What a request stands on, verified: bundle, profile and the run folder, whose lock is held."""

    request: LearnRequest
    bundle: Bundle
    profile: DeviceProfile
    run: RunFolder


@dataclass(frozen=True)
class Start:
    """All that is settled before a session opens: ``found`` is the run's newest checkpoint, None for a new run."""

    ground: Ground
    found: Loaded | None
    stream: Stream
    settings: Settings
    plan: MemoryPlan


def open_trainer(start: Start, providers: Providers, usage: PeakSampler, files: ExitStack) -> Trainer:
    """State, log, journal and session of a run, at its newest checkpoint."""
    bundle, run, options = start.ground.bundle, start.ground.run, start.settings.options
    snapshot = None if start.found is None else start.found.snapshot
    state = RunState.of(bundle, options, snapshot)
    if snapshot is not None:
        # The state has copies. These would take their memory for as long as the run.
        snapshot.arrays.clear()
    if start.found is None:
        state.progress.head_backend = start.plan.placement.head_backend
    if state.progress.head_backend == "torch":
        set_torch_threads(start.plan.placement.threads)
    events = run.events()
    files.callback(events.close)
    steps = _open_journal(run, state, start)
    backbone = Backbone(bundle, start.plan.placement, providers)
    trainer = Trainer(run, bundle, start.stream, options, state, backbone, steps, events, usage)
    files.callback(lambda: trainer.journal.close())  # another start has another journal
    trainer.max_steps, trainer.budget_bytes = start.ground.request.max_steps, start.plan.budget_bytes
    trainer.evaluate = start.ground.request.evaluate
    if start.found is None:
        make_folder(run.state)
        trainer.save()
    trainer.keep_end_readable()
    return trainer


def _open_journal(run: RunFolder, state: RunState, start: Start) -> journal.Journal:
    """The run's journal, cut back to the records that the checkpoint knows; a new one for a new run."""
    is_new, header = start.found is None, header_of(start.settings.options, start.ground.bundle, state.adapter)
    if is_new and not os.path.lexists(run.journal):
        return journal.Journal.create(run.journal, header)
    if journal.read(run.journal)[0] != header:
        raise DamagedFileError(
            f"{run.journal} is the journal of another run (its seed, bundle or options are not those in {SETTINGS}); "
            "put back this run's own."
        )
    if is_new and next(journal.read(run.journal)[1], None) is not None:
        # The first checkpoint is older than the first record: its folder is lost or not mounted.
        raise DamagedFileError(
            f"{run.journal} holds records but {run.state} holds no snapshot; put the folder {STATE} back "
            "(the adapter alone can be rebuilt with 'edge-zofc replay')."
        )
    return journal.Journal.open_for_append(run.journal, keep_records=state.progress.journal_records)


def header_of(options: Options, bundle: Bundle, adapter: Adapter) -> journal.Header:
    """What the journal of a run with these options says of its steps."""
    is_exact = options.estimator == "exact"
    return journal.Header(
        options.seed,
        bundle.identity,
        adapter.size,
        adapter.eps,
        options.momentum,
        0 if is_exact else options.queries,
        GRADIENT if is_exact else SCHEMES[options.directions],
        options.optimizer,
        rests=options.adapter == "auto",
    )
