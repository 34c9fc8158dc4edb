"""What a run is begun or gone on with: the request, the options that it freezes, and the plan for them.

What may surprise: the options are written into the run folder by the first ``learn`` on it and must not change, since
resuming to the same bits depends on them. The two learning rates may, between tasks: the journal says for each step
at which rate it was applied, so that replaying stays exact, and it is the way on after a task that diverged.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.heads import HeadBackend
from edge_zofc.algorithm.options import Options, PresetName, differences, make_options
from edge_zofc.data.stream import Stream
from edge_zofc.device import memory_plan
from edge_zofc.device.process_cost import measure_base
from edge_zofc.device.profiles import DeviceProfile
from edge_zofc.device.system import board
from edge_zofc.engine.state import progress_of
from edge_zofc.errors import DoesNotFitError, InputError
from edge_zofc.storage import checkpoint
from edge_zofc.storage.bundle import MIN_FIDELITY, Bundle
from edge_zofc.storage.run_folder import (
    STATE,
    Execution,
    Settings,
    is_run,
    make_settings,
    read_settings,
    write_settings,
)

log = logging.getLogger("edge_zofc")

SPARE_CLASSES = 100
"""Classes that a plan makes room for beyond those of the stream: tasks may be added later."""


MAY_CHANGE = frozenset({"adapter_lr", "head_lr"})


@dataclass(frozen=True)
class Request:
    """What ``edge-zofc learn`` was asked. ``changes`` holds the options given explicitly; None: not given."""

    bundle: Path
    stream: Path
    run: Path
    profile: str = "auto"
    budget_bytes: int | None = None
    preset: PresetName | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    resume: bool = False
    micro_batch: int | None = None
    parallel_queries: int | None = None
    max_steps: int | None = None
    tasks: frozenset[str] | None = None
    """Names of the task folders to look at; None: all of the stream."""


def threads_of(profile: DeviceProfile) -> int:
    """The profile's threads, at most as many as this machine has processors."""
    return min(profile.threads, board().cpu_count)


def make_plan(
    bundle: Bundle,
    profile: DeviceProfile,
    options: Options,
    budget_bytes: int | None = None,
    classes: int = SPARE_CLASSES,
    micro_batch: int | None = None,
    parallel_queries: int | None = None,
    head_backend: HeadBackend | None = None,
    prepacking: bool | None = None,
    threads: int | None = None,
) -> memory_plan.MemoryPlan:
    """The memory plan for a bundle on a device. Raises DoesNotFitError with the shortfall and what would fit."""
    if options.head == "lda":
        head_backend = "numpy"  # solved, not trained: torch is never imported
    return memory_plan.plan(
        bundle.manifest,
        budget_bytes=budget_bytes or profile.learning_budget_bytes,
        batch_size=options.batch_size,
        queries=options.queries,
        query_form=options.query_form,
        optimizer=options.optimizer,
        closed_form=options.head == "lda",
        classes=classes,
        threads=threads or threads_of(profile),
        micro_batch=micro_batch,
        parallel_queries=parallel_queries,
        head_backend=head_backend,
        prepacking=prepacking,
        base=measure_base(),
    )


def settings_and_plan(
    request: Request, bundle: Bundle, profile: DeviceProfile, stream: Stream
) -> tuple[Settings, memory_plan.MemoryPlan]:
    """The frozen settings of the run that is there, or those of a new one, written; and the plan for them."""
    if not is_run(request.run):
        options = make_options(request.preset or "edge", request.changes)
        classes = len(stream.class_names) + SPARE_CLASSES
        plan = make_plan(
            bundle,
            profile,
            options,
            request.budget_bytes,
            classes,
            request.micro_batch,
            request.parallel_queries,
        )
        check_trainable(bundle, options)
        execution = Execution(
            micro_batch=plan.micro_batch,
            parallel_queries=plan.parallel_queries,
            threads=threads_of(profile),
            prepacking=plan.prepacking,
            arena=plan.arena,
            head_backend=plan.head_backend,
        )
        settings = make_settings(bundle, options, execution)
        write_settings(request.run, settings)
        return settings, plan
    settings = read_settings(request.run)
    if settings.bundle_identity != bundle.identity:
        raise InputError(
            f"The run in {request.run} belongs to another bundle than {request.bundle}; "
            "name that bundle with --bundle, or give --run a new folder."
        )
    changed = differences(settings.run_options(), request.preset, request.changes)
    if changed:
        settings = _with_new_rates(request, settings, changed)
    return settings, _plan_again(request, bundle, profile, settings)


def _with_new_rates(request: Request, settings: Settings, changed: dict[str, str]) -> Settings:
    """The settings with other learning rates, written, if nothing else changes and no task is under way.

    After a power cut before they were written the run is as it was; after it they count from the next task on.
    """
    told = "; ".join(f"{name}: {text}" for name, text in changed.items())
    if set(changed) - MAY_CHANGE:
        raise InputError(
            f"The run in {request.run} was started with other options ({told}), which cannot change; "
            "leave them out, or give --run a new folder."
        )
    found = checkpoint.load_latest(request.run / STATE)
    if found is not None and progress_of(found.snapshot).phase != "idle":
        raise InputError(
            f"The run in {request.run} is in the middle of a task, and learning rates ({told}) can change between "
            "tasks only; leave them out until it has ended, or go back with 'edge-zofc rollback'."
        )
    options = replace(settings.run_options(), **{name: request.changes[name] for name in changed}).check()
    new = settings.model_copy(update={"options": asdict(options)})
    write_settings(request.run, new)
    log.info("From here on %s.", told)
    return new


def _plan_again(
    request: Request, bundle: Bundle, profile: DeviceProfile, settings: Settings
) -> memory_plan.MemoryPlan:
    """The plan with the shapes the run began with, so that its bits go on; with new ones if they do not fit."""
    kept, options = settings.execution, settings.run_options()
    if kept.threads != threads_of(profile):
        log.info("%d thread(s), as the run began with: its features must go on rounding alike.", kept.threads)
    try:
        return make_plan(
            bundle,
            profile,
            options,
            request.budget_bytes,
            micro_batch=request.micro_batch or kept.micro_batch,
            parallel_queries=request.parallel_queries or kept.parallel_queries,
            head_backend=kept.head_backend,
            # Products with packed weights round differently; how much memory is free today must not change a run.
            prepacking=kept.prepacking,
            threads=kept.threads,
        )
    except DoesNotFitError:
        log.warning(
            "The shapes the run began with no longer fit; from here on its features round differently."
        )
        return make_plan(bundle, profile, options, request.budget_bytes, threads=kept.threads)


def check_trainable(bundle: Bundle, options: Options) -> None:
    """Raise InputError if the bundle's precision keeps too little of the gradient for these queries."""
    fidelity = bundle.manifest.fidelity
    value = fidelity.one_sided if options.query_form == "one-sided" else fidelity.two_sided
    if value < MIN_FIDELITY:
        raise InputError(
            f"The bundle's precision {bundle.manifest.precision} keeps too little of the gradient: fidelity "
            f"{value:.2f} for {options.query_form} queries, {MIN_FIDELITY} is needed; "
            "export with --precision w8 or fp32."
        )
