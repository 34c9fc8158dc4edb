"""The lowest memory limit under which learning still completes in at most 1.5 times its unlimited time.

What may surprise: it lies below the predicted peak. File-backed pages (libraries, mapped weights) can be dropped
and read again, so a process slows down before it dies; the search stops where that costs more than half as much again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.heads import HeadBackend
from edge_zofc.algorithm.options import make_options
from edge_zofc.benchmarks.costs.learn import MIB, Learnt, learn, write_stream
from edge_zofc.device.profiles import load_profile
from edge_zofc.engine.setup import make_plan
from edge_zofc.errors import DoesNotFitError
from edge_zofc.storage.bundle import Manifest, read_bundle

SLOWER = 1.5
GRAIN_MIB = 16


def least_budget_bytes(bundle: Path, head: HeadBackend, changes: dict[str, Any]) -> int:
    """The smallest budget in whole MiB for which the plan takes this head: its thriftiest configuration.

    Raises DoesNotFitError if torch is not installed and the torch head is asked for.
    """
    found, profile, options = read_bundle(bundle), load_profile("auto"), make_options("edge", changes)
    low, high = 0, 1 << 17
    while high - low > 1:
        middle = (low + high) // 2
        try:
            make_plan(found, profile, options, middle * MIB, head_backend=head)
        except DoesNotFitError:
            low = middle
        else:
            high = middle
    return (high + 1) * MIB  # learn makes room for the stream's own classes too


def _question(
    bundle: Path, head: HeadBackend, batch_size: int, queries: int, folder: Path
) -> tuple[Manifest, Path, list[str], Callable[[], int]]:
    """The bundle's manifest, a stream one batch long, ``learn``'s options, and what finds the least budget for them."""
    spec = read_bundle(bundle).manifest
    stream = write_stream(folder / "stream", batch_size, spec.image.size + 32)
    options = ["--batch-size", str(batch_size), "--queries", str(queries), "--head", "cosine"]
    changes: dict[str, Any] = {"batch_size": batch_size, "queries": queries, "head": "cosine"}
    return spec, stream, options, lambda: least_budget_bytes(bundle, head, changes)


def measure_limits(
    bundle: Path, head: HeadBackend, batch_size: int, queries: int, folder: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Search by halving, to 16 MiB: one row of the table."""
    spec, stream, options, least = _question(bundle, head, batch_size, queries, folder)
    budget = least()
    free = learn(bundle, stream, budget, options)
    tell(f"{bundle.name}, {head} head, no limit: {free.ending} in {free.seconds:.1f} s")
    if not free.completed:
        raise DoesNotFitError(f"Learning without a limit did not complete: {free.ending}")
    peak_mib = int(free.result["peak_rss_mib"])
    fails, works, best = 32, peak_mib + GRAIN_MIB, free
    while works - fails > GRAIN_MIB:
        middle = (works + fails) // 2
        found = learn(bundle, stream, budget, options, middle * MIB, SLOWER * free.seconds)
        tell(f"  limit {middle} MiB: {found.ending}, {found.seconds:.1f} s")
        if found.completed and found.seconds <= SLOWER * free.seconds:
            works, best = middle, found
        else:
            fails = middle
    return _row(bundle.name, spec.precision, head, works, best, free)


def measure_one_limit(
    bundle: Path, limit_bytes: int, head: HeadBackend, batch_size: int, queries: int, folder: Path
) -> dict[str, Any]:
    """``learn`` with this head under a cgroup of LIMIT, which is its budget too where the plan takes the head then.

    Torch's libraries count in the plan but hardly in the cgroup (see above): where the plan would leave torch out, the
    budget is the least for which it would not.
    """
    spec, stream, options, least = _question(bundle, head, batch_size, queries, folder)
    budget = max(limit_bytes, least()) if head == "torch" else limit_bytes
    found = learn(bundle, stream, budget, options, limit_bytes)
    ran = str(found.result.get("head_backend"))
    return _row(bundle.name, spec.precision, ran, limit_bytes // MIB, found, None)


def _row(
    name: str, precision: str, head: str, limit_mib: int, found: Learnt, free: Learnt | None
) -> dict[str, Any]:
    kept = ("predicted_peak_mib", "peak_rss_mib", "peak_anonymous_mib", "peak_file_mib", "micro_batch")
    return {
        "bundle": name,
        "precision": precision,
        "head": head,
        "limit_mib": limit_mib,
        "ending": found.ending,
        "seconds": round(found.seconds, 1),
        "seconds_without_limit": None if free is None else round(free.seconds, 1),
        "peak_rss_without_limit_mib": None if free is None else free.result["peak_rss_mib"],
        "cgroup_peak_mib": None if found.cgroup_peak_bytes is None else found.cgroup_peak_bytes // MIB,
        **{key: found.result.get(key) for key in (*kept, "parallel_queries")},
    }
