"""``edge-zofc bench speed``: seconds a step of ZO-FC against first order and SPSA in torch, measured in turn.

Every arm is a process that stays alive; a round asks each for one step, one after the other, and the medians over
the rounds are compared. Whatever else the machine does in the meantime then strikes all arms alike.

What may surprise: two threads of either library wait for each other, spinning, so on a machine that is busy with other
work medians say little. The fastest rounds are compared too: under load, believe those, or measure with ``--threads
1``. Torch runs a batch at once or in micro-batches; the ratios are to the faster one of each. "In place" runs as under
the thriftiest plan, with neither packed weights nor the arena; the other arms of ZO-FC as under one with room.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from edge_zofc.benchmarks.costs import tables
from edge_zofc.benchmarks.costs.arms import Arm, Child
from edge_zofc.benchmarks.costs.memory import PRECISIONS, chosen, tell
from edge_zofc.benchmarks.costs.setup import (
    Setup,
    add_setup_arguments,
    describe,
    machine_state,
    make_setup,
    write_bundles,
)
from edge_zofc.errors import InputError

BLOCKS: tuple[Literal["early", "late"], ...] = ("early", "late")
FORMS: tuple[Literal["one-sided", "two-sided"], ...] = ("one-sided", "two-sided")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench speed``."""
    add_setup_arguments(parser)
    parser.add_argument("--precision", metavar="LIST", default="fp32,w8", help="(default: fp32,w8)")
    parser.add_argument("--blocks", metavar="LIST", default="early,late", help="(default: early,late)")
    parser.add_argument("--forms", metavar="LIST", default="one-sided,two-sided")
    parser.add_argument(
        "--rounds", metavar="N", type=int, default=5, help="after one that is not counted (default: 5)"
    )
    parser.add_argument("--fast-micro-batch", metavar="N", type=int, default=8, help="(default: 8)")
    parser.add_argument(
        "--profile", action="store_true", help="instead: the operators' shares by onnxruntime's profiler"
    )


def main(options: argparse.Namespace) -> int:
    """Measure, print, and write below ``--out``."""
    if options.rounds < 1:
        raise InputError(f"--rounds is {options.rounds}, it must be at least 1.")
    precisions = chosen(options.precision, PRECISIONS, "precision")
    blocks = chosen(options.blocks, BLOCKS, "blocks")
    forms = chosen(options.forms, FORMS, "forms")
    machine = machine_state()
    with tempfile.TemporaryDirectory(prefix="edge-zofc-bench-") as folder:
        setup = make_setup(options, Path(folder))
        if options.profile:
            data = _profiled(setup, [(p, b) for p in precisions for b in blocks], machine)
            tables.show(data, options.out, options.json)
            return 0
        arms = speed_arms(precisions, blocks, forms, options.queries, options.fast_micro_batch)
        write_bundles(setup, {(arm.precision, arm.blocks) for arm in arms if not arm.in_torch})
        with ExitStack() as stack:
            children = [stack.enter_context(Child(setup, arm, sampled=False)) for arm in arms]
            rounds = measure_rounds(children, options.rounds)
    data = {
        "benchmark": "speed",
        "caption": f"{describe(setup, machine)}; medians of {options.rounds} interleaved rounds",
        "machine": machine,
        "machine_after": machine_state(),
        "setup": {**vars(setup), "folder": None, "rounds": options.rounds},
        "rows": summarise(arms, rounds),
    }
    tables.show(data, options.out, options.json)
    return 0


def _profiled(setup: Setup, cases: list[tuple[str, str]], machine: dict[str, Any]) -> dict[str, Any]:
    from edge_zofc.benchmarks.costs.profile import profile

    write_bundles(setup, set(cases))
    return {
        "benchmark": "speed-profile",
        "caption": describe(setup, machine),
        "machine": machine,
        "rows": profile(setup, cases),
    }


def speed_arms(
    precisions: list[str], blocks: list[str], forms: list[str], queries: int, fast: int
) -> list[Arm]:
    """ZO-FC in every combination, in place and fast; torch's arms once for each place of the adapters."""
    arms: list[Arm] = []
    for where in BLOCKS:
        if where not in blocks:
            continue
        for size, how in ((0, "whole batch"), (fast, f"micro-batch {fast}")):
            end = f"{where}-{size}"
            title = f"first order in torch, {where} blocks, {how} (fp32)"
            arms.append(Arm(f"fo-{end}", title, "first-order", blocks=where, micro_batch=size))
            for form in FORMS:
                if form in forms:
                    title = f"SPSA in torch, {where} blocks, {form}, {how} (fp32)"
                    arms.append(
                        Arm(f"spsa-{end}-{form}", title, "spsa", blocks=where, form=form, micro_batch=size)
                    )
        arms += _zo_arms(where, precisions, forms, queries, fast)
    return arms


def _zo_arms(
    where: Literal["early", "late"], precisions: list[str], forms: list[str], queries: int, fast: int
) -> list[Arm]:
    arms = []
    for precision in precisions:
        for form in FORMS:
            if form not in forms:
                continue
            count = queries + 1 if form == "one-sided" else 2 * queries + 1
            for size, parallel, how in ((1, 1, "in place"), (fast, 1, f"b {fast}"), (fast, count, "fast")):
                arms.append(
                    Arm(
                        f"zo-{precision}-{where}-{form}-{size}-{parallel}",
                        f"ZO-FC {how}, {where} blocks, {form} ({precision})",
                        "zo-fc",
                        precision,
                        where,
                        form,
                        size,
                        parallel,
                        arena=size > 1,
                        prepacking=size > 1,
                    )
                )
    return arms


def measure_rounds(children: list[Child], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Answers of each arm, by name, round after round; the first round warms up and is left out."""
    found: dict[str, list[dict[str, Any]]] = {child.arm.name: [] for child in children}
    for number in range(rounds + 1):
        tell(f"round {number} of {rounds}")
        for child in children:
            answer = child.ask("step")
            if number:
                found[child.arm.name].append(answer)
    return found


def summarise(arms: list[Arm], rounds: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each arm: its median, ratios to the faster torch arm of its kind; of the fastest rounds too."""
    medians = {name: statistics.median(_seconds(found)) for name, found in rounds.items()}
    fastest = {name: min(_seconds(found)) for name, found in rounds.items()}

    def best(times: dict[str, float], kind: str, like: Arm) -> float | None:
        """The faster torch arm with the adapters on the same blocks, of the same form."""
        return min(
            (
                times[arm.name]
                for arm in arms
                if arm.kind == kind
                and arm.blocks == like.blocks
                and (kind != "spsa" or arm.form == like.form)
            ),
            default=None,
        )

    rows = []
    for arm in arms:
        found, median = rounds[arm.name], medians[arm.name]
        ours, quick = arm.kind == "zo-fc", fastest[arm.name]
        first, spsa = best(medians, "first-order", arm), best(medians, "spsa", arm)
        first_quick, spsa_quick = best(fastest, "first-order", arm), best(fastest, "spsa", arm)
        above = [a["seconds"] / a["forward_seconds"] - 1 for a in found if a["forward_seconds"]]
        rows.append(
            {
                "arm": arm.name,
                "title": arm.title,
                "seconds_per_step": median,
                "seconds": _seconds(found),
                "spread": f"{quick:.3f} to {max(_seconds(found)):.3f}",
                "above_forward": statistics.median(above) if above else None,
                "to_first_order": None if first is None else median / first,
                "spsa_to_this": spsa / median if spsa is not None and ours else None,
                "to_first_order_fastest": None if first_quick is None else quick / first_quick,
                "spsa_to_this_fastest": spsa_quick / quick if spsa_quick is not None and ours else None,
            }
        )
    return rows


def _seconds(found: list[dict[str, Any]]) -> list[float]:
    return [float(answer["seconds"]) for answer in found]
