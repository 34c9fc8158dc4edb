"""Predicted against measured: the plan's peak and that of the ``learn`` process which the plan was made for.

The measured number is the child's own VmHWM. The child imports what ``learn`` imports, and none of the packages of the
workstation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge_zofc.algorithm.heads import HeadBackend
from edge_zofc.algorithm.options import HeadKind
from edge_zofc.benchmarks.costs.learn import LearnCommand, learn, write_stream
from edge_zofc.benchmarks.costs.limits import least_budget_bytes
from edge_zofc.benchmarks.costs.setup import MIB, PLENTY_BYTES
from edge_zofc.storage.bundle import read_bundle

QUERIES = 4
LARGE_BYTES = 32 * MIB


@dataclass(frozen=True)
class PlanCase:
    """b pictures x K adapters a run; ``budget`` "plenty", or the least that fits with a head (arena off).

    ``backend`` computes the cosine head. The closed-form head "lda" is always computed by numpy.
    """

    micro_batch: int
    parallel: int
    form: str = "one-sided"
    budget: Literal["plenty", "least"] = "plenty"
    head: HeadKind = "cosine"
    backend: HeadBackend = "torch"


CASES = (
    PlanCase(1, 1, budget="least", backend="numpy"),
    PlanCase(1, 1, budget="least"),
    PlanCase(1, 1),
    PlanCase(16, 1),
    PlanCase(8, 5),
    PlanCase(16, 9, "two-sided"),
    PlanCase(1, 1, budget="least", head="lda", backend="numpy"),
    PlanCase(16, 5, head="lda", backend="numpy"),
)
LARGE_CASES = (
    PlanCase(1, 1, budget="least", backend="numpy"),
    PlanCase(1, 1),
    PlanCase(4, 9, "two-sided"),
    PlanCase(1, 1, budget="least", head="lda", backend="numpy"),
    PlanCase(2, 5, head="lda", backend="numpy"),
)
"""For bundles above 32 MiB, where a forward pass takes a tenth to a third of a second."""


def measure_plans(bundles: list[Path], folder: Path, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row for each bundle and case."""
    rows = []
    for index, bundle in enumerate(bundles):
        manifest = read_bundle(bundle).manifest
        is_large = sum(entry.bytes for entry in manifest.files.values()) > LARGE_BYTES
        cases = LARGE_CASES if is_large else CASES
        batch = max(case.micro_batch for case in cases)
        stream = write_stream(folder / str(index), batch, manifest.image.size + 32)
        for case in cases:
            row = _measured(bundle, stream, case, batch)
            tell(", ".join(f"{key} {value}" for key, value in row.items()))
            rows.append(row)
    return rows


def _measured(bundle: Path, stream: Path, case: PlanCase, batch: int) -> dict[str, Any]:
    changes = {"batch_size": batch, "queries": QUERIES, "query_form": case.form, "head": case.head}
    budget = PLENTY_BYTES if case.budget == "plenty" else least_budget_bytes(bundle, case.backend, changes)
    options = ["--micro-batch", str(case.micro_batch), "--parallel-queries", str(case.parallel)]
    options += ["--batch-size", str(batch), "--queries", str(QUERIES), "--query-form", case.form]
    found = learn(LearnCommand(bundle, stream, budget, [*options, "--head", case.head]))
    predicted, measured = found.result.get("predicted_peak_mib"), found.result.get("peak_rss_mib")
    error = None if not predicted or not measured else predicted / measured - 1
    return {
        "bundle": bundle.name,
        "micro_batch": case.micro_batch,
        "parallel_queries": case.parallel,
        "head": f"{case.head} ({found.result.get('head_backend', found.ending)})",
        "arena": "on" if case.budget == "plenty" else "off",
        "predicted_mib": predicted,
        "measured_mib": measured,
        "anonymous_mib": found.result.get("peak_anonymous_mib"),
        "file_mib": found.result.get("peak_file_mib"),
        "seconds": round(found.seconds, 1),
        "error": error,
    }
