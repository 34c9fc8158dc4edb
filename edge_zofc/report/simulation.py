"""The picture of a simulated fleet: accuracy over rounds, as PNG. Needs matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The light colours of page.html.
_INK, _MUTED, _GRID, _BLUE, _ORANGE, _GREEN, _PURPLE = (
    "#1b1f24", "#5b6572", "#e3e7ec", "#0072b2", "#d55e00", "#008f68", "#9a3d7c",
)  # fmt: skip
_STYLE: dict[str, Any] = {
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _MUTED),
    **dict.fromkeys(("axes.spines.left", "axes.spines.right", "axes.spines.top", "ytick.left"), False),
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.facecolor": "white",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": _GRID,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "text.color": _INK,
}
_LINES = {
    "honest": ("without the hostile ones", _GREEN, "^-"),
    "capped": ("with a cap of {cap:g}", _ORANGE, "s--"),
    "shares": ("as it is", _BLUE, "o-"),
}


def accuracy_png(
    title: str, scores: Mapping[str, Sequence[float | None]], cap: float, alone: float, whole: float
) -> bytes:
    """A line for each of ``scores`` ("shares", "capped", "honest"), fractions by round, and two levels beside them.

    ``alone``: of the devices for themselves, ``whole``: of one device with all pictures.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):  # not the user's own matplotlibrc
        figure = Figure(figsize=(7.2, 4.0), dpi=150, layout="constrained")
        axes = figure.subplots()
        rounds = max(map(len, scores.values()))
        for name, (label, colour, shape) in _LINES.items():
            if name in scores:
                values = [math.nan if value is None else 100 * value for value in scores[name]]
                size = 5 if rounds <= 25 else 3
                axes.plot(range(1, rounds + 1), values, shape, color=colour, ms=size, label=label.format(cap=cap))
        levels = ("one device with all pictures", whole, _PURPLE, ":"), ("each device alone", alone, _MUTED, "-.")
        for label, level, colour, dashes in levels:
            axes.axhline(100 * level, color=colour, lw=1.3, ls=dashes, label=f"{label}: {100 * level:.1f}")
        axes.set(ylim=(0, None), xlabel="after round", ylabel="accuracy over all classes (%)", title=title)
        _round_axis(axes, rounds)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _round_axis(axes: Axes, rounds: int) -> None:
    every = 1 if rounds <= 12 else next(e for e in (5, 10, 20, 50, 100, 10 * rounds) if rounds / e <= 8)
    axes.set(xlim=(0.7, rounds + 0.3))
    axes.set_xticks(sorted({1, *range(every, rounds + 1, every)}))
