"""Three pictures of a comparison: accuracy over tasks, accuracy against peak memory, forgetting.

What may surprise: a method has the same colour and marker in every picture and every comparison; whiskers are one
standard deviation over the seeds. matplotlib is drawn on without pyplot: nothing global is opened or left behind.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.names import METHODS

MARKERS = "osD^v"
LINES = ("-", "--", ":", "-.", "-")


def write_pictures(cells: list[dict[str, Any]], out: Path) -> None:
    """Write accuracy_over_tasks.png, accuracy_memory.png and forgetting.png into ``out``."""
    groups = {name: mine for name in METHODS if (mine := [c for c in cells if c["method"] == name])}
    _over_tasks(groups, out / "accuracy_over_tasks.png")
    _against_memory(groups, out / "accuracy_memory.png")
    _forgetting(groups, out / "forgetting.png")


def _axes(title: str, x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_axisbelow(True)
    axes.grid(alpha=0.3)
    return figure, axes


def _look(name: str) -> dict[str, Any]:
    """Colour, marker and line of a method: the ten colours, each with its own marker the next time round."""
    index = list(METHODS).index(name)
    turn = index // 10
    return {"color": f"C{index % 10}", "marker": MARKERS[turn], "linestyle": LINES[turn]}


def _percent(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation, in percent."""
    return 100 * statistics.fmean(values), 100 * statistics.pstdev(values)


def _known(cells: list[dict[str, Any]], key: str) -> list[float]:
    return [cell[key] for cell in cells if cell[key] is not None]


def _over_tasks(groups: dict[str, list[dict[str, Any]]], path: Path) -> None:
    figure, axes = _axes("Accuracy on all classes seen", "tasks learnt", "accuracy (%)")
    for name, cells in groups.items():
        stages = zip(*(cell["stage_accuracy"] for cell in cells), strict=True)
        means = [
            _percent(known)[0] if (known := [v for v in stage if v is not None]) else float("nan")
            for stage in stages
        ]
        axes.plot(range(1, len(means) + 1), means, ms=4, label=name, **_look(name))
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path)


def _against_memory(groups: dict[str, list[dict[str, Any]]], path: Path) -> None:
    figure, axes = _axes(
        "What accuracy costs in memory", "peak resident memory of the process (MiB)", "average accuracy (%)"
    )
    most = 1.0
    for name, cells in groups.items():
        if known := _known(cells, "average_accuracy"):
            mean, deviation = _percent(known)
            memory = statistics.fmean(cell["peak_rss_mib"] for cell in cells)
            most = max(most, memory)
            look = {**_look(name), "linestyle": "none"}
            axes.errorbar([memory], [mean], yerr=[deviation], ms=6, elinewidth=1, label=name, **look)
    axes.set_xlim(0, 1.08 * most)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path)


def _forgetting(groups: dict[str, list[dict[str, Any]]], path: Path) -> None:
    figure, axes = _axes(
        "Forgetting: best accuracy on a task - last, mean over earlier tasks", "", "percentage points"
    )
    found = {
        name: _percent(known) for name, cells in groups.items() if (known := _known(cells, "forgetting"))
    }
    whiskers = [deviation for _, deviation in found.values()]
    axes.bar(range(len(found)), [mean for mean, _ in found.values()], yerr=whiskers, ecolor="0.3")
    axes.set_xticks(range(len(found)), list(found), rotation=45, ha="right", fontsize=8)
    axes.grid(axis="x", visible=False)
    figure.savefig(path)
