"""``edge-zofc bench memory``: what learning takes, first order beside it; limits; how good the plan's prediction is.

    (no option)       every arm in its own process: peak memory, seconds a step
    --limits          the lowest cgroup limit for real `learn` processes, or one limit with --limit
    --plan-accuracy   predicted against measured peak of real `learn` processes
    --flat            the peak of real `learn` processes over batch size, queries, tasks, classes and pictures
    --against-predict the peak of `learn` over that of `predict` on the same run and pictures

What may surprise: the arms run one after the other, so only memory can be compared to the last digit; seconds are
those of a machine at that moment. ``bench speed`` measures them in turn.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.costs import tables
from edge_zofc.benchmarks.costs.arms import REFERENCE, Arm, Child, memory_arms
from edge_zofc.benchmarks.costs.setup import (
    MIB,
    Setup,
    add_setup_arguments,
    describe,
    machine_state,
    make_setup,
    write_bundles,
)
from edge_zofc.device.profiles import parse_bytes
from edge_zofc.errors import DoesNotFitError, InputError

PRECISIONS = ("fp32", "w8", "w4")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench memory``."""
    add_setup_arguments(parser)
    parser.add_argument("--precision", metavar="LIST", default="fp32", help="fp32,w8,w4 (default: fp32)")
    parser.add_argument("--steps", metavar="N", type=int, default=2, help="steps an arm (default: 2)")
    parser.add_argument("--arms", metavar="LIST", help="names of arms (default: all)")
    parser.add_argument("--limits", action="store_true", help="lowest cgroup limits of learn; needs --bundle")
    parser.add_argument(
        "--limit", metavar="SIZE", help="with --limits: try this one alone, as limit and as budget"
    )
    parser.add_argument("--heads", metavar="LIST", default="torch,numpy", help="with --limits")
    parser.add_argument("--plan-accuracy", action="store_true", help="predicted against measured peak")
    parser.add_argument("--flat", action="store_true", help="the peak over batch, queries, tasks, pictures")
    parser.add_argument("--against-predict", action="store_true", help="peak of learn over peak of predict")
    parser.add_argument(
        "--bundle", metavar="FOLDER", type=Path, action="append", default=[], help="may be repeated"
    )


def main(options: argparse.Namespace) -> int:
    """Measure, print, and write below ``--out``."""
    with tempfile.TemporaryDirectory(prefix="edge-zofc-bench-") as folder:
        if options.limits:
            data = _limits(options, Path(folder))
        elif options.plan_accuracy:
            data = _plan_accuracy(options, Path(folder))
        elif options.flat:
            data = _flat(options, Path(folder))
        elif options.against_predict:
            data = _against_predict(options, Path(folder))
        else:
            data = _arms(options, make_setup(options, Path(folder)))
    tables.show(data, options.out, options.json)
    return 0


def _arms(options: argparse.Namespace, setup: Setup) -> dict[str, Any]:
    precisions = chosen(options.precision, PRECISIONS, "precision")
    arms = memory_arms(precisions, setup.queries)
    if options.arms:
        names = chosen(options.arms, [arm.name for arm in arms], "arms")
        arms = [arm for arm in arms if arm.name in names]
    machine = machine_state()
    write_bundles(setup, {(arm.precision, "early") for arm in arms})
    rows = []
    for arm in arms:
        tell(f"{arm.title} ...")
        rows.append(_measured(setup, arm, options.steps))
        tell(f"    {rows[-1].get('peak_rss_mib', rows[-1]['failed'])} MiB")
    reference = next((row["peak_rss_mib"] for row in rows if row["arm"] == REFERENCE), None)
    for row in rows:
        row["ratio"] = None if reference is None or row["failed"] else row["peak_rss_mib"] / reference
    return {
        "benchmark": "memory",
        "caption": describe(setup, machine),
        "machine": machine,
        "machine_after": machine_state(),
        "setup": {**vars(setup), "folder": None, "steps": options.steps},
        "rows": rows,
    }


def _measured(setup: Setup, arm: Arm, steps: int) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": arm.name, "title": arm.title, "precision": arm.precision, "failed": None}
    try:
        with Child(setup, arm) as child:
            answers = [child.ask("step") for _ in range(steps)]
            memory = child.ask("memory")
    except DoesNotFitError as error:
        return {**row, "failed": str(error)}
    base, built, peak = memory["base"], memory["built"], memory["peak"]
    return {
        **row,
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


def _limits(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from edge_zofc.benchmarks.costs.limits import measure_limits, measure_one_limit

    if not options.bundle:
        raise InputError("--limits needs --bundle FOLDER, a bundle of edge-zofc export.")
    heads: Any = chosen(options.heads, ("torch", "numpy"), "heads")
    machine, rows = machine_state(), []
    for index, bundle in enumerate(options.bundle):
        place, asked = folder / str(index), (options.batch_size, options.queries)
        if options.limit:
            limit = parse_bytes(options.limit)
            rows += [measure_one_limit(bundle, limit, head, *asked, place / head) for head in heads]
            continue
        rows += [measure_limits(bundle, head, *asked, place / head, tell) for head in heads]
    return _data("memory-limits", rows, machine, options)


def _plan_accuracy(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from edge_zofc.benchmarks.costs.plan import measure_plans

    if not options.bundle:
        raise InputError("--plan-accuracy needs --bundle FOLDER, a bundle of edge-zofc export.")
    machine = machine_state()
    return _data("plan-accuracy", measure_plans(options.bundle, folder, tell), machine, options)


def _flat(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from edge_zofc.benchmarks.costs.flat import measure_flatness

    if not options.bundle:
        raise InputError("--flat needs --bundle FOLDER, a bundle of edge-zofc export.")
    machine = machine_state()
    return _data("memory-flat", measure_flatness(options.bundle, folder, tell), machine, options)


def _against_predict(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from edge_zofc.benchmarks.costs.predict import measure_against_predict

    if not options.bundle:
        raise InputError("--against-predict needs --bundle FOLDER, a bundle of edge-zofc export.")
    machine = machine_state()
    rows = measure_against_predict(options.bundle, options.batch_size, options.queries, folder, tell)
    return _data("memory-against-predict", rows, machine, options)


def _data(
    name: str, rows: list[dict[str, Any]], machine: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    load = machine["load_average"]
    return {
        "benchmark": name,
        "caption": (
            f"batch {options.batch_size}, Q {options.queries}; {machine['cpu_count']} x {machine['processor']}, "
            f"torch {machine['torch']}, onnxruntime {machine['onnxruntime']}, {machine['time'][:10]}"
            + (f", load {load[0]:.1f}" if load else "")
        ),
        "machine": machine,
        "rows": rows,
    }


def chosen(text: str, known: Sequence[str], name: str) -> list[str]:
    """The parts of a comma-separated list. Raises InputError for one that is not in ``known``, or none."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in found if part not in known]
    if wrong or not found:
        raise InputError(f"--{name} is '{text}'; choose from {', '.join(known)}.")
    return found


def _mib(count: int | None) -> float | None:
    return None if count is None else round(count / MIB, 1)


def tell(text: str) -> None:
    """A line on stderr: stdout holds the answer alone."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201
