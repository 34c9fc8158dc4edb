"""Finished cells -> one table, as text, Markdown, CSV and JSON.

A number of several seeds is "mean ± standard deviation", of the population of n seeds. Costs are means. ``-`` is a
number that the stream does not define, such as the forgetting of one task.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.methods.names import METHODS
from edge_zofc.benchmarks.tables import as_markdown, for_terminal, write_csv, write_json

ACCURACIES = {
    "average_accuracy": "Average",
    "last_accuracy": "Last",
    "forgetting": "Forgetting",
    "mean_per_class_accuracy": "Per class",
}
COSTS = {
    "epochs": "Epochs",
    "trained_parameters": "Parameters a task",
    "forward_passes": "Image-forwards",
    "backward_passes": "Image-backwards",
    "seconds": "Seconds",
    "peak_rss_mib": "Peak RSS MiB",
}
COLUMNS = {
    "method": ("Method", ""),
    **{key: (heading, "") for key, heading in ACCURACIES.items()},
    **{key: (heading, ",.0f") for key, heading in COSTS.items()},
}


def summarise_cells(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a method, in the order of METHODS: accuracies as {"mean", "std"} or None, costs as means."""
    rows: list[dict[str, Any]] = []
    for name in METHODS:
        mine = [cell for cell in cells if cell["method"] == name]
        if not mine:
            continue
        row: dict[str, Any] = {"method": name, "seeds": len(mine)}
        for key in ACCURACIES:
            values = [cell[key] for cell in mine if cell[key] is not None]
            row[key] = {"mean": statistics.fmean(values), "std": statistics.pstdev(values)} if values else None
        row["epochs"] = mine[0]["training"].get("epochs", 0)
        row["trained_parameters"] = max(mine[0]["trainable_parameters"])
        for key in ("forward_passes", "backward_passes", "seconds", "peak_rss_mib"):
            row[key] = round(statistics.fmean(cell[key] for cell in mine), 1)
        rows.append(row)
    return rows


def write_tables(cells: list[dict[str, Any]], settings: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    """Write accuracy.json, accuracy.csv and accuracy.md into ``out``; returns the rows."""
    rows = summarise_cells(cells)
    write_json(out / "accuracy.json", {"settings": settings, "rows": rows, "cells": cells})
    text = f"{title(settings)}\n\n{as_markdown(COLUMNS, _shown(rows))}"
    (out / "accuracy.md").write_text(text, encoding="utf-8")
    spread = [f"{key}_{part}" for key in ACCURACIES for part in ("mean", "std")]
    write_csv(out / "accuracy.csv", ["method", "seeds", *spread, *COSTS], [_flat(row) for row in rows])
    return rows


def terminal(rows: list[dict[str, Any]]) -> str:
    """The table for a terminal."""
    return for_terminal(COLUMNS, _shown(rows))


def title(settings: dict[str, Any]) -> str:
    """What the table was run with, in one line."""
    said = ", ".join(
        f"{key.replace('_', ' ')} {settings[key]}"
        for key in ("preset", "class_order", "batch_size", "search", "threads")
        if settings.get(key) is not None
    )
    budget = "equal image-forwards for head and fo-fc" if settings["epoch_factor"] > 1 else "epochs as listed"
    return f"Stream {Path(settings['stream']).name}: {said}; {budget}; accuracies in percent."


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, **{key: _percent(row[key], row["seeds"]) for key in ACCURACIES}} for row in rows]


def _percent(value: dict[str, float] | None, seeds: int) -> str | None:
    if value is None:
        return None
    return f"{100 * value['mean']:.1f}" + (f" ± {100 * value['std']:.1f}" if seeds > 1 else "")


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """The row with a key of its own for each mean and each standard deviation."""
    spread = {f"{key}_{part}": value for key in ACCURACIES for part, value in (row[key] or {}).items()}
    return {**row, **spread}
