"""The columns of the cost benchmarks, and what each of them prints and writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.tables import Columns, as_markdown, for_terminal, write_json

COLUMNS: dict[str, Columns] = {
    "deployed": {
        "file": ("file", ""),
        "mib": ("MiB", ".1f"),
        "right": ("right", "d"),
        "pictures": ("of", "d"),
        "accuracy": ("accuracy", ".1%"),
        "changed": ("other answer than float32", "d"),
        "lost": ("right to wrong", "d"),
        "won": ("wrong to right", "d"),
    },
    "deployed-speed": {
        "threads": ("threads", ""),
        "micro_batch": ("b", "d"),
        "float_ms": ("float32, ms", ".1f"),
        "int8_ms": ("int8, ms", ".1f"),
        "ratio": ("float32 / int8", ".2f"),
        "ratio_fastest": ("of the fastest rounds", ".2f"),
    },
    "estimators-costs": {
        "title": ("arm", ""),
        "bundle": ("bundle", ""),
        "batch_size": ("batch", "d"),
        "micro_batch": ("b", ""),
        "parallel_queries": ("K", ""),
        "peak_rss_mib": ("peak RSS MiB", ".0f"),
        "over_inference": ("x inference", ".2f"),
        "above_base_mib": ("above its imports", ".0f"),
        "peak_anonymous_mib": ("anonymous", ".0f"),
        "peak_file_mib": ("file-backed", ".0f"),
        "predicted_peak_mib": ("predicted peak", ".0f"),
        "seconds_per_step": ("s a step", ".2f"),
        "image_forwards": ("image-forwards a step", "d"),
    },
    "estimators-curve": {
        "arm": ("arm", ""),
        "bundle": ("bundle", ""),
        "score": ("score", ""),
        "steps": ("steps", "d"),
        "at_rest": ("at rest", ".4f"),
        "accuracy": ("learnt", ".4f"),
        "gain": ("gain, points", "+.1f"),
        "gains": ("of single seeds", ""),
        "seconds": ("s of all steps", ".0f"),
        "image_forwards": ("image-forwards", ".0f"),
        "half_step_seconds": ("s to half of the exact gain", ".0f"),
        "half_image_forwards": ("image-forwards to half", ".0f"),
        "most_step_seconds": ("s to 90 %", ".0f"),
        "most_image_forwards": ("image-forwards to 90 %", ".0f"),
    },
    "estimators-limits": {
        "title": ("arm", ""),
        "bundle": ("bundle", ""),
        "batch_size": ("batch", "d"),
        "limit_mib": ("lowest cgroup MiB", "d"),
        "charged_mib": ("charged", ".0f"),
        "peak_rss_without_limit_mib": ("peak RSS without limit", ".0f"),
        "seconds": ("seconds", ".1f"),
        "seconds_without_limit": ("without limit", ".1f"),
    },
    "estimators-points": {
        "arm": ("arm", ""),
        "bundle": ("bundle", ""),
        "steps": ("steps", "d"),
        "seeds": ("seeds", "d"),
        "average_accuracy": ("average accuracy", ".4f"),
        "average_accuracy_gain": ("gain", "+.4f"),
        "last_accuracy": ("last accuracy", ".4f"),
        "last_accuracy_gain": ("gain", "+.4f"),
        "step_seconds": ("s of the steps", ".1f"),
        "image_forwards": ("image-forwards", ".0f"),
        "peak_rss_mib": ("peak RSS MiB", ".0f"),
    },
    "memory": {
        "title": ("arm", ""),
        "peak_rss_mib": ("peak RSS MiB", ".0f"),
        "peak_anonymous_mib": ("anonymous", ".0f"),
        "peak_file_mib": ("file-backed", ".0f"),
        "base_mib": ("base of the process", ".0f"),
        "increment_mib": ("increment", ".0f"),
        "ratio": ("peak / ZO-FC in place", ".2f"),
        "seconds_per_step": ("s a step", ".2f"),
    },
    "memory-limits": {
        "bundle": ("bundle", ""),
        "precision": ("precision", ""),
        "head": ("head", ""),
        "limit_mib": ("cgroup limit MiB", "d"),
        "ending": ("ending", ""),
        "seconds": ("seconds", ".1f"),
        "seconds_without_limit": ("without limit", ".1f"),
        "predicted_peak_mib": ("predicted peak MiB", ".0f"),
        "peak_rss_without_limit_mib": ("peak RSS without limit", ".0f"),
        "peak_rss_mib": ("peak RSS", ".0f"),
        "peak_anonymous_mib": ("anonymous", ".0f"),
        "cgroup_peak_mib": ("charged", "d"),
    },
    "memory-against-predict": {
        "bundle": ("bundle", ""),
        "head": ("head", ""),
        "micro_batch": ("b", "d"),
        "learn_mib": ("learn, peak RSS MiB", ".1f"),
        "predict_mib": ("predict, peak RSS MiB", ".1f"),
        "ratio": ("learn / predict", ".2f"),
    },
    "memory-flat": {
        "bundle": ("bundle", ""),
        "way": ("way", ""),
        "varied": ("varied", ""),
        "value": ("value", "d"),
        "peak_rss_mib": ("peak RSS MiB", ".1f"),
        "peak_anonymous_mib": ("anonymous", ".1f"),
        "growth": ("growth", "+.1%"),
    },
    "plan-accuracy": {
        "bundle": ("bundle", ""),
        "micro_batch": ("b", "d"),
        "parallel_queries": ("K", "d"),
        "head": ("head", ""),
        "arena": ("arena", ""),
        "predicted_mib": ("predicted MiB", ".0f"),
        "measured_mib": ("measured MiB", ".0f"),
        "error": ("error", "+.1%"),
    },
    "speed-profile": {
        "bundle": ("bundle", ""),
        "micro_batch": ("b", "d"),
        "parallel_queries": ("K", "d"),
        "operator": ("operator", ""),
        "milliseconds": ("ms a run", ".2f"),
        "share": ("share", ".1%"),
    },
    "speed": {
        "title": ("arm", ""),
        "seconds_per_step": ("s a step (median)", ".3f"),
        "spread": ("fastest to slowest", ""),
        "above_forward": ("above the forward passes", ".1%"),
        "to_first_order": ("/ first order", ".2f"),
        "spsa_to_this": ("torch SPSA / this", ".2f"),
        "to_first_order_fastest": ("/ first order, fastest rounds", ".2f"),
        "spsa_to_this_fastest": ("torch SPSA / this, fastest rounds", ".2f"),
    },
}


def show(data: dict[str, Any], out: Path | None, as_json: bool) -> None:
    """Print the table (or JSON) and write NAME.json, NAME.md and, for "memory", NAME.png below ``out``."""
    name = data["benchmark"]
    columns = COLUMNS[name]
    print(  # noqa: T201 - the program's output
        json.dumps(data) if as_json else f"{for_terminal(columns, data['rows'])}\n\n{data['caption']}"
    )
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{name}.json", data)
    (out / f"{name}.md").write_text(f"{as_markdown(columns, data['rows'])}\n{data['caption']}\n")
    if name == "memory":
        draw_memory(data, out / "memory.png")


def draw_memory(data: dict[str, Any], path: Path) -> None:
    """Stacked bars: what the process costs before it has a model, and what model and training add."""
    from matplotlib.figure import Figure

    rows = [row for row in data["rows"] if not row["failed"]]
    figure = Figure(figsize=(10, 1.6 + 0.45 * len(rows)), dpi=120, layout="constrained")
    axes = figure.subplots()
    names = [row["title"] for row in rows]
    base, more = [row["base_mib"] for row in rows], [row["increment_mib"] for row in rows]
    axes.barh(names, base, color="#b8c4ce", label="the process with its libraries, before there is a model")
    axes.barh(names, more, left=base, color="#1f6f8b", label="added by the model and by training")
    for index, row in enumerate(rows):
        ratio = "" if row["ratio"] is None else f"  ({row['ratio']:.2f} x)"
        axes.text(row["peak_rss_mib"], index, f" {row['peak_rss_mib']:.0f}{ratio}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(row["peak_rss_mib"] for row in rows))
    axes.set_xlabel(
        "peak resident memory of the whole process, MiB (in brackets: over that of ZO-FC in place, torch head)"
    )
    axes.set_title("What one step takes in memory", loc="left")
    axes.legend(loc="upper right", fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(data["caption"], x=0.01, ha="left", fontsize=7)
    figure.savefig(path, bbox_inches="tight")
