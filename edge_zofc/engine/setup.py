"""What a run is begun or gone on with: the request, the options that it freezes, and the plan for them.

The options are written into the run folder by the first ``learn`` on it and must not change, since resuming to the same
bits depends on them. The two learning rates may, between tasks: the journal says for each step at which rate it was
applied, so that replaying stays exact, and it is the way on after a task that diverged.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.options import Options, PresetName, changed, differences
from edge_zofc.device.memory_plan import Fixed, MemoryPlan
from edge_zofc.device.profiles import AUTO, DeviceProfile, format_bytes, is_profile_file
from edge_zofc.engine.plans import Device, choose, make_plan, rivals
from edge_zofc.engine.progress import tasks_of
from edge_zofc.engine.trainer import Evaluate
from edge_zofc.errors import DoesNotFitError, InputError, shown
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.manifest import MIN_FIDELITY
from edge_zofc.storage.run_folder import RunFolder
from edge_zofc.storage.settings import Settings, folder_place

log = logging.getLogger("edge_zofc")

MAY_CHANGE = frozenset({"adapter_lr", "head_lr"})


@dataclass(frozen=True)
class LearnRequest:
    """What ``edge-zofc learn`` was asked. ``changes`` holds the options given explicitly; None: not given."""

    bundle: Path | None
    """None: the run's own, ``bundle/`` for a new run."""
    stream: Path
    run: Path
    profile: str | None = None
    """A name or a file; None: the run's own, ``auto`` for a new run."""
    budget_bytes: int | None = None
    """None: the run's own, that of the profile for a new run or where another profile is named."""
    preset: PresetName | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    resume: bool = False
    micro_batch: int | None = None
    parallel_queries: int | None = None
    max_steps: int | None = None
    evaluate: Evaluate = "all"
    tasks: frozenset[str] | None = None
    """Names of the task folders to look at; None: all of the stream."""


def with_kept_device(request: LearnRequest, settings: Settings) -> LearnRequest:
    """The request with the run's profile and budget where it names none."""
    kept = settings.device_profile or AUTO
    asked = kept if request.profile is None else _profile_to_keep(request.profile)
    # A budget stands in place of that of its profile, not of another one.
    budget = settings.memory_budget_bytes if asked == kept else None
    return replace(request, profile=asked, budget_bytes=request.budget_bytes or budget)


def _profile_to_keep(name_or_path: str) -> str:
    """A profile's name, or the absolute path of its file."""
    return os.path.abspath(name_or_path) if is_profile_file(name_or_path) else name_or_path  # noqa: PTH100 - no links


def new_settings(
    request: LearnRequest, bundle: Bundle, profile: DeviceProfile, classes: int
) -> tuple[Settings, MemoryPlan]:
    """The settings of a run that is not there yet, and the plan for them. Nothing is written.

    ``classes`` of the stream. Raises InputError for a bundle that cannot be trained, else as ``make_plan``.
    """
    fixed = Fixed(request.micro_batch, request.parallel_queries)
    device, preset = Device(profile, request.budget_bytes), request.preset or "edge"
    options, plan, why = choose(rivals(bundle.manifest.sizes, preset, request.changes, device, classes, fixed))
    check_trainable(bundle, options)
    if options.moves:
        log.info(why)
    settings = Settings.of(bundle, options, plan.placement, request.run)
    kept = {"device_profile": _profile_to_keep(request.profile or AUTO), "memory_budget_bytes": request.budget_bytes}
    return settings.model_copy(update=kept), plan


def kept_settings(
    request: LearnRequest, bundle: Bundle, profile: DeviceProfile, run: RunFolder, classes: int
) -> tuple[Settings, MemoryPlan]:
    """The frozen settings of the run that is there, with new learning rates where asked for, and the plan for them.

    ``classes`` of run and stream. ``request`` from ``with_kept_device``: what it names anew is written. Raises
    InputError for another bundle and for options that cannot change.
    """
    settings = run.settings()
    if settings.bundle_identity != bundle.identity:
        raise InputError(
            f"The run in {request.run} belongs to another bundle than {bundle.folder}; "
            "name that bundle with --bundle, or give --run a new folder."
        )
    # "auto" leaves the choice, which was made when the run began.
    asked = {name: value for name, value in request.changes.items() if (name, value) != ("estimator", "auto")}
    told = differences(settings.options, request.preset, asked)
    if told:
        settings = _with_new_rates(request, settings, told, run)
    check_trainable(bundle, settings.options)
    plan = _plan_again(request, bundle, profile, settings, classes)
    return _with_new_surroundings(request, bundle, settings, run), plan


def _with_new_surroundings(request: LearnRequest, bundle: Bundle, settings: Settings, run: RunFolder) -> Settings:
    """The settings with the bundle's place, the profile and the budget of today; written, and told, if one changed."""
    new = settings
    if os.path.realpath(settings.bundle_places(run.path)[1]) != os.path.realpath(bundle.folder):
        new = new.model_copy(update={"bundle_folder": folder_place(run.path, bundle.folder)})
        log.info("The run's bundle is now in %s.", bundle.folder)
    device = {"device_profile": request.profile or AUTO, "memory_budget_bytes": request.budget_bytes}
    if tuple(device.values()) != (settings.device_profile or AUTO, settings.memory_budget_bytes):
        new = new.model_copy(update=device)
        log.warning("From here on %s; before, %s.", _device_text(new), _device_text(settings))
    if new != settings:
        run.write_settings(new)
    return new


def _device_text(settings: Settings) -> str:
    budget = settings.memory_budget_bytes
    return f"the device profile is {shown(settings.device_profile or AUTO)} and the memory budget " + (
        "the profile's own" if budget is None else format_bytes(budget)
    )


def _with_new_rates(request: LearnRequest, settings: Settings, changes: dict[str, str], run: RunFolder) -> Settings:
    """The settings with other learning rates, written, if nothing else changes and no task is under way.

    After a power cut before they were written the run is as it was; after it they count from the next task on.
    """
    told = "; ".join(f"{name}: {text}" for name, text in changes.items())
    if set(changes) - MAY_CHANGE:
        raise InputError(
            f"The run in {request.run} was started with other options ({told}), which cannot change; "
            "leave them out, or give --run a new folder."
        )
    if tasks_of(run)[1]:
        raise InputError(
            f"The run in {request.run} is in the middle of a task, and learning rates ({told}) can change between "
            "tasks only; leave them out until it has ended, or go back with 'edge-zofc rollback'."
        )
    options = changed(settings.options, {name: request.changes[name] for name in changes})
    new = settings.model_copy(update={"options": options})
    run.write_settings(new)
    log.info("From here on %s.", told)
    return new


def _plan_again(
    request: LearnRequest, bundle: Bundle, profile: DeviceProfile, settings: Settings, classes: int
) -> MemoryPlan:
    """The plan with the placement the run began with, so that its bits go on; with a new one if it does not fit."""
    kept = settings.execution
    device = Device(profile, request.budget_bytes, kept.threads)
    if kept.threads != device.own_threads:
        log.info("%d thread(s), as the run began with: its features must go on rounding alike.", kept.threads)
    fixed = Fixed(
        request.micro_batch or kept.micro_batch,
        request.parallel_queries or kept.parallel_queries,
        kept.head_backend,
        # Products with packed weights round differently; how much memory is free today must not change a run.
        kept.prepacking,
    )
    try:
        return make_plan(bundle.manifest.sizes, settings.options, device, classes, fixed)
    except DoesNotFitError:
        log.warning("The shapes the run began with no longer fit; from here on its features round differently.")
        return make_plan(bundle.manifest.sizes, settings.options, device, classes)


def check_trainable(bundle: Bundle, options: Options) -> None:
    """Raise InputError if the adapter is to move and the bundle's precision keeps too little of the gradient."""
    if not options.moves or options.estimator == "exact":
        return
    fidelity = bundle.manifest.fidelity
    value = fidelity.one_sided if options.query_form == "one-sided" else fidelity.two_sided
    if value < MIN_FIDELITY:
        raise InputError(
            f"The bundle's precision {bundle.manifest.precision} keeps too little of the gradient: fidelity "
            f"{value:.2f} for {options.query_form} queries, {MIN_FIDELITY} is needed; "
            "export with --precision w8 or fp32, or let the adapter rest with --adapter off."
        )
