"""Finished cells -> one table, as text, Markdown, CSV and JSON.

What may surprise: a number of several seeds is "mean ± standard deviation" (of the population, n seeds), and costs
are means. ``-`` is a number that the stream does not define (the forgetting of one task).
"""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.methods.names import METHODS

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
            row[key] = (
                {"mean": statistics.fmean(values), "std": statistics.pstdev(values)} if values else None
            )
        row["epochs"] = mine[0]["training"].get("epochs", 0)
        row["trained_parameters"] = max(mine[0]["trainable_parameters"])
        for key in ("forward_passes", "backward_passes", "seconds", "peak_rss_mib"):
            row[key] = round(statistics.fmean(cell[key] for cell in mine), 1)
        rows.append(row)
    return rows


def write_tables(cells: list[dict[str, Any]], settings: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    """Write accuracy.json, accuracy.csv and accuracy.md into ``out``; returns the rows."""
    rows = summarise_cells(cells)
    text = json.dumps({"settings": settings, "rows": rows, "cells": cells}, indent=1)
    (out / "accuracy.json").write_text(text + "\n", encoding="utf-8")
    (out / "accuracy.md").write_text(markdown(rows, settings), encoding="utf-8")
    with (out / "accuracy.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        spread = [f"{key}_{part}" for key in ACCURACIES for part in ("mean", "std")]
        writer.writerow(["method", "seeds", *spread, *COSTS])
        for row in rows:
            values = [(row[key] or {}).get(part, "") for key in ACCURACIES for part in ("mean", "std")]
            writer.writerow([row["method"], row["seeds"], *values, *(row[key] for key in COSTS)])
    return rows


def terminal(rows: list[dict[str, Any]]) -> str:
    """The table for a terminal, columns aligned."""
    lines = [["Method", *ACCURACIES.values(), *COSTS.values()], *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(w) if i == 0 else text.rjust(w)
            for i, (text, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def markdown(rows: list[dict[str, Any]], settings: dict[str, Any]) -> str:
    """The table in Markdown, with what it was run with."""
    names = ["Method", *ACCURACIES.values(), *COSTS.values()]
    said = ", ".join(
        f"{key.replace('_', ' ')} {settings[key]}"
        for key in ("preset", "class_order", "batch_size", "search", "threads")
        if settings.get(key) is not None
    )
    budget = "equal image-forwards for head and fo-fc" if settings["epoch_factor"] > 1 else "epochs as listed"
    lines = [
        f"Stream {Path(settings['stream']).name}: {said}; {budget}; accuracies in percent.",
        "",
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
        *("| " + " | ".join(_cells(row)) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        str(row["method"]),
        *(_percent(row[key], row["seeds"]) for key in ACCURACIES),
        *(f"{row[key]:,.0f}" for key in COSTS),
    ]


def _percent(value: dict[str, float] | None, seeds: int) -> str:
    if value is None:
        return "-"
    return f"{100 * value['mean']:.1f}" + (f" ± {100 * value['std']:.1f}" if seeds > 1 else "")
