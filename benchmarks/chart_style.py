"""How the README's charts look: no background, and colours that are readable on white and on dark pages."""

from __future__ import annotations

from typing import Any

# Contrast on white and on GitHub's dark page #0d1117: text above 4, bars and points above 3.
TEXT, BLUE, GREY = "#777b82", "#1a7fc4", "#8a8f98"
STYLE: dict[Any, Any] = {  # matplotlib's types have one for each key
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 10,
    "svg.fonttype": "none",  # letters stay letters: small, searchable, and read aloud
    "svg.hashsalt": "edge-zofc",  # the same file on each run
    "text.color": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
}
