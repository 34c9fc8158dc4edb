"""``edge-zofc bench memory``: what learning takes beside first order; limits; how good the plan's prediction is.

    (no option)       every variant in its own process: peak memory, seconds a step
    --limits          the lowest cgroup limit for real `learn` processes, or one limit with --limit
    --plan-accuracy   predicted against measured peak of real `learn` processes
    --flat            the peak of real `learn` processes over batch size, queries, tasks, classes and pictures
    --against-predict the peak of `learn` over that of `predict` on the same run and pictures

The variants run one after the other. Their memory can be compared exactly, their seconds only roughly: these depend on
what else the machine does. ``bench speed`` measures seconds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.costs import tables
from edge_zofc.benchmarks.costs.child import start
from edge_zofc.benchmarks.costs.machine import machine_line, machine_state
from edge_zofc.benchmarks.costs.setup import (
    MIB,
    PRECISIONS,
    Setup,
    add_setup_arguments,
    caption,
    chosen,
    make_setup,
    tell,
    write_bundles,
)
from edge_zofc.benchmarks.costs.variants import REFERENCE, Variant, memory_variants
from edge_zofc.device.profiles import parse_bytes
from edge_zofc.errors import DoesNotFitError, InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench memory``."""
    add_setup_arguments(parser)
    parser.add_argument("--precision", metavar="LIST", default="fp32", help="fp32,w8,w4 (default: fp32)")
    parser.add_argument("--steps", metavar="N", type=int, default=2, help="steps a variant (default: 2)")
    parser.add_argument("--arms", metavar="LIST", help="names of variants (default: all)")
    parser.add_argument("--limits", action="store_true", help="lowest cgroup limits of learn; needs --bundle")
    parser.add_argument("--limit", metavar="SIZE", help="with --limits: try this one alone, as limit and as budget")
    parser.add_argument("--heads", metavar="LIST", default="torch,numpy", help="with --limits (default: torch,numpy)")
    parser.add_argument("--plan-accuracy", action="store_true", help="predicted against measured peak; needs --bundle")
    parser.add_argument(
        "--flat", action="store_true", help="the peak over batch, queries, tasks, pictures; needs --bundle"
    )
    parser.add_argument(
        "--against-predict", action="store_true", help="peak of learn over peak of predict; needs --bundle"
    )
    parser.add_argument("--bundle", metavar="FOLDER", type=Path, action="append", default=[], help="may be repeated")


def main(options: argparse.Namespace) -> int:
    """Measure, print, and write below ``--out``. Raises InputError."""
    asked = next((name for name in MEASUREMENTS if getattr(options, name)), None)
    with tempfile.TemporaryDirectory(prefix="edge-zofc-bench-") as folder:
        if asked is None:
            data = _all_variants(options, make_setup(options, Path(folder)))
        else:
            data = _with_bundles(options, Path(folder), asked)
    tables.show(data, options.out, options.json)
    return 0


def _all_variants(options: argparse.Namespace, setup: Setup) -> dict[str, Any]:
    precisions = chosen(options.precision, PRECISIONS, "precision")
    variants = memory_variants(precisions, setup.queries)
    if options.arms:
        names = chosen(options.arms, [variant.name for variant in variants], "arms")
        variants = [variant for variant in variants if variant.name in names]
    machine = machine_state()
    write_bundles(setup, {(variant.precision, "early") for variant in variants})
    rows = []
    for variant in variants:
        tell(f"{variant.title} ...")
        rows.append(_measured(setup, variant, options.steps))
        tell(f"    {rows[-1].get('peak_rss_mib', rows[-1]['failed'])} MiB")
    reference = next((row.get("peak_rss_mib") for row in rows if row["arm"] == REFERENCE), None)
    for row in rows:
        row["ratio"] = None if reference is None or row["failed"] else row["peak_rss_mib"] / reference
    return {
        "benchmark": "memory",
        "caption": f"{caption(setup)}; {machine_line(machine)}",
        "machine": machine,
        "machine_after": machine_state(),
        "setup": {**vars(setup), "folder": None, "steps": options.steps},
        "rows": rows,
    }


def _measured(setup: Setup, variant: Variant, steps: int) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": variant.name, "title": variant.title, "precision": variant.precision}
    try:
        with start(setup, variant) as child:
            answers = [child.ask("step") for _ in range(steps)]
            memory = child.ask("memory")
    except DoesNotFitError as error:
        return {**row, "failed": str(error)}
    base, built, peak = memory["base"], memory["built"], memory["peak"]
    return {
        **row,
        "failed": None,
        "peak_rss_mib": _mib(peak["rss_bytes"]),
        "peak_anonymous_mib": _mib(peak["anonymous_bytes"]),
        "peak_file_mib": _mib(peak["file_bytes"]),
        "base_mib": _mib(base["rss_bytes"]),
        "model_mib": _mib(built["rss_bytes"] - base["rss_bytes"]),
        "increment_mib": _mib(peak["rss_bytes"] - base["rss_bytes"]),
        "seconds_per_step": min(answer["seconds"] for answer in answers),
        "seconds": [answer["seconds"] for answer in answers],
        "loss": answers[0]["loss"],
    }


def _mib(count: int | None) -> float | None:
    return None if count is None else round(count / MIB, 1)


def _with_bundles(options: argparse.Namespace, folder: Path, asked: str) -> dict[str, Any]:
    """The measurement ``asked`` on the bundles of ``--bundle``."""
    name, measure = MEASUREMENTS[asked]
    if not options.bundle:
        raise InputError(f"--{asked.replace('_', '-')} needs --bundle FOLDER, a bundle of edge-zofc export.")
    machine = machine_state()
    return {
        "benchmark": name,
        "caption": f"batch {options.batch_size}, Q {options.queries}; {machine_line(machine)}",
        "machine": machine,
        "rows": measure(options, folder),
    }


def _limits(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    from edge_zofc.benchmarks.costs.limits import LimitCase, measure_limits, measure_one_limit

    heads: Any = chosen(options.heads, ("torch", "numpy"), "heads")
    rows = []
    for index, bundle in enumerate(options.bundle):
        for head in heads:
            case = LimitCase(bundle, head, options.batch_size, options.queries, folder / str(index) / head)
            if options.limit:
                rows.append(measure_one_limit(case, parse_bytes(options.limit)))
            else:
                rows.append(measure_limits(case, tell))
    return rows


def _plan_accuracy(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    from edge_zofc.benchmarks.costs.plan import measure_plans

    return measure_plans(options.bundle, folder, tell)


def _flat(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    from edge_zofc.benchmarks.costs.flat import measure_flatness

    return measure_flatness(options.bundle, folder, tell)


def _against_predict(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    from edge_zofc.benchmarks.costs.predict import measure_against_predict

    return measure_against_predict(options.bundle, options.batch_size, options.queries, folder, tell)


MEASUREMENTS = {
    "limits": ("memory-limits", _limits),
    "plan_accuracy": ("plan-accuracy", _plan_accuracy),
    "flat": ("memory-flat", _flat),
    "against_predict": ("memory-against-predict", _against_predict),
}
"""Option -> name of its table, and what measures its rows."""
