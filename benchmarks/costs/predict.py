"""Learning against inference: the peak of ``edge-zofc learn`` over that of ``edge-zofc predict``.

Both are real processes on the same bundle, run and pictures, one of them a 12-megapixel picture. ``predict`` takes the
run's own micro-batch and settings. Both peaks are the kernel's high-water mark of the resident set (VmHWM).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.heads import HeadBackend
from edge_zofc.benchmarks.costs.learn import STEPS, budget, write_stream
from edge_zofc.benchmarks.costs.limits import least_budget_bytes
from edge_zofc.benchmarks.costs.setup import MIB
from edge_zofc.benchmarks.process import peak_rss_bytes
from edge_zofc.storage.bundle import read_bundle

CASES: tuple[tuple[str, HeadBackend], ...] = (("lda", "numpy"), ("cosine", "numpy"), ("cosine", "torch"))
"""Head, and what computes it."""


def measure_against_predict(
    bundles: list[Path], batch_size: int, queries: int, folder: Path, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """One row for each bundle and head. Each learns with the least budget for which the plan takes that head."""
    rows = []
    for number, bundle in enumerate(bundles):
        side = read_bundle(bundle).manifest.image.size + 32
        stream = write_stream(folder / f"stream-{number}", batch_size, side)
        pictures = sorted(stream.rglob("*.jpg"))
        for head, backend in CASES:
            shape = {"batch_size": batch_size, "queries": queries, "head": head}
            room = least_budget_bytes(bundle, backend, shape)
            run = folder / f"run-{number}-{head}-{backend}"
            folders = ["--bundle", bundle, "--stream", stream, "--run", run]
            options = ["--batch-size", batch_size, "--queries", queries, "--head", head, "--loss", "head"]
            options += ["--epochs", STEPS]
            memory = ["--memory-budget", budget(room), "--micro-batch", 1]
            learn_mib = peak_rss_bytes("learn", *folders, *options, *memory) / MIB
            predict_mib = peak_rss_bytes("predict", run, *pictures) / MIB
            row = {
                "bundle": bundle.name,
                "head": f"{head} ({backend})",
                "micro_batch": 1,
                "learn_mib": learn_mib,
                "predict_mib": predict_mib,
                "ratio": learn_mib / predict_mib,
            }
            tell(", ".join(f"{key} {value}" for key, value in row.items()))
            rows.append(row)
    return rows
