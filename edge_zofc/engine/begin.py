"""A run that begins without a stream: what a person shows it is its first lesson."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_zofc.algorithm.options import PresetName
from edge_zofc.device.profiles import load_profile, parse_bytes
from edge_zofc.engine.setup import LearnRequest, new_settings
from edge_zofc.errors import InputError
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.run_folder import RunFolder
from edge_zofc.storage.settings import Settings

CLASSES = 20
"""What the first plan reckons with; ``learn`` plans again."""


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
    request = LearnRequest(
        bundle.folder, Path(), run.path, profile, None if memory_budget is None else parse_bytes(memory_budget),
        preset, changes,
    )  # fmt: skip
    with run.locked():
        settings = new_settings(request, bundle, load_profile(profile), CLASSES)[0]
        run.write_settings(settings)
    return settings
