"""What the plan says of an arm, in a process of its own: ``python -m edge_zofc.benchmarks.costs.estimator_plan ASKED``.

The process that starts the arms must not have onnxruntime mapped: a cgroup is not charged for pages that another
process holds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.options import make_options
from edge_zofc.benchmarks.costs.limits import least_budget_bytes
from edge_zofc.benchmarks.costs.setup import PLENTY_BYTES
from edge_zofc.device.process_cost import measure_base
from edge_zofc.device.profiles import load_profile
from edge_zofc.device.system import mib
from edge_zofc.engine.plans import Device, make_plan
from edge_zofc.storage.bundle import read_bundle


def planned(bundle: Path, changes: dict[str, Any], classes: int) -> dict[str, Any]:
    """The least budget in bytes for these options, threads of ``learn``, and MiB of a process with its imports.

    ``placements``: what the plan chooses under that budget ("thrifty") and under one that limits nothing ("fast").
    """
    least, profile = least_budget_bytes(bundle, "numpy", changes, classes), load_profile("auto")
    sizes, options = read_bundle(bundle).manifest.sizes, make_options("edge", changes)

    def placement(budget_bytes: int) -> dict[str, Any]:
        return make_plan(sizes, options, Device(profile, budget_bytes), classes).placement.model_dump()

    return {
        "least_budget_bytes": least,
        "placements": {"thrifty": placement(least), "fast": placement(PLENTY_BYTES)},
        "threads": Device(profile).own_threads,
        "base_mib": mib(measure_base(with_torch=False).process.resident_bytes),
    }


def main(arguments: Sequence[str]) -> None:
    """Print what the plan says, as JSON."""
    asked = json.loads(arguments[0])
    found = planned(Path(asked["bundle"]), asked["changes"], asked["classes"])
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
