"""Three pictures of a comparison: accuracy over tasks, accuracy against peak memory, forgetting.

Twenty methods are too many lines for one pair of axes. So methods stand in four families, each with its own panel or
colour, and zo-fc is drawn in black in every panel. Whiskers are one standard deviation over the seeds.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.methods.names import EPISODIC, METHODS, TRAINING_FREE

OURS = "zo-fc"
FAMILIES = ("no training", "ZO-FC's adapter, its head", "peers, first order", "peers, zeroth order")
RELATIVES = EPISODIC | {"head", OURS, "fo-fc", "fo-fc-lda", "zo-all", "fo-adapter+zo-head"}
COLOURS = ("#777777", "#1f5fbf", "#c4601d", "#7a3fa0")
MARKERS = "osD^vPX*"

Groups = dict[str, list[dict[str, Any]]]


def write_pictures(cells: list[dict[str, Any]], out: Path) -> None:
    """Write accuracy_over_tasks.png, accuracy_memory.png and forgetting.png into ``out``."""
    groups = {name: mine for name in METHODS if (mine := [c for c in cells if c["method"] == name])}
    _over_tasks(groups, out / "accuracy_over_tasks.png")
    _against_memory(groups, out / "accuracy_memory.png")
    _forgetting(groups, out / "forgetting.png")


def family(name: str) -> int:
    """The index into FAMILIES."""
    if name in TRAINING_FREE:
        return 0
    if name in RELATIVES:
        return 1
    return 3 if name.endswith("-zo") else 2


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _grid(axes: Any) -> None:
    axes.set_axisbelow(True)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _percent(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation, in percent."""
    return 100 * statistics.fmean(values), 100 * statistics.pstdev(values)


def _known(cells: list[dict[str, Any]], key: str) -> list[float]:
    return [cell[key] for cell in cells if cell[key] is not None]


def _over_tasks(groups: Groups, path: Path) -> None:
    shown = sorted({family(name) for name in groups})
    figure = _figure(3.1 * len(shown) + 0.6, 4.6)
    figure.suptitle("Accuracy on all classes seen so far, mean over the seeds")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, index in zip(panels, shown, strict=True):
        mine = [name for name in groups if family(name) == index]
        turn = 0
        for name in [*mine, *([OURS] if OURS in groups and OURS not in mine else [])]:
            stages = zip(*(cell["stage_accuracy"] for cell in groups[name]), strict=True)
            means = [
                _percent(known)[0] if (known := [v for v in stage if v is not None]) else float("nan")
                for stage in stages
            ]
            look = {"color": "black", "marker": "o", "linewidth": 2.2}
            if name != OURS:
                look = {"color": f"C{turn}", "marker": MARKERS[turn % len(MARKERS)], "linewidth": 1.2}
                turn += 1
            axes.plot(range(1, len(means) + 1), means, ms=4, label=name, **look)
        axes.set_title(FAMILIES[index], fontsize=10)
        axes.set_xlabel("tasks learnt")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
        _grid(axes)
    panels[0].set_ylabel("accuracy (%)")
    figure.savefig(path)


def _against_memory(groups: Groups, path: Path) -> None:
    figure = _figure(9.5, 5.5)
    axes = figure.subplots()
    axes.set_title("Average accuracy against the peak memory that learning took")
    axes.set_xlabel("peak resident memory of the whole process (MiB)")
    axes.set_ylabel("average accuracy (%), mean over the seeds")
    found = {
        name: (statistics.fmean(cell["peak_rss_mib"] for cell in cells), *_percent(known))
        for name, cells in groups.items()
        if (known := _known(cells, "average_accuracy"))
    }
    most = max([memory for memory, _, _ in found.values()], default=1.0)
    for name, (memory, mean, deviation) in found.items():
        colour = "black" if name == OURS else COLOURS[family(name)]
        axes.errorbar([memory], [mean], yerr=[deviation], fmt="o", ms=6, color=colour, elinewidth=0.6, alpha=0.9)
    axes.set_xlim(0, 1.45 * most)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= 1.05 * most])
    _names_beside(axes, found, 1.13 * most)
    for index in sorted({family(name) for name in found}):
        axes.plot([], [], "o", color=COLOURS[index], label=FAMILIES[index])
    if OURS in found:
        axes.plot([], [], "o", color="black", label=OURS)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(0.2, 0.5))
    _grid(axes)
    figure.savefig(path)


def _names_beside(axes: Any, found: dict[str, tuple[float, float, float]], x: float) -> None:
    """Each name in one column at ``x``, best on top, with a thin line to its point: points may lie on each other."""
    low, high = axes.get_ylim()
    order = sorted(found, key=lambda name: found[name][1])
    step = (high - low) / max(len(order), 12)
    middle = statistics.fmean([mean for _, mean, _ in found.values()] or [low])
    start = min(max(low, middle - step * len(order) / 2), high - step * len(order))
    for place, name in enumerate(order):
        memory, mean, _ = found[name]
        colour = "black" if name == OURS else COLOURS[family(name)]
        y = start + step * (place + 0.5)
        axes.plot([memory, x], [mean, y], color=colour, linewidth=0.4, alpha=0.6)
        axes.text(x, y, f" {name}  {mean:.1f}", fontsize=7.5, va="center", color=colour)
    axes.set_ylim(low, high)


def _forgetting(groups: Groups, path: Path) -> None:
    found = {name: _percent(known) for name, cells in groups.items() if (known := _known(cells, "forgetting"))}
    order = sorted(found, key=lambda name: found[name][0], reverse=True)
    figure = _figure(8, 1.4 + 0.24 * max(len(order), 4))
    axes = figure.subplots()
    axes.set_title("Forgetting: best accuracy on a task less its last, mean over the earlier tasks", fontsize=10)
    axes.set_xlabel("percentage points")
    colours = ["black" if name == OURS else COLOURS[family(name)] for name in order]
    axes.barh(
        range(len(order)), [found[n][0] for n in order], xerr=[found[n][1] for n in order], color=colours,
        ecolor="0.3", error_kw={"elinewidth": 0.8},
    )  # fmt: skip
    axes.set_yticks(range(len(order)), order, fontsize=8)
    for index in sorted({family(name) for name in found}):
        axes.barh([0], [0], color=COLOURS[index], label=FAMILIES[index])
    if OURS in found:
        axes.barh([0], [0], color="black", label=OURS)
    if order:
        axes.legend(fontsize=8, loc="upper right")
    axes.axvline(0, color="0.3", linewidth=0.8)
    _grid(axes)
    axes.grid(axis="y", visible=False)
    figure.savefig(path)
