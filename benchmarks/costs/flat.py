"""What the peak of learning does not depend on: batch size, queries, tasks, classes a task, pictures a task.

Each row is a real ``edge-zofc learn`` process. Within a series one number is varied. b and K are fixed, because memory
does depend on them. The first row of each series has the same settings and is measured again for each series, so the
difference between those rows is the noise of a repetition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.costs.learn import LearnCommand, learn, write_stream
from edge_zofc.benchmarks.costs.limits import least_budget_bytes
from edge_zofc.benchmarks.costs.setup import PLENTY_BYTES
from edge_zofc.storage.bundle import read_bundle


@dataclass(frozen=True)
class FlatCase:
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
"""Field of FlatCase -> the values that it takes."""
WAYS: dict[str, tuple[int, int]] = {"in place": (1, 1), "fast": (8, 2)}
"""Name -> (b, K). A single query can use a K of 2."""


def cases(field: str) -> list[FlatCase]:
    """The runs of one series. A batch is always full."""
    return [
        replace(found, pictures=max(found.pictures, found.batch))
        for found in (replace(FlatCase(), **{field: value}) for value in SERIES[field])
    ]


def measure_flatness(bundles: list[Path], folder: Path, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row for each bundle, way and case."""
    rows: list[dict[str, Any]] = []
    for index, bundle in enumerate(bundles):
        for way in WAYS:
            for field in SERIES:
                rows += _series(bundle, folder / str(index), way, field, tell)
    return rows


def _series(bundle: Path, folder: Path, way: str, field: str, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """The rows of one series; ``growth`` is against its first case."""
    side = read_bundle(bundle).manifest.image.size + 32
    rows: list[dict[str, Any]] = []
    for case in cases(field):
        stream = folder / f"{case.tasks}-{case.classes}-{case.pictures}"
        if not stream.exists():
            write_stream(stream, case.pictures, side, case.tasks, case.classes, tested=case.classes)
        row = _measured(bundle, stream, case, *WAYS[way])
        peak = row["peak_rss_mib"]
        first = rows[0]["peak_rss_mib"] if rows else peak
        growth = None if peak is None or first is None else peak / first - 1
        rows.append(row | {"way": way, "varied": field, "value": getattr(case, field), "growth": growth})
        tell(f"{bundle.name}, {way}, {field} {getattr(case, field)}: {peak or row['ending']} MiB")
    return rows


def _measured(bundle: Path, stream: Path, case: FlatCase, micro_batch: int, parallel: int) -> dict[str, Any]:
    shape = {"batch_size": case.batch, "queries": case.queries, "head": "lda"}
    # The thriftiest plan turns the arena off. The fast way has room for all that is wanted.
    budget = least_budget_bytes(bundle, "numpy", shape) if micro_batch == 1 else PLENTY_BYTES
    options = ["--batch-size", str(case.batch), "--queries", str(case.queries)]
    options += ["--micro-batch", str(micro_batch), "--parallel-queries", str(parallel)]
    found = learn(LearnCommand(bundle, stream, budget, options, steps=None))
    keys = ("peak_rss_mib", "peak_anonymous_mib", "peak_file_mib", "predicted_peak_mib", "steps")
    return {
        "bundle": bundle.name,
        "ending": found.ending,
        "seconds": round(found.seconds, 1),
        **{key: found.result.get(key) if found.completed else None for key in keys},
    }
