"""What the peak of learning does not depend on: batch size, queries, tasks, classes a task, pictures a task.

Real ``edge-zofc learn`` processes, alike but for the one number that is varied; b and K are fixed, as they are what
memory does depend on.

What may surprise: the first row of each series is measured anew for each, with the same settings as another series'
row: the difference between such rows is what a repetition differs by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.costs.learn import learn, write_stream
from edge_zofc.benchmarks.costs.limits import least_budget_bytes
from edge_zofc.storage.bundle import read_bundle


@dataclass(frozen=True)
class Case:
    """One run: ``batch`` B, ``queries`` Q (one-sided), ``tasks`` of ``classes`` each, ``pictures`` a task."""

    batch: int = 8
    queries: int = 4
    tasks: int = 2
    classes: int = 2
    pictures: int = 16


SERIES: dict[str, tuple[int, ...]] = {
    "batch": (8, 32, 128),
    "queries": (1, 4, 32),
    "tasks": (2, 8, 20),
    "classes": (2, 8, 16),
    "pictures": (16, 64, 256),
}
"""Field of Case -> the values that it takes."""
WAYS: dict[str, tuple[int, int]] = {"in place": (1, 1), "fast": (8, 2)}
"""Name -> (b, K). K 2 is what a single query can use."""


def cases(field: str) -> list[Case]:
    """The runs of one series; a batch is always full."""
    return [
        replace(found, pictures=max(found.pictures, found.batch))
        for found in (replace(Case(), **{field: value}) for value in SERIES[field])
    ]


def measure_flatness(bundles: list[Path], folder: Path, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row for each bundle, way and case; ``growth`` is against the first case of its series."""
    rows: list[dict[str, Any]] = []
    for index, bundle in enumerate(bundles):
        side = read_bundle(bundle).manifest.image.size + 32
        for way, (micro_batch, parallel) in WAYS.items():
            for field in SERIES:
                first: float | None = None
                for case in cases(field):
                    stream = folder / f"{index}-{case.tasks}-{case.classes}-{case.pictures}"
                    if not stream.exists():
                        write_stream(
                            stream, case.pictures, side, case.tasks, case.classes, tested=case.classes
                        )
                    row = _measured(bundle, stream, case, micro_batch, parallel)
                    peak = row["peak_rss_mib"]
                    first = peak if first is None else first
                    growth = None if peak is None or first is None else peak / first - 1
                    row |= {"way": way, "varied": field, "value": getattr(case, field), "growth": growth}
                    rows.append(row)
                    tell(f"{bundle.name}, {way}, {field} {row['value']}: {peak or row['ending']} MiB")
    return rows


def _measured(bundle: Path, stream: Path, case: Case, micro_batch: int, parallel: int) -> dict[str, Any]:
    shape = {"batch_size": case.batch, "queries": case.queries}
    # The thriftiest plan turns the arena off; with the fast way there is room for all that is wanted.
    in_place = micro_batch == 1
    budget = least_budget_bytes(bundle, "numpy", {**shape, "head": "lda"}) if in_place else 1 << 40
    options = ["--batch-size", str(case.batch), "--queries", str(case.queries)]
    options += ["--micro-batch", str(micro_batch), "--parallel-queries", str(parallel)]
    found = learn(bundle, stream, budget, options, steps=None)
    keys = ("peak_rss_mib", "peak_anonymous_mib", "peak_file_mib", "predicted_peak_mib", "steps")
    return {
        "bundle": bundle.name,
        "ending": found.ending,
        "seconds": round(found.seconds, 1),
        **{key: found.result.get(key) if found.completed else None for key in keys},
    }
