"""``edge-zofc bench speed``: seconds a step of ZO-FC against first order and SPSA in torch, measured in turn.

Every variant is a process that stays alive. A round asks each for one step, one after the other, and the medians over
the rounds are compared. So what else the machine does is shared by all variants.

On a busy machine the threads of a library wait for each other, and medians say little. Then compare the fastest rounds,
or measure with ``--threads 1``. Torch runs a batch at once or in micro-batches. The ratios are to the faster of the
two. "In place" has neither packed weights nor the arena, as under the thriftiest plan. The other variants of ZO-FC
have both, as under a plan with room.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.costs import tables
from edge_zofc.benchmarks.costs.child import start
from edge_zofc.benchmarks.costs.machine import machine_line, machine_state
from edge_zofc.benchmarks.costs.setup import (
    PRECISIONS,
    Setup,
    add_setup_arguments,
    caption,
    chosen,
    make_setup,
    tell,
    write_bundles,
)
from edge_zofc.benchmarks.costs.variants import BLOCKS, FORMS, Variant, speed_variants
from edge_zofc.benchmarks.process import Child
from edge_zofc.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench speed``."""
    add_setup_arguments(parser)
    parser.add_argument("--precision", metavar="LIST", default="fp32,w8", help="(default: fp32,w8)")
    parser.add_argument("--blocks", metavar="LIST", default="early,late", help="(default: early,late)")
    parser.add_argument("--forms", metavar="LIST", default="one-sided,two-sided", help="(default: one-sided,two-sided)")
    parser.add_argument("--rounds", metavar="N", type=int, default=5, help="after one that is not counted (default: 5)")
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
        else:
            variants = speed_variants(precisions, blocks, forms, options.queries, options.fast_micro_batch)
            data = _compared(setup, variants, options.rounds, machine)
    tables.show(data, options.out, options.json)
    return 0


def _compared(setup: Setup, variants: list[Variant], rounds: int, machine: dict[str, Any]) -> dict[str, Any]:
    write_bundles(setup, {(each.precision, each.blocks) for each in variants if not each.in_torch})
    with ExitStack() as stack:
        children = {each.name: stack.enter_context(start(setup, each, sampled=False)) for each in variants}
        found = measure_rounds(children, rounds)
    return {
        "benchmark": "speed",
        "caption": f"{caption(setup)}; {machine_line(machine)}; medians of {rounds} interleaved rounds",
        "machine": machine,
        "machine_after": machine_state(),
        "setup": {**vars(setup), "folder": None, "rounds": rounds},
        "rows": summarise(variants, found),
    }


def _profiled(setup: Setup, cases: list[tuple[str, str]], machine: dict[str, Any]) -> dict[str, Any]:
    from edge_zofc.benchmarks.costs.profile import profile

    write_bundles(setup, set(cases))
    return {
        "benchmark": "speed-profile",
        "caption": f"{caption(setup)}; {machine_line(machine)}",
        "machine": machine,
        "rows": profile(setup, cases),
    }


def measure_rounds(children: dict[str, Child], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Answers of each child by name, round after round. The first round warms up and is left out."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in children}
    for number in range(rounds + 1):
        tell(f"round {number} of {rounds}")
        for name, child in children.items():
            answer = child.ask("step")
            if number:
                found[name].append(answer)
    return found


def summarise(variants: list[Variant], rounds: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each variant: its median, and its ratios to the faster variant of torch of its kind."""
    medians = {name: statistics.median(_seconds(found)) for name, found in rounds.items()}
    fastest = {name: min(_seconds(found)) for name, found in rounds.items()}
    rows = []
    for variant in variants:
        found = rounds[variant.name]
        above = [a["seconds"] / a["forward_seconds"] - 1 for a in found if a["forward_seconds"]]
        row = {
            "arm": variant.name,
            "title": variant.title,
            "seconds_per_step": medians[variant.name],
            "seconds": _seconds(found),
            "spread": f"{fastest[variant.name]:.3f} to {max(_seconds(found)):.3f}",
            "above_forward": statistics.median(above) if above else None,
        }
        for end, times in (("", medians), ("_fastest", fastest)):
            own = times[variant.name]
            first = _best(variants, times, "first-order", variant)
            spsa = _best(variants, times, "spsa", variant) if variant.kind == "zo-fc" else None
            row[f"to_first_order{end}"] = None if first is None else own / first
            row[f"spsa_to_this{end}"] = None if spsa is None else spsa / own
        rows.append(row)
    return rows


def _best(variants: list[Variant], times: dict[str, float], kind: str, like: Variant) -> float | None:
    """The faster variant of ``kind`` with the adapters on the blocks of ``like``; of SPSA in its form too."""
    alike = (each for each in variants if each.kind == kind and each.blocks == like.blocks)
    same = (each for each in alike if kind != "spsa" or each.form == like.form)
    return min((times[each.name] for each in same), default=None)


def _seconds(found: list[dict[str, Any]]) -> list[float]:
    return [float(answer["seconds"]) for answer in found]
