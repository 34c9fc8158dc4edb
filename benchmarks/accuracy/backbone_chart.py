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

from edge_zofc.benchmarks.chart_style import BLUE, GREY, STYLE
from edge_zofc.export.shipped import DEFAULT, SHIPPED

SHORT = {"package-lite0": "Lite0", "package-lite2": "Lite2", "package-vit": "own ViT"}


def label(row: dict[str, Any]) -> str:
    """Such as "Lite0 128 px, 192 MiB"."""
    return f"{SHORT.get(row['backbone'], row['backbone'])} {row['side']} px, {row['peak_rss_mib']:.0f} MiB"


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the chart as an SVG file. ``rows`` are those of ``bench backbones``."""
    import matplotlib
    from matplotlib.figure import Figure

    streams = list(dict.fromkeys(row["stream"] for row in rows))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4 * len(streams), 3.4), layout="constrained")
        panels = figure.subplots(1, len(streams), sharex=True, sharey=True, squeeze=False)[0]
        for axes, stream in zip(panels, streams, strict=True):
            mine = [row for row in rows if row["stream"] == stream]
            axes.set_title(stream, fontsize=11, weight="bold")
            axes.set_xlabel("ms a picture on one core")
            axes.set_axisbelow(True)
            axes.grid(alpha=0.25)
            for row in mine:
                _point(axes, row)
            axes.set_xlim(0, 1.45 * max(row["milliseconds"] for row in rows))
        panels[0].set_ylabel("average accuracy, %")
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


def _point(axes: Any, row: dict[str, Any]) -> None:
    shipped = SHIPPED[DEFAULT]
    ours = (row["backbone"], row["side"]) == (DEFAULT, shipped.image.size)
    place = row["milliseconds"], 100 * row["average"]
    axes.plot(*place, "o", color=BLUE if ours else GREY, ms=7)
    weight = "bold" if ours else "normal"
    axes.annotate(label(row), place, (7, 0), textcoords="offset points", va="center", fontsize=8.5, weight=weight)


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
