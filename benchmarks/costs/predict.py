"""Learning costs no more than inference: the peak of ``edge-zofc learn`` over that of ``edge-zofc predict``.

Two real processes on the same bundle, run and pictures; ``predict`` takes the run's own micro-batch and settings.

What may surprise: both are the kernel's high-water mark of the resident set (VmHWM), read when the process has done its
work; ``wait4`` would give the larger one of the process that started it. Both decode the same 12-megapixel picture.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.heads import HeadBackend
from edge_zofc.benchmarks.costs.learn import MIB, STEPS, write_stream
from edge_zofc.benchmarks.costs.limits import least_budget_bytes
from edge_zofc.errors import DoesNotFitError
from edge_zofc.storage.bundle import read_bundle

CASES: tuple[tuple[str, HeadBackend], ...] = (("lda", "numpy"), ("cosine", "numpy"), ("cosine", "torch"))
"""Head, and what computes it."""
_MAIN = """
import sys
from edge_zofc.cli.main import main
from edge_zofc.device.system import PeakSampler
with PeakSampler() as sampler:
    code = main()
    print(sampler.peak().rss_bytes, file=sys.stderr)
sys.exit(code)
"""


def measure_against_predict(
    bundles: list[Path], batch_size: int, queries: int, folder: Path, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """One row for each bundle and head, each learning with the least budget that the plan gives it."""
    rows = []
    for number, bundle in enumerate(bundles):
        side = read_bundle(bundle).manifest.image.size + 32
        stream = write_stream(folder / f"stream-{number}", batch_size, side)
        pictures = sorted(stream.rglob("*.jpg"))
        for head, backend in CASES:
            shape = {"batch_size": batch_size, "queries": queries, "head": head}
            budget = least_budget_bytes(bundle, backend, shape)
            run = folder / f"run-{number}-{head}-{backend}"
            learn_mib = _peak_mib(
                *("learn", "--bundle", str(bundle.absolute()), "--stream", str(stream), "--run", str(run)),
                *("--batch-size", str(batch_size), "--queries", str(queries), "--head", head),
                *("--epochs", str(STEPS), "--memory-budget", f"{-(-budget // MIB)}MiB", "--micro-batch", "1"),
            )
            predict_mib = _peak_mib("predict", str(run), *map(str, pictures))
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


def _peak_mib(*arguments: str) -> float:
    """Peak RSS of a child ``edge-zofc``. Raises DoesNotFitError, with its last words, if it fails."""
    done = subprocess.run(  # noqa: S603 - this very package in this very interpreter
        [sys.executable, "-c", _MAIN, *arguments], capture_output=True, text=True, check=False
    )
    words = done.stderr.strip().splitlines()
    if done.returncode:
        raise DoesNotFitError(f"'edge-zofc {arguments[0]}' ended with {done.returncode}: {words[-1:]}")
    return int(words[-1]) / MIB
