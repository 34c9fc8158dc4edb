"""The estimators that a run may choose from, side by side: memory, passes and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.options import Options
from edge_zofc.engine.plans import Rival
from edge_zofc.engine.trainer import TaskSize
from edge_zofc.engine.work import TimePlan, measure_paces, predict_time
from edge_zofc.report.text import table
from edge_zofc.storage.bundle import Bundle

_NAMES = {"spsa": "forward passes alone (spsa)", "exact": "exact gradients (exact)"}


@dataclass(frozen=True)
class Row:
    """One rival and its time; None without a stream or a bundle, or where it does not fit."""

    rival: Rival
    time: TimePlan | None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        plan = self.rival.plan
        return {
            "estimator": self.rival.options.estimator,
            "peak_bytes": None if plan is None else plan.peak_bytes,
            "least_bytes": self.rival.least_bytes,
            "time": None if self.time is None else asdict(self.time),
        }


def timed(found: Sequence[Rival], bundle: Bundle | None, tasks: Sequence[TaskSize], some: Sequence[Path]) -> list[Row]:
    """Each rival that fits with its time on this machine; ``tasks`` and ``some`` pictures are those of ``survey``."""
    rows = []
    for rival in found:
        time = None
        if rival.plan is not None and bundle is not None and tasks:
            exact = rival.options.estimator == "exact"
            paces = measure_paces(bundle, rival.plan.placement, some, exact)
            time = predict_time(rival.options, tasks, paces, bundle)
        rows.append(Row(rival, time))
    return rows


def estimators_text(rows: Sequence[Row], chosen: Options, width: int) -> str:
    """A table with a row for each, and what its columns mean."""
    lines: list[tuple[str, ...]] = [("peak", "least", "forwards", "gradients", "minutes", "")]
    for row in rows:
        plan, time = row.rival.plan, row.time
        cells = ["-", "-", "-"]
        if time is not None:
            minutes = "-" if time.seconds is None else f"{time.seconds / 60:.1f}"
            cells = [f"{time.image_forwards}", f"{time.gradient_passes}", minutes]
        mark = ", taken" if row.rival.options is chosen and len(rows) > 1 else ""
        name = _NAMES[row.rival.options.estimator] + mark
        lines.append((_mib(plan.peak_bytes if plan else None), _mib(row.rival.least_bytes), *cells, name))
    times = [row.time for row in rows if row.time is not None]
    notes = ["Peak and least in MiB: of this plan, and of the thriftiest."]
    if times:
        notes.append("Image-forwards and gradient passes at most; minutes on this machine, decoding included.")
        if chosen.adapter == "auto" and chosen.loss == "episodic":
            notes.append("Fewer where the first task's classes stand far apart: the adapter takes no step then.")
    notes += [_paces(time) for time in times if time.seconds_a_forward is not None]
    return "\n".join([table(lines, "rrrrrl", width), *(table([(note,)], "l", width) for note in notes)])


def _paces(time: TimePlan) -> str:
    each = f"{1000 * (time.seconds_a_forward or 0.0):.1f} ms a forward"
    more = "" if time.seconds_a_gradient is None else f", {1000 * time.seconds_a_gradient:.1f} ms a gradient"
    return f"{each}{more}."


def _mib(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.1f}"
