"""The lowest memory limit under which learning still completes in at most 1.5 times its unlimited time.

The limit can lie below the predicted peak. The kernel drops file-backed pages (libraries, mapped weights) and reads
them again, so a process becomes slow before it is killed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.heads import HeadBackend
from edge_zofc.algorithm.options import make_options
from edge_zofc.benchmarks.costs.cgroup import GRAIN_MIB, LEAST_MIB, SLOWER, lowest
from edge_zofc.benchmarks.costs.learn import LearnCommand, Learnt, learn, write_stream
from edge_zofc.benchmarks.costs.setup import MIB
from edge_zofc.device.memory_plan import Fixed
from edge_zofc.device.profiles import load_profile
from edge_zofc.engine.plans import Device, make_plan
from edge_zofc.errors import DoesNotFitError
from edge_zofc.storage.bundle import read_bundle

MOST_MIB = 1 << 17


@dataclass(frozen=True)
class LimitCase:
    """A bundle and a head whose limit is measured. ``folder`` is where the stream is written."""

    bundle: Path
    head: HeadBackend
    batch_size: int
    queries: int
    folder: Path

    def least_budget_bytes(self) -> int:
        """The smallest budget for which the plan takes this head."""
        changes = {"batch_size": self.batch_size, "queries": self.queries, "head": "cosine"}
        return least_budget_bytes(self.bundle, self.head, changes)

    def command(self, budget_bytes: int) -> LearnCommand:
        """``learn`` with this budget on a stream that is one batch long."""
        side = read_bundle(self.bundle).manifest.image.size + 32
        stream = write_stream(self.folder / "stream", self.batch_size, side)
        shape = ["--batch-size", str(self.batch_size), "--queries", str(self.queries)]
        return LearnCommand(self.bundle, stream, budget_bytes, [*shape, "--head", "cosine"])


def least_budget_bytes(bundle: Path, head: HeadBackend, changes: dict[str, Any], classes: int | None = None) -> int:
    """The smallest budget in whole MiB for which the plan takes this head: its thriftiest configuration.

    ``classes`` of the stream, None: not known. Raises InputError if torch is not installed and the torch head is asked
    for.
    """
    found, profile, options = read_bundle(bundle), load_profile("auto"), make_options("edge", changes)
    low, high = 0, MOST_MIB
    while high - low > 1:
        middle = (low + high) // 2
        try:
            make_plan(found.manifest.sizes, options, Device(profile, middle * MIB), classes, Fixed(head_backend=head))
        except DoesNotFitError:
            low = middle
        else:
            high = middle
    return (high + 1) * MIB  # learn makes room for the stream's own classes too


def measure_limits(case: LimitCase, tell: Callable[[str], None]) -> dict[str, Any]:
    """Search by halving, to 16 MiB: one row of the table. Raises DoesNotFitError if learning fails without a limit."""
    asked = case.command(case.least_budget_bytes())
    free = learn(asked)
    tell(f"{case.bundle.name}, {case.head} head, no limit: {free.ending} in {free.seconds:.1f} s")
    if not free.completed:
        raise DoesNotFitError(f"Learning without a limit did not complete: {free.ending}")
    tried = {int(free.result["peak_rss_mib"]) + GRAIN_MIB: free}

    def holds(limit_mib: int) -> bool:
        found = tried[limit_mib] = learn(asked, limit_mib * MIB, SLOWER * free.seconds)
        tell(f"  limit {limit_mib} MiB: {found.ending}, {found.seconds:.1f} s")
        return found.completed and found.seconds <= SLOWER * free.seconds

    works = lowest(LEAST_MIB, max(tried), GRAIN_MIB, holds)
    return _row(case, case.head, works, tried[works], free)


def measure_one_limit(case: LimitCase, limit_bytes: int) -> dict[str, Any]:
    """``learn`` in a cgroup of ``limit_bytes``, which is its budget too where the plan takes the head then.

    The libraries of torch count in the plan and hardly in the cgroup. So where the plan would not take the torch head,
    the budget is the least for which it does.
    """
    budget = max(limit_bytes, case.least_budget_bytes()) if case.head == "torch" else limit_bytes
    found = learn(case.command(budget), limit_bytes)
    return _row(case, str(found.result.get("head_backend")), limit_bytes // MIB, found, None)


def _row(case: LimitCase, head: str, limit_mib: int, found: Learnt, free: Learnt | None) -> dict[str, Any]:
    kept = ("predicted_peak_mib", "peak_rss_mib", "peak_anonymous_mib", "peak_file_mib", "micro_batch")
    return {
        "bundle": case.bundle.name,
        "precision": read_bundle(case.bundle).manifest.precision,
        "head": head,
        "limit_mib": limit_mib,
        "ending": found.ending,
        "seconds": round(found.seconds, 1),
        "seconds_without_limit": None if free is None else round(free.seconds, 1),
        "peak_rss_without_limit_mib": None if free is None else free.result["peak_rss_mib"],
        "cgroup_peak_mib": None if found.cgroup_peak_bytes is None else found.cgroup_peak_bytes // MIB,
        **{key: found.result.get(key) for key in (*kept, "parallel_queries")},
    }
