"""Three pictures of a comparison: accuracy over tasks, accuracy against peak memory, forgetting.

What may surprise: matplotlib is drawn on without pyplot, so that nothing global is opened or left behind.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.names import METHODS


def write_pictures(cells: list[dict[str, Any]], out: Path) -> None:
    """Write accuracy_over_tasks.png, accuracy_memory.png and forgetting.png into ``out``."""
    groups = {name: mine for name in METHODS if (mine := [c for c in cells if c["method"] == name])}
    _over_tasks(groups, out / "accuracy_over_tasks.png")
    _against_memory(groups, out / "accuracy_memory.png")
    _forgetting(groups, out / "forgetting.png")


def _axes(title: str, x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes


def _over_tasks(groups: dict[str, list[dict[str, Any]]], path: Path) -> None:
    figure, axes = _axes("Accuracy on all classes seen", "tasks learnt", "accuracy (%)")
    styles = ("-", "--", ":")
    for index, (name, cells) in enumerate(groups.items()):
        stages = zip(*(cell["stage_accuracy"] for cell in cells), strict=True)
        means = [
            100 * statistics.fmean(known) if (known := [v for v in stage if v is not None]) else float("nan")
            for stage in stages
        ]
        axes.plot(range(1, len(means) + 1), means, styles[index // 10 % 3], marker="o", ms=3, label=name)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(path)


def _against_memory(groups: dict[str, list[dict[str, Any]]], path: Path) -> None:
    figure, axes = _axes(
        "What accuracy costs in memory", "peak resident memory (MiB)", "average accuracy (%)"
    )
    for name, cells in groups.items():
        y = [100 * value for cell in cells if (value := cell["average_accuracy"]) is not None]
        if y:
            x = statistics.fmean(cell["peak_rss_mib"] for cell in cells)
            axes.plot([x], [statistics.fmean(y)], "o")
            axes.annotate(
                name, (x, statistics.fmean(y)), xytext=(4, 3), textcoords="offset points", fontsize=7
            )
    axes.set_xlim(left=0)
    axes.margins(x=0.15)
    figure.savefig(path)


def _forgetting(groups: dict[str, list[dict[str, Any]]], path: Path) -> None:
    figure, axes = _axes("Forgetting (max over stages - last, mean over earlier tasks)", "", "percent")
    known = {
        name: 100 * statistics.fmean(values)
        for name, cells in groups.items()
        if (values := [cell["forgetting"] for cell in cells if cell["forgetting"] is not None])
    }
    axes.bar(range(len(known)), list(known.values()))
    axes.set_xticks(range(len(known)), list(known), rotation=45, ha="right", fontsize=8)
    figure.savefig(path)
