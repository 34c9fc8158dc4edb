"""The charts of a run, each one inline SVG that needs nothing else. matplotlib draws them, where it is installed.

Names out of files are never drawn: the font may lack their characters.
"""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_zofc.report.curves import Bucket, Curve, Log
from edge_zofc.report.text import baseline_of, head_alone, percent, points
from edge_zofc.storage.result import RunResult, Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins: each becomes the CSS variable of its name in page.html, so that one SVG serves the light and the dark
# page. Two renderings, one a scheme, would need no stand-ins, but 1.8 times the bytes: 151 instead of 83 kB for 5
# tasks, 811 instead of 456 kB for 200.
VARIABLES = ("ink", "muted", "grid", "learner", "baseline", "third", "limit")
INK, MUTED, GRID, LEARNER, BASELINE, THIRD, LIMIT = STAND_INS = [f"#01010{k}" for k in range(7)]
STYLE: dict[str, Any] = {
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("axes.spines.left", "axes.spines.right", "axes.spines.top", "ytick.left"), False),
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": GRID,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "svg.fonttype": "none",  # letters stay letters, in the font of the page
    "text.color": INK,
}
PLAIN, TALL, WIDE = (5.8, 3.3), (5.8, 3.9), (11.9, 3.5)  # inches; the page scales them
NUMBERED_CELLS = 12  # tasks up to which every cell of the heat map holds its number
VECTOR_CELLS = 24  # tasks up to which cells are vector shapes; beyond, one embedded bitmap is smaller


def draw_charts(result: RunResult, log: Log) -> dict[str, str] | None:
    """Name -> SVG of the charts that the run has data for, safe in a page as they are; None without matplotlib.

    The names, in the order of the page: accuracy, matrix, forgetting, memory, loss.
    """
    # matplotlib warns when the home is not writable and it takes a temporary folder instead.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        from matplotlib import style
    except ImportError:
        return None
    with style.context(["default", STYLE]):  # not the user's own matplotlibrc
        found = {
            "accuracy": _accuracy_chart(result),
            "matrix": _matrix_chart(result),
            "forgetting": _forgetting_chart(result),
            "memory": _memory_chart(result, log),
        }
        # Two charts stand side by side; the loss fills the row that is left.
        others = sum(svg is not None for svg in found.values())
        found["loss"] = _loss_chart(result, log, PLAIN if others % 2 else WIDE)
    return {name: svg for name, svg in found.items() if svg is not None}


def _accuracy_chart(result: RunResult) -> str | None:
    """Accuracy on all seen classes after each task: of the learner, of its head under an adapter that did not move, and
    of the class means.
    """
    alone = head_alone(result)
    lines = [
        ("learner", LEARNER, "o-", result.stage_accuracy),
        ("head alone", THIRD, "^:", alone.stage_accuracy if alone else []),
        ("class means, no training", BASELINE, "s--", baseline_of(result).stage_accuracy),
    ]
    lines = [line for line in lines if _known(line[3])]
    if not lines:
        return None
    figure, axes = _figure(TALL)
    for label, colour, shape, values in lines:
        size = 5 if len(values) <= 25 else 3
        axes.plot(range(1, len(values) + 1), _percents(values), shape, color=colour, ms=size, label=label)
    _mark_ends(axes, [(_percents(values)[-1], len(values), colour) for _, colour, _, values in lines])
    _task_axis(axes, max(len(values) for *_, values in lines))
    axes.set(ylim=(0, 108), yticks=range(0, 101, 20), ylabel="accuracy on all seen classes (%)")
    _legend(axes)
    told = "; ".join(f"{label} ends at {percent(_known(values)[-1])}" for label, *_, values in lines)
    return _svg(figure, f"Line chart of the accuracy on all seen classes after each task: {told}.")


def _matrix_chart(scores: Scores) -> str | None:
    """The accuracy matrix as a heat map, row = after task i, column = on task j; None before a second task."""
    count = len(scores.accuracy_matrix)
    cells = np.full((count, count), math.nan)
    for index, row in enumerate(scores.accuracy_matrix):
        cells[index, : index + 1] = _percents(row)
    if count < 2 or np.isnan(cells).all():
        return None
    figure, axes = _figure(TALL)
    edges, bitmap = np.arange(count + 1) + 0.5, count > VECTOR_CELLS
    mesh = axes.pcolormesh(edges, edges, np.ma.masked_invalid(cells), vmin=0, vmax=100, rasterized=bitmap)
    if not bitmap:
        mesh.set(edgecolor="face", linewidth=0.3)
    axes.grid(visible=False)
    axes.set(ylim=(count + 0.5, 0.5), ylabel="after learning task", aspect="equal")
    _task_axis(axes, count, "accuracy on task", margin=0.5)
    axes.set_yticks(axes.get_xticks())
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    ticks = range(0, 101, 20)
    bar = figure.colorbar(mesh, ax=axes, label="accuracy (%)", fraction=0.045, pad=0.03, ticks=ticks)
    bar.outline.set_visible(False)
    for i, j in np.argwhere(~np.isnan(cells)) if count <= NUMBERED_CELLS else ():
        ink = "white" if cells[i, j] < 60 else "black"
        axes.text(j + 1, i + 1, f"{cells[i, j]:.0f}", ha="center", va="center", color=ink)
    return _svg(figure, f"Heat map of the accuracy matrix of {count} tasks; its numbers are in the table below.")


def _forgetting_chart(result: RunResult) -> str | None:
    """Points that each task lost since its best stage, and their mean; None before a second task."""
    lost, baseline = result.task_forgetting(), baseline_of(result).task_forgetting()
    if not _known(lost):
        return None
    figure, axes = _figure(PLAIN)
    tasks = range(1, len(lost) + 1)
    axes.bar(tasks, _percents(lost), 0.62, color=LEARNER, label="learner")
    if len(baseline) == len(lost) and _known(baseline):
        axes.plot(tasks, _percents(baseline), "s", color=BASELINE, ms=5, label="class means, no training")
    if result.forgetting is not None:
        axes.axhline(100 * result.forgetting, color=LIMIT, lw=1.2, ls="--", label="learner's mean")
    _task_axis(axes, len(lost), "task", margin=0.5)
    top, worst = max([*_known(lost), *_known(baseline)]), max(_known(lost))
    axes.set(ylabel="points lost since the best stage", ylim=(0, max(1.0, 115 * top)))
    _legend(axes)
    return _svg(figure, f"Bar chart of the points that each task lost; the most is {points(worst)}.")


def _memory_chart(result: RunResult, log: Log) -> str | None:
    """Resident memory step by step under the budget; None where no step was logged."""
    curves = [
        ("resident", LEARNER, log.rss_mib),
        ("anonymous", BASELINE, log.anonymous_mib),
        ("file-backed", THIRD, log.file_mib),
    ]
    curves = [entry for entry in curves if entry[2].buckets]
    if not curves:
        return None
    figure, axes = _figure(PLAIN)
    for label, colour, curve in curves:
        axes.plot(*_line(curve, "high"), color=colour, lw=1.8, label=label)
    top = highest = max(bucket.high for *_, curve in curves for bucket in curve.buckets)
    budget, predicted = result.memory_budget_mib, result.predicted_peak_mib
    for name, limit, dashes in (("budget", budget, "-"), ("predicted peak", predicted, ":")):
        # A limit far above would press the curves onto the axis; the cost table has the numbers.
        if limit is not None and limit <= 4 * highest:
            axes.axhline(limit, color=LIMIT, lw=1.6, ls=dashes, label=f"{name} {limit:,.0f} MiB")
            top = max(top, limit)
    axes.set(ylim=(0, max(1.0, 1.08 * top)), ylabel="memory (MiB)")
    _step_axis(axes, result, log)
    under = "" if budget is None else f" under a budget of {budget:,.0f} MiB"
    told = f"Line chart of the memory at every training step{under}; the highest is {highest:,.0f} MiB."
    return _svg(figure, told)


def _loss_chart(result: RunResult, log: Log, size_inches: tuple[float, float]) -> str | None:
    """Loss of every step, faint, and its running mean within each task; None where no step was logged."""
    if not log.loss.buckets:
        return None
    smooth = _running_mean(log.loss.buckets, [step for step, _ in log.task_starts])
    figure, axes = _figure(size_inches)
    steps, means = _line(log.loss, "mean")
    thinned = log.loss.stride > 1
    if thinned:
        lows, highs = _line(log.loss, "low")[1], _line(log.loss, "high")[1]
        axes.fill_between(steps, lows, highs, color=LEARNER, alpha=0.18, lw=0, label="range")
    axes.plot(steps, means, color=LEARNER, alpha=0.4, lw=0.9, label="mean" if thinned else "each step")
    axes.plot(steps, smooth, color=BASELINE, label="running mean within a task")
    _loss_axis(axes, log.loss.buckets)
    _step_axis(axes, result, log)
    return _svg(figure, f"Line chart of the training loss over steps; it ends at {smooth[-1]:.3g}.")


def _running_mean(buckets: Sequence[Bucket], starts: Sequence[int]) -> list[float]:
    """Exponential mean over about a twelfth of a task, begun anew at every task's first step."""
    keep = 1 - 1 / max(2.0, len(buckets) / (12 * max(1, len(starts))))
    values: list[float] = []
    upcoming = 0
    for bucket in buckets:
        fresh = not values
        while upcoming < len(starts) and starts[upcoming] <= bucket.first:
            upcoming, fresh = upcoming + 1, True
        values.append(bucket.mean if fresh else keep * values[-1] + (1 - keep) * bucket.mean)
    return values


def _line(curve: Curve, what: str) -> tuple[list[int], list[float]]:
    return [bucket.first for bucket in curve.buckets], [getattr(bucket, what) for bucket in curve.buckets]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _percents(values: Sequence[float | None]) -> list[float]:
    """Fractions in percent; NaN, which is a gap in a line, for None."""
    return [math.nan if value is None else 100 * value for value in values]


def _mark_ends(axes: Axes, ends: Sequence[tuple[float, int, str]]) -> None:
    """Write the last value of every line, given as (y, x, colour): of the highest above, of the lowest below, of one
    between them beside it.
    """
    known = sorted(end for end in ends if not math.isnan(end[0]))
    for rank, (y, x, colour) in enumerate(known):
        offset, side = (0, 7), "center"
        if rank < len(known) - 1:
            offset, side = ((0, -14), "center") if rank == 0 else ((7, -3), "left")
        axes.annotate(f"{y:.1f}", (x, y), offset, textcoords="offset points", color=colour, ha=side)


def _legend(axes: Axes, lift: float = 0.0) -> None:
    entries = zip(*axes.get_legend_handles_labels(), strict=True)
    handles, labels = zip(*sorted(entries, key=lambda entry: entry[1] != "learner"), strict=True)
    columns, corner = 2 if len(labels) == 4 else 3, (-0.02, 1.0 + lift)
    axes.legend(handles, labels, loc="lower left", bbox_to_anchor=corner, ncols=columns, columnspacing=1.4)


def _task_axis(axes: Axes, count: int, label: str = "after task", margin: float = 0.3) -> None:
    every = 1 if count <= 12 else next(e for e in (5, 10, 20, 50, 100, 10 * count) if count / e <= 8)
    axes.set(xlim=(1 - margin, count + margin), xlabel=label)
    axes.set_xticks(sorted({1, *range(every, count + 1, every)}))


def _loss_axis(axes: Axes, buckets: Sequence[Bucket]) -> None:
    """From zero, or logarithmic where the highest loss would press the others onto the axis."""
    from matplotlib.ticker import LogLocator

    axes.set(ylabel="cross-entropy (nats)")
    lowest, highest = min(bucket.low for bucket in buckets), max(bucket.high for bucket in buckets)
    middle = sorted(bucket.mean for bucket in buckets)[len(buckets) // 2]
    if lowest <= 0 or highest <= 20 * middle:
        axes.set_ylim(bottom=min(0.0, lowest))
        return
    axes.set_yscale("log")
    # matplotlib's own labels are formulas with exponents; these are plain: 0.1, 1, 10.
    axes.yaxis.set_major_formatter("{x:g}")
    if highest <= 500 * lowest:  # few powers of ten, perhaps one: 2 and 5 stand between them
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter("")


def _step_axis(axes: Axes, result: RunResult, log: Log) -> None:
    """Label the step axis, mark where tasks begin and put the legend above those marks."""
    axes.locator_params(axis="x", nbins=7, integer=True)
    minutes = "" if result.seconds is None else f" ({result.seconds / 60:,.1f} minutes in all)"
    axes.set(xlabel=f"training step{minutes}")
    every = max(1, math.ceil(len(log.task_starts) / 10))
    for index, (step, task) in enumerate(log.task_starts):
        if len(log.task_starts) <= 60:
            axes.axvline(step, color=GRID, lw=0.8, zorder=0)
        if index % every == 0 and len(log.task_starts) > 1:
            name, top = f"task {task + 1}" if index == 0 else f"{task + 1}", axes.get_xaxis_transform()
            axes.annotate(name, (step, 1), (0, 2), top, "offset points", color=MUTED, size=7)
    _legend(axes, lift=0.04)


def _figure(size_inches: tuple[float, float]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_inches, layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure, description: str) -> str:
    """The figure as inline SVG in the colours of the page, as wide as its place."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # Ids of one page must differ between charts, and a report must not differ between two writings.
    with rc_context({"svg.hashsalt": description}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing, dpi=200)
    text = buffer.getvalue()
    for stand_in, name in zip(STAND_INS, VARIABLES, strict=True):
        text = text.replace(stand_in, f"var(--{name})")
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # "figure_1", "axes_1" ... would stand in every chart
    width, height = 72 * figure.get_size_inches()
    opening = f'<svg role="img" aria-label="{escape(description)}" viewBox="0 0 {width:g} {height:g}">'
    return opening + text[text.index(">", text.index("<svg")) + 1 :].strip()
