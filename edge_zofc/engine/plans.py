"""The memory plan of a run on a device, and which estimator of the adapter's gradient it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_zofc.algorithm.options import OF_SPSA, Options, PresetName, make_options
from edge_zofc.device import memory_plan
from edge_zofc.device.memory_items import Work
from edge_zofc.device.memory_plan import Fixed, MemoryPlan
from edge_zofc.device.process_cost import measure_base
from edge_zofc.device.profiles import DeviceProfile
from edge_zofc.device.system import board
from edge_zofc.engine.trainer import NO_GRADIENT
from edge_zofc.errors import DoesNotFitError, InputError
from edge_zofc.storage.manifest import BundleSizes

SPARE_CLASSES = 20
"""Classes that a plan makes room for beyond those of the stream and the run: each ``learn`` plans anew."""
UNKNOWN_CLASSES = 100
"""Classes that a plan makes room for where no stream is named."""
_NOT_KNOWN_YET = "What exact gradients take is measured by an export; write a bundle and plan with --bundle."


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
    def room_bytes(self) -> int:
        """What all processes of a device may take together: the budget, else what the profile leaves them."""
        kept = self.profile.accelerator_reserve_mib if self.profile.accelerator_shares_ram else 0
        left_mib = self.profile.ram_mib - self.profile.system_reserve_mib - kept
        return self.budget_bytes or left_mib << 20

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
    """A run by one estimator: what it asks of the machine, and the plan for the budget (None: it does not fit, as
    ``why_not`` says). ``alone``: why there is no other one to choose, as a clause.
    """

    work: Work
    plan: MemoryPlan | None
    why_not: str = ""
    alone: str = ""

    @property
    def options(self) -> Options:
        """Those of the run."""
        return self.work.options

    @property
    def least_bytes(self) -> int:
        """The peak of its thriftiest placement; every placement is planned for it, which ``learn`` need not do."""
        return memory_plan.peak_range(self.work)[0]


def rivals(
    sizes: BundleSizes,
    preset: PresetName,
    changes: dict[str, Any],
    device: Device,
    classes: int | None = None,
    fixed: Fixed | None = None,
) -> list[Rival]:
    """The estimators that a request leaves to choose from, the most wanted first.

    What only forward passes need (``OF_SPSA``) leaves no choice. Raises InputError where exact gradients are asked for
    and the bundle has no graph for them, or where such an option is.
    """
    asked = make_options(preset, changes)
    of_spsa = sorted(OF_SPSA & changes.keys())
    if asked.estimator == "exact" and of_spsa:
        name = of_spsa[0]
        raise InputError(
            f"{name.replace('_', '-')} is {changes[name]!r}, which belongs to --estimator spsa; "
            "leave one of the two out."
        )
    if asked.estimator == "exact" and asked.moves and sizes.gradient is None:
        raise InputError(NO_GRADIENT if sizes.is_exported else _NOT_KNOWN_YET)
    names, alone = [asked.estimator], ""
    if asked.estimator == "auto":
        alone = _why_alone(asked, sizes, of_spsa)
        names = ["spsa"] if alone or not asked.moves else ["exact", "spsa"]
    found = []
    for name in names:
        work = _work(sizes, make_options(preset, {**changes, "estimator": name}), device, classes)
        try:
            plan = memory_plan.plan(work, device.learning_budget_bytes, fixed or Fixed())
            found.append(Rival(work, plan, alone=alone))
        except DoesNotFitError as error:
            found.append(Rival(work, None, str(error)))
    return found


def choose(found: Sequence[Rival]) -> tuple[Options, MemoryPlan, str]:
    """Options and plan of the first of ``rivals`` that fits, and a sentence on how steps are taken, and why so.

    Raises DoesNotFitError, of the thriftiest, if none does.
    """
    first = found[0]
    for rival in found:
        if rival.plan is not None:
            return rival.options, rival.plan, _why(first, rival)
    raise DoesNotFitError(found[-1].why_not)


def _why(first: Rival, chosen: Rival) -> str:
    """With "if": where the first task's classes are few or far apart, which is seen later, no step is taken."""
    how = {"exact": "exact gradients", "spsa": "forward passes alone"}[chosen.options.estimator]
    told = f"If the adapter moves, it learns by {how}"
    if chosen is not first:
        return f"{told}. By exact gradients: {first.why_not}"
    return f"{told}{f': {chosen.alone}' if chosen.alone else ''}."


def _why_alone(asked: Options, sizes: BundleSizes, of_spsa: Sequence[str]) -> str:
    """Why "auto" means forward passes, whatever the budget; "" where it may mean exact gradients."""
    if sizes.gradient is None:
        known = "the bundle has no graph for exact gradients that this version reads"
        return known if sizes.is_exported else "what exact gradients take is known once there is a bundle"
    if of_spsa:
        return f"{of_spsa[0].replace('_', '-')} was given, which belongs to them"
    return "the optimizer conserve compares them" if asked.optimizer == "conserve" else ""
