"""The pictures of a run, each one inline SVG.

The surprise: nothing is drawn in a colour. Every stroke and letter gets a stand-in such as ``#010101``, which
becomes a CSS variable in the finished SVG, so that one picture serves the light and the dark page. Letters
stay letters (no outlines). Task names are never drawn: fonts lack their characters, ``$`` starts a formula.
The colours behind the variables are Okabe and Ito's (jfly.uni-koeln.de/color), which colour-blind readers can
tell apart.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from edge_zofc.report.curves import Bucket, Curve, Log
from edge_zofc.storage.result import RunResult, Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#010101", "#020202", "#030303"
LEARNER, FLOOR, THIRD, LIMIT = "#040404", "#050505", "#060606", "#070707"
STAND_INS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    LEARNER: "var(--learner)",
    FLOOR: "var(--floor)",
    THIRD: "var(--third)",
    LIMIT: "var(--limit)",
}
STYLE = {
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.left": False,
}
PLAIN, TALL, WIDE = (5.8, 3.3), (5.8, 3.9), (11.9, 3.5)  # inches; the page scales them
NUMBERED_CELLS = 12  # tasks up to which every cell of the heat map holds its number
VECTOR_CELLS = 24  # tasks up to which cells are vector shapes; beyond, one embedded bitmap is smaller


@dataclass(frozen=True)
class Chart:
    """One picture: ``svg`` is markup that is safe to place in a page as it is."""

    title: str
    caption: str
    svg: str
    wide: bool = False


def accuracy_chart(result: RunResult) -> Chart | None:
    """Accuracy on all seen classes after each task, learner and class-mean floor; None without accuracies."""
    floor = result.class_mean_floor
    series = [("learner", LEARNER, "o", result.stage_accuracy)]
    if floor is not None:
        series.append(("class means, no training", FLOOR, "s", floor.stage_accuracy))
    series = [entry for entry in series if _known(entry[3])]
    if not series:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        ends = []
        for label, colour, marker, values in series:
            percent = [math.nan if value is None else 100 * value for value in values]
            style = "-" if colour == LEARNER else "--"
            size = 5 if len(percent) <= 25 else 3
            axes.plot(
                range(1, len(percent) + 1), percent, style, color=colour, marker=marker, ms=size, label=label
            )
            ends.append((len(percent), percent[-1], colour))
        _mark_ends(axes, ends)
        _task_axis(axes, max(len(values) for *_, values in series))
        axes.set(ylim=(0, 108), yticks=range(0, 101, 20), ylabel="accuracy on all seen classes (%)")
        _legend(axes)

    words = "; ".join(f"{label} ends at {_percent(_known(values)[-1])}" for label, *_, values in series)
    return Chart(
        "Accuracy on all seen classes",
        "Every point answers over all classes seen so far, so the question gets harder from task to task.",
        _svg(draw, f"Line chart of the accuracy on all seen classes after each task: {words}.", TALL),
    )


def matrix_chart(scores: Scores) -> Chart | None:
    """The accuracy matrix as a heat map, row = after task i, column = on task j; None before a second one."""
    import matplotlib
    import numpy as np

    count = len(scores.accuracy_matrix)
    cells = np.full((count, count), np.nan)
    for index, row in enumerate(scores.accuracy_matrix):
        cells[index, : index + 1] = [math.nan if value is None else 100 * value for value in row]
    if count < 2 or np.isnan(cells).all():
        return None
    colours = matplotlib.colormaps["viridis"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        edges = np.arange(count + 1) + 0.5
        mesh = axes.pcolormesh(
            edges,
            edges,
            np.ma.masked_invalid(cells),
            cmap=colours,
            vmin=0,
            vmax=100,
            rasterized=count > VECTOR_CELLS,
        )
        if count <= VECTOR_CELLS:
            mesh.set(edgecolor="face", linewidth=0.3)
        axes.grid(visible=False)
        axes.set(ylim=(count + 0.5, 0.5), ylabel="after learning task", aspect="equal")
        _task_axis(axes, count, "accuracy on task", margin=0.5)
        axes.set_yticks(axes.get_xticks())
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(length=0)
        bar = figure.colorbar(
            mesh, ax=axes, label="accuracy (%)", fraction=0.045, pad=0.03, ticks=range(0, 101, 20)
        )
        bar.outline.set_visible(False)
        if count <= NUMBERED_CELLS:
            for i, j in zip(*np.nonzero(~np.isnan(cells)), strict=True):
                ink = "white" if cells[i, j] < 60 else "black"
                axes.text(j + 1, i + 1, f"{cells[i, j]:.0f}", ha="center", va="center", color=ink, size=9)

    return Chart(
        "Accuracy on every task after every task",
        "A column is one task's life: its first cell is how well it was learnt, its lowest what is left.",
        _svg(
            draw,
            f"Heat map of the accuracy matrix of {count} tasks; its numbers are in the table below.",
            TALL,
        ),
    )


def forgetting_chart(result: RunResult) -> Chart | None:
    """Points that each task lost since its best stage, and their mean; None before a second task."""
    lost = result.task_forgetting()
    if not _known(lost):
        return None
    floor = [] if result.class_mean_floor is None else result.class_mean_floor.task_forgetting()

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        x = range(1, len(lost) + 1)
        axes.bar(
            x,
            [math.nan if value is None else 100 * value for value in lost],
            0.62,
            color=LEARNER,
            label="learner",
        )
        if len(floor) == len(lost) and _known(floor):
            points = [math.nan if value is None else 100 * value for value in floor]
            axes.plot(x, points, "s", color=FLOOR, ms=5, mec="none", label="class means, no training")
        if result.forgetting is not None:
            axes.axhline(100 * result.forgetting, color=LIMIT, lw=1.2, ls="--", label="learner's mean")
        _task_axis(axes, len(lost), "task", margin=0.5)
        top = max([100 * value for value in [*_known(lost), *_known(floor)]])
        axes.set(ylabel="points lost since the best stage", ylim=(0, max(1.0, 1.15 * top)))
        _legend(axes)

    worst = max(_known(lost))
    return Chart(
        "Forgetting per task",
        "A task's best accuracy minus its accuracy at the end; the last task has nothing to forget yet.",
        _svg(draw, f"Bar chart of the points that each task lost; the most is {100 * worst:.1f} points."),
    )


def memory_chart(result: RunResult, log: Log) -> Chart | None:
    """Resident memory step by step under the budget; None where no step was logged."""
    curves = [
        ("resident", LEARNER, log.rss_mib),
        ("anonymous", FLOOR, log.anonymous_mib),
        ("file-backed", THIRD, log.file_mib),
    ]
    curves = [entry for entry in curves if entry[2].buckets]
    if not curves:
        return None
    highest = max(bucket.high for *_, curve in curves for bucket in curve.buckets)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        top = highest
        for label, colour, curve in curves:
            axes.plot(*_points(curve, "high"), color=colour, lw=1.8, label=label)
        for name, limit, style in (
            ("budget", result.memory_budget_mib, "-"),
            ("predicted peak", result.predicted_peak_mib, ":"),
        ):
            # A limit far above would press the curves onto the axis; the cost table has the numbers.
            if limit is not None and limit <= 4 * highest:
                axes.axhline(limit, color=LIMIT, lw=1.6, ls=style, label=f"{name} {limit:,.0f} MiB")
                top = max(top, limit)
        axes.set(ylim=(0, max(1.0, 1.08 * top)), ylabel="memory (MiB)")
        _step_axis(axes, result, log)

    budget = (
        "" if result.memory_budget_mib is None else f" under a budget of {result.memory_budget_mib:,.0f} MiB"
    )
    return Chart(
        "Memory of the process",
        "Anonymous memory is what the process holds; file-backed pages (mapped weights) can be dropped.",
        _svg(
            draw,
            f"Line chart of the memory at every training step{budget}; the highest is {highest:,.0f} MiB.",
        ),
    )


def loss_chart(result: RunResult, log: Log, wide: bool = False) -> Chart | None:
    """Loss of every step, faint, and its running mean within each task; None where no step was logged."""
    buckets = log.loss.buckets
    if not buckets:
        return None
    smooth = _running_mean(buckets, [step for step, _ in log.task_starts])
    middle = sorted(bucket.mean for bucket in buckets)[len(buckets) // 2]
    highest = max(bucket.high for bucket in buckets)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        steps, means = _points(log.loss, "mean")
        if log.loss.stride > 1:
            lows, highs = _points(log.loss, "low")[1], _points(log.loss, "high")[1]
            axes.fill_between(steps, lows, highs, color=LEARNER, alpha=0.18, lw=0, label="range")
        axes.plot(
            steps,
            means,
            color=LEARNER,
            alpha=0.4,
            lw=0.9,
            label="each step" if log.loss.stride == 1 else "mean",
        )
        axes.plot(steps, smooth, color=FLOOR, lw=2, label="running mean within a task")
        if min(bucket.low for bucket in buckets) > 0 and highest > 20 * middle:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=min(0.0, min(bucket.low for bucket in buckets)))
        axes.set(ylabel="cross-entropy (nats)")
        _step_axis(axes, result, log)

    return Chart(
        "Training loss",
        "The loss starts anew with each task (thin upright lines): a cosine head's covers that task's classes, "
        "a solved head's every class seen.",
        _svg(
            draw,
            f"Line chart of the training loss over steps; it ends at {smooth[-1]:.3g}.",
            WIDE if wide else PLAIN,
        ),
        wide,
    )


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


def _points(curve: Curve, what: str) -> tuple[list[int], list[float]]:
    return [bucket.first for bucket in curve.buckets], [getattr(bucket, what) for bucket in curve.buckets]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _mark_ends(axes: Axes, ends: Sequence[tuple[int, float, str]]) -> None:
    """Write the last value of every line, given as (x, y, colour), above it, and below for the lowest of two."""
    for rank, (y, x, colour) in enumerate(
        sorted((y, x, colour) for x, y, colour in ends if not math.isnan(y))
    ):
        offset = (0, -14 if rank == 0 and len(ends) > 1 else 7)
        axes.annotate(f"{y:.1f}", (x, y), offset, textcoords="offset points", color=colour, ha="center")


def _legend(axes: Axes, lift: float = 0.0) -> None:
    entries = sorted(
        zip(*axes.get_legend_handles_labels(), strict=True), key=lambda entry: entry[1] != "learner"
    )
    handles, labels = zip(*entries, strict=True)
    columns = 2 if len(labels) == 4 else 3
    corner = (-0.02, 1.0 + lift)
    axes.legend(handles, labels, loc="lower left", bbox_to_anchor=corner, ncols=columns, columnspacing=1.4)


def _task_axis(axes: Axes, count: int, label: str = "after task", margin: float = 0.3) -> None:
    every = 1 if count <= 12 else next(e for e in (5, 10, 20, 50, 100, 10 * count) if count / e <= 8)
    axes.set(xlim=(1 - margin, count + margin), xlabel=label)
    axes.set_xticks(sorted({1, *range(every, count + 1, every)}))


def _step_axis(axes: Axes, result: RunResult, log: Log) -> None:
    """Label the step axis, mark where tasks begin and put the legend above those marks."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    minutes = "" if result.seconds is None else f" ({result.seconds / 60:,.1f} minutes in all)"
    axes.set(xlabel=f"training step{minutes}")
    every = max(1, math.ceil(len(log.task_starts) / 10))
    for index, (step, task) in enumerate(log.task_starts):
        if len(log.task_starts) <= 60:
            axes.axvline(step, color=GRID, lw=0.8, zorder=0)
        if index % every == 0 and len(log.task_starts) > 1:
            axes.annotate(
                f"task {task + 1}" if index == 0 else f"{task + 1}",
                xy=(step, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 2),
                textcoords="offset points",
                color=MUTED,
                size=7,
            )
    _legend(axes, lift=0.04)


def _svg(draw: Callable[[Figure], None], description: str, size_inches: tuple[float, float] = PLAIN) -> str:
    """Let ``draw`` fill a figure and return it as themed inline SVG that scales with the page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Ids of one page must differ between pictures, and a report must not differ between two writings.
    style: Any = {**STYLE, "svg.hashsalt": description}  # newer matplotlibs type every key, older ones none
    with rc_context(style):
        figure = Figure(figsize=size_inches, layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing, dpi=200)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for stand_in, variable in STAND_INS.items():
        text = text.replace(stand_in, variable)
    text = re.sub(
        r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL
    )  # would rule the whole page
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # "figure_1", "axes_1" ... would stand in every picture
    text = text.replace("'DejaVu Sans'", "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans'")
    width, tall = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)[0]
    opening = f'<svg role="img" aria-label="{escape(description)}" viewBox="0 0 {width} {tall}">'
    return opening + text[text.index(">") + 1 :].strip()
