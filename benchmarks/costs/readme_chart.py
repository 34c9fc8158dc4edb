"""The README's chart: peak memory of inference, of edge-zofc and of first order, drawn from measured JSON files.

``python -m edge_zofc.benchmarks.costs.readme_chart LITE0_VIT.json VIT_B.json peak_memory.svg`` writes the picture and
prints its alternative text. The JSON files are what ``edge-zofc bench estimators --costs --out`` writes. Both panels
have one axis, which begins at 0. The SVG has no background; its colours are readable on white and on dark pages.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.chart_style import BLUE, GREY, STYLE
from edge_zofc.errors import InputError

BARS = {
    "inference": "inference alone",
    "spsa": "edge-zofc, forward passes alone",
    "exact": "edge-zofc, exact gradients",
    "torch-best": "first order in torch, at its best",
    "torch-batch": "first order in torch, whole batch",
}
"""Bar -> label, from top to bottom."""
OURS = ("spsa", "exact")
TORCH = ("torch-batch", "torch-batch-checkpoint", "torch-micro", "torch-micro-checkpoint")


@dataclass(frozen=True)
class Panel:
    """The bars of one network. ``placement``: "fast" or "thrifty", of the arms of onnxruntime."""

    bundle: str
    name: str
    size: str
    batch_size: int
    placement: str
    how: str

    @property
    def title(self) -> str:
        """Two lines."""
        return f"{self.name}, {self.size}\nbatch {self.batch_size}, {self.how}"

    def arms(self, bar: str, measured: Collection[str]) -> tuple[str, ...]:
        """The arms of ``bench estimators`` of which a bar shows the least; ``measured`` are those that the panel has.

        Forward passes alone are shown with shifts, ``learn``'s default, where the adapter has some.
        """
        if bar == "torch-best":
            return TORCH
        shifts = f"spsa-shifts-{self.placement}"
        spsa = shifts if shifts in measured else f"spsa-balanced-{self.placement}"
        return ({"torch-batch": "torch-batch", "spsa": spsa}.get(bar, f"{bar}-{self.placement}"),)


PANELS = (
    Panel("lite0", "EfficientNet-Lite0", "128 px", 64, "fast", "fast placement"),
    Panel("vitb", "ViT-B/16", "224 px", 4, "thrifty", "thriftiest placement"),
)

Measured = dict[str, dict[str, float]]
"""Bundle -> bar -> MiB."""


def peaks(rows: Sequence[dict[str, Any]]) -> Measured:
    """Peak resident memory in MiB of each bar of PANELS. Raises InputError if an arm of one was not measured."""
    found = {(row["bundle"], row["batch_size"], row["arm"]): row["peak_rss_mib"] for row in rows if not row["failed"]}

    def least(panel: Panel, bar: str) -> float:
        place = panel.bundle, panel.batch_size
        keys = [(*place, arm) for arm in panel.arms(bar, {arm for *where, arm in found if tuple(where) == place})]
        missing = [key for key in keys if key not in found]
        if missing:
            bundle, batch_size, arm = missing[0]
            raise InputError(
                f"The files have no measured arm {arm} of {bundle} with batch {batch_size}; "
                "run edge-zofc bench estimators --costs again."
            )
        return float(min(found[key] for key in keys))

    return {panel.bundle: {bar: least(panel, bar) for bar in BARS} for panel in PANELS}


def alternative(measured: Measured) -> str:
    """The picture in words."""
    parts = [f"{panel.name} {', '.join(f'{measured[panel.bundle][bar]:,.0f}' for bar in BARS)}" for panel in PANELS]
    what = "inference, forward passes alone, exact gradients, first order in torch at its best, whole batch"
    return f"Peak MiB of {what}: {'; '.join(parts)}"


def draw(measured: Measured, path: Path) -> None:
    """Write the bars as an SVG file. ``measured`` is what ``peaks`` returns."""
    import matplotlib
    from matplotlib.figure import Figure

    most = max(value for mib in measured.values() for value in mib.values())
    with matplotlib.rc_context({**STYLE, "ytick.left": False, "axes.titlesize": 10}):
        figure = Figure(figsize=(7.2, 2.5), layout="constrained")
        for panel, axes in zip(PANELS, figure.subplots(1, len(PANELS), sharey=True), strict=True):
            _bars(axes, panel.bundle, measured[panel.bundle])
            axes.set_title(panel.title, loc="left")
            axes.set_xlim(0, 1.3 * most)
            axes.locator_params(axis="x", nbins=3)
            axes.xaxis.set_major_formatter("{x:,.0f}")
        figure.supxlabel("peak memory of the whole process, MiB", fontsize=10)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


def _bars(axes: Any, name: str, mib: dict[str, float]) -> None:
    for place, (bar, value) in enumerate(mib.items()):
        drawn = axes.barh(place, value, height=0.62, color=BLUE if bar in OURS else GREY)
        drawn.patches[0].set_gid(f"bar-{name}-{bar}")
        weight = "bold" if bar in OURS else "normal"
        axes.annotate(f"{value:,.0f}", (value, place), (5, 0), textcoords="offset points", va="center", weight=weight)
    axes.set_yticks(range(len(mib)), [BARS[bar] for bar in mib])
    axes.set_ylim(len(mib) - 0.5, -0.5)


def main(argv: Sequence[str] | None = None) -> int:
    """Read the JSON files, write the SVG file, print its alternative text."""
    parser = argparse.ArgumentParser(prog="python -m edge_zofc.benchmarks.costs.readme_chart")
    parser.add_argument("measured", metavar="JSON", type=Path, nargs="+", help="of edge-zofc bench estimators --costs")
    parser.add_argument("out", metavar="SVG", type=Path, help="the picture to write")
    options = parser.parse_args(argv)
    rows = [row for path in options.measured for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    found = peaks(rows)
    draw(found, options.out)
    sys.stdout.write(f"{alternative(found)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
