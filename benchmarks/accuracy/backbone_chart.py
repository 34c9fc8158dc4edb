"""The README's chart of backbones: accuracy against the time of a picture, one panel a stream, memory beside the name.

``python -m edge_zofc.benchmarks.accuracy.backbone_chart benchmarks/results/backbones.json backbones.svg``; the JSON is
what ``edge-zofc bench backbones`` writes. The SVG has no background; its colours are readable on white and on dark
pages.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.chart_style import BLUE, GREY, STYLE, TEXT
from edge_zofc.export.shipped import DEFAULT, SHIPPED

SHORT = {"package-lite0": "Lite0", "package-lite2": "Lite2", "package-vit": "own ViT"}
LABEL_POINTS = 4.0
"""Percentage points between two names."""


def label(row: dict[str, Any]) -> str:
    """Such as "Lite0 128 px, 192 MiB"."""
    return f"{SHORT.get(row['backbone'], row['backbone'])} {row['side']} px, {row['peak_rss_mib']:.0f} MiB"


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the chart as an SVG file. ``rows`` are those of ``bench backbones``."""
    import matplotlib
    from matplotlib.figure import Figure

    streams = list(dict.fromkeys(row["stream"] for row in rows))
    most = max(row["milliseconds"] for row in rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.5 * len(streams), 3.2), layout="constrained")
        panels = figure.subplots(1, len(streams), sharex=True, sharey=True, squeeze=False)[0]
        for axes, stream in zip(panels, streams, strict=True):
            axes.set_title(stream, fontsize=11, weight="bold", loc="left")
            axes.set_xlabel("ms a picture on one core", loc="left")
            axes.set_xlim(0, 1.95 * most)
            axes.set_xticks([tick for tick in axes.get_xticks() if tick <= 1.1 * most])
            _points(axes, [row for row in rows if row["stream"] == stream], 1.12 * most)
        panels[0].set_ylabel("average accuracy, %")
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


def _points(axes: Any, rows: Sequence[dict[str, Any]], x: float) -> None:
    """Each row's point, and a thin line to its name in a column at ``x``, best on top: points may lie close."""
    default = (DEFAULT, SHIPPED[DEFAULT].image.size)
    y = 200.0
    for row in sorted(rows, key=lambda row: float(row["average"]), reverse=True):
        place = row["milliseconds"], 100 * row["average"]
        is_default = (row["backbone"], row["side"]) == default
        colour, weight = (BLUE, "bold") if is_default else (GREY, "normal")
        y = min(place[1], y - LABEL_POINTS)
        axes.plot([place[0], 0.98 * x], [place[1], y], color=colour, linewidth=0.6, alpha=0.7)
        axes.plot(*place, "o", color=colour, ms=7)
        axes.text(x, y, label(row), va="center", fontsize=9, weight=weight, color=BLUE if is_default else TEXT)


def main(argv: Sequence[str] | None = None) -> int:
    """Read the JSON file, write the SVG file."""
    parser = argparse.ArgumentParser(prog="python -m edge_zofc.benchmarks.accuracy.backbone_chart")
    parser.add_argument("measured", metavar="JSON", type=Path, help="backbones.json of edge-zofc bench backbones")
    parser.add_argument("out", metavar="SVG", type=Path, help="the picture to write")
    options = parser.parse_args(argv)
    draw(json.loads(options.measured.read_text(encoding="utf-8")), options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
