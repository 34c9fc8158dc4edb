"""A run that begins without a stream: what a person shows it is its first lesson."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_zofc.algorithm.options import PRESETS, PresetName, declared
from edge_zofc.device.memory_plan import MemoryPlan
from edge_zofc.device.process_cost import measure_base
from edge_zofc.device.profiles import load_profile, parse_bytes
from edge_zofc.device.teaching_plan import one_by_one, teaching_plan
from edge_zofc.engine.plans import UNKNOWN_CLASSES
from edge_zofc.engine.setup import LearnRequest, new_settings
from edge_zofc.errors import InputError, quoted
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.manifest import BundleSizes
from edge_zofc.storage.run_folder import RunFolder
from edge_zofc.storage.settings import Placement, Settings

CLASSES = 20
"""What the first plan reckons with; ``learn`` plans again."""


def plan_of_teaching(sizes: BundleSizes, kept: Placement, threads: int, page: bool = False) -> MemoryPlan:
    """What a process takes that answers and is shown pictures, with room for UNKNOWN_CLASSES classes.

    ``kept``: the placement of the run.
    """
    base = measure_base(with_torch=False)
    return teaching_plan(sizes, one_by_one(kept, threads), base, UNKNOWN_CLASSES, page)


def begin_run(
    run: RunFolder, bundle: Bundle, profile: str, memory_budget: str | None, options: dict[str, Any]
) -> Settings:
    """Write the settings of a new run, the same that ``learn`` with these options would write.

    ``options``: those of ``learn``, and ``preset``. Raises InputError if a run is there, DoesNotFitError where learning
    does not fit.
    """
    if run.is_run():
        raise InputError(f"There is a run in {run.path} already; open that, or choose another folder.")
    changes = dict(options)
    preset: PresetName | None = changes.pop("preset", None)
    known = {name for name, option in declared().items() if option.help is not None}
    for name in changes:
        if name not in known:
            raise InputError(f"There is no option {quoted(name)}; those of a run are {', '.join(sorted(known))}.")
    if preset is not None and preset not in PRESETS:
        raise InputError(f"There is no preset {quoted(preset)}; choose one of {', '.join(PRESETS)}.")
    request = LearnRequest(
        bundle.folder, Path(), run.path, profile, None if memory_budget is None else parse_bytes(memory_budget),
        preset, changes,
    )  # fmt: skip
    with run.locked():
        settings = new_settings(request, bundle, load_profile(profile), CLASSES)[0]
        run.write_settings(settings)
    return settings
