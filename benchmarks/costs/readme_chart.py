"""The README's chart: peak memory of inference, of edge-zofc and of first order, drawn from a measured JSON file.

``python -m edge_zofc.benchmarks.costs.readme_chart benchmarks/results/memory_vit_b.json peak_memory.svg``; the JSON is
what ``edge-zofc bench memory --out`` writes. The axis begins at 0. The SVG has no background; its colours are readable
on white and on dark pages.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.chart_style import BLUE, GREY, STYLE
from edge_zofc.errors import InputError

BARS = {
    "inference": "inference alone",
    "zo-fc-in-place-numpy": "edge-zofc learns",
    "fo-micro": "first order in torch, at its best",
    "fo-batch": "first order in torch, whole batch",
}
"""Arm of ``bench memory`` -> label, from top to bottom."""
OURS = "zo-fc-in-place-numpy"


def peaks(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Peak resident memory in MiB of each arm in BARS. Raises InputError if one of them was not measured."""
    found = {row["arm"]: row["peak_rss_mib"] for row in rows if not row["failed"]}
    missing = [arm for arm in BARS if arm not in found]
    if missing:
        raise InputError(f"The file has no measured arm {missing[0]}; run edge-zofc bench memory again.")
    return {arm: found[arm] for arm in BARS}


def draw(mib: dict[str, float], path: Path) -> None:
    """Write the bars as an SVG file. ``mib`` is what ``peaks`` returns."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "ytick.left": False}):
        figure = Figure(figsize=(7.2, 2.0), layout="constrained")
        axes = figure.subplots()
        for place, (arm, value) in enumerate(mib.items()):
            bar = axes.barh(place, value, height=0.62, color=BLUE if arm == OURS else GREY)
            bar.patches[0].set_gid(f"bar-{arm}")
            weight = "bold" if arm == OURS else "normal"
            axes.annotate(
                f"{value:,.0f}", (value, place), (5, 0), textcoords="offset points", va="center", weight=weight
            )
        axes.set_yticks(range(len(mib)), [BARS[arm] for arm in mib])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12 * max(mib.values()))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("peak memory of the whole process, MiB")
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


def main(argv: Sequence[str] | None = None) -> int:
    """Read the JSON file, write the SVG file."""
    parser = argparse.ArgumentParser(prog="python -m edge_zofc.benchmarks.costs.readme_chart")
    parser.add_argument("measured", metavar="JSON", type=Path, help="memory.json of edge-zofc bench memory")
    parser.add_argument("out", metavar="SVG", type=Path, help="the picture to write")
    options = parser.parse_args(argv)
    draw(peaks(json.loads(options.measured.read_text(encoding="utf-8"))["rows"]), options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
