"""What a run is begun or gone on with: the request, the options that it freezes, and the plan for them.

The options are written into the run folder by the first ``learn`` on it and must not change, since resuming to the same
bits depends on them. The two learning rates may, between tasks: the journal says for each step at which rate it was
applied, so that replaying stays exact, and it is the way on after a task that diverged.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.options import Options, PresetName, changed, differences, make_options
from edge_zofc.device import memory_plan
from edge_zofc.device.memory_items import Work
from edge_zofc.device.memory_plan import Fixed, MemoryPlan
from edge_zofc.device.process_cost import measure_base
from edge_zofc.device.profiles import AUTO, DeviceProfile, format_bytes, is_profile_file
from edge_zofc.device.system import board
from edge_zofc.engine.progress import tasks_of
from edge_zofc.engine.trainer import NO_GRADIENT, Evaluate
from edge_zofc.errors import DoesNotFitError, InputError, shown
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.manifest import MIN_FIDELITY, BundleSizes
from edge_zofc.storage.run_folder import RunFolder
from edge_zofc.storage.settings import Settings, folder_place

log = logging.getLogger("edge_zofc")

SPARE_CLASSES = 20
"""Classes that a plan makes room for beyond those of the stream and the run: each ``learn`` plans anew."""
UNKNOWN_CLASSES = 100
"""Classes that a plan makes room for where no stream is named."""

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


@dataclass(frozen=True)
class Device:
    """Where a plan is made for: a profile, and the budget and threads that replace its own where given."""

    profile: DeviceProfile
    budget_bytes: int | None = None
    threads: int | None = None

    @property
    def learning_budget_bytes(self) -> int:
        """What learning may take."""
        return self.budget_bytes or self.profile.learning_budget_bytes

    @property
    def own_threads(self) -> int:
        """The profile's threads, at most as many as can be kept busy here."""
        return min(self.profile.threads, board().usable_cpus)


def make_plan(
    sizes: BundleSizes, options: Options, device: Device, classes: int | None = None, fixed: Fixed | None = None
) -> MemoryPlan:
    """The memory plan for a bundle of ``sizes`` on a device; ``classes`` of stream and run together, None: not known.

    Raises DoesNotFitError with the shortfall and what would fit.
    """
    return memory_plan.plan(_work(sizes, options, device, classes), device.learning_budget_bytes, fixed or Fixed())


def _work(sizes: BundleSizes, options: Options, device: Device, classes: int | None) -> Work:
    room = UNKNOWN_CLASSES if classes is None else classes + SPARE_CLASSES
    threads = device.threads or device.own_threads
    base = measure_base(with_torch=options.head == "cosine")
    return Work(sizes, options, base, room, threads, device.profile.arena_bytes)


@dataclass(frozen=True)
class Rival:
    """A run by one estimator: its options, the plan for the budget (None: it does not fit, as ``why_not`` says), and
    the peak of its thriftiest placement.
    """

    options: Options
    plan: MemoryPlan | None
    why_not: str
    least_bytes: int


def rivals(
    sizes: BundleSizes,
    preset: PresetName,
    changes: dict[str, Any],
    device: Device,
    classes: int | None = None,
    fixed: Fixed | None = None,
) -> list[Rival]:
    """The estimators that a request leaves to choose from, the most wanted first.

    Raises InputError where exact gradients are asked for and the bundle has no graph for them.
    """
    asked = make_options(preset, changes)
    if asked.estimator == "exact" and asked.moves and sizes.gradient is None:
        raise InputError(NO_GRADIENT)
    names = [asked.estimator]
    if asked.estimator == "auto":
        names = ["exact", "spsa"] if asked.moves and sizes.gradient is not None else ["spsa"]
    found = []
    for name in names:
        options = make_options(preset, {**changes, "estimator": name})
        least = memory_plan.peak_range(_work(sizes, options, device, classes))[0]
        try:
            found.append(Rival(options, make_plan(sizes, options, device, classes, fixed), "", least))
        except DoesNotFitError as error:
            found.append(Rival(options, None, str(error), least))
    return found


def choose(found: Sequence[Rival]) -> tuple[Options, MemoryPlan, str]:
    """Options and plan of the first of ``rivals`` that fits, and why it was chosen.

    Raises DoesNotFitError, of the thriftiest, if none does.
    """
    first = found[0]
    for rival in found:
        if rival.plan is not None:
            return rival.options, rival.plan, _why(first, rival)
    raise DoesNotFitError(found[-1].why_not)


def _why(first: Rival, chosen: Rival) -> str:
    if chosen is not first:
        return f"The adapter learns by forward passes alone. By exact gradients: {first.why_not}"
    return {"exact": "The adapter learns by exact gradients.", "spsa": "The adapter learns by forward passes alone."}[
        chosen.options.estimator
    ]


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
    told = differences(settings.options, request.preset, request.changes)
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
