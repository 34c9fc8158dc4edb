"""Run folders as `learn` would leave them, made up from a seed; for the tests of what reads one back."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def scores(tasks: int, seed: int, shift: float, tested: bool = True) -> dict[str, Any]:
    draw = random.Random(seed)

    def accuracy(i: int, j: int) -> float:
        lost = 0.28 * (1 - math.exp((j - i) / 4)) + 0.15 * (1 - math.exp(-i / 6))
        return round(min(1.0, max(0.05, 0.93 + shift - lost + draw.uniform(-0.05, 0.05))), 4)

    if not tested:
        keys = ("average_accuracy", "last_accuracy", "mean_per_class_accuracy", "forgetting", "backward_transfer")
        empty = [[None] * (i + 1) for i in range(tasks)]
        return {"accuracy_matrix": empty, "stage_accuracy": [None] * tasks, **dict.fromkeys(keys)}
    matrix = [[accuracy(i, j) for j in range(i + 1)] for i in range(tasks)]
    stages = [sum(row) / len(row) for row in matrix]
    lost = [max(row[j] for row in matrix[j:]) - matrix[-1][j] for j in range(tasks - 1)]
    gained = [matrix[-1][j] - matrix[j][j] for j in range(tasks - 1)]
    return {
        "accuracy_matrix": matrix,
        "stage_accuracy": stages,
        "average_accuracy": sum(stages) / tasks,
        "last_accuracy": stages[-1],
        "mean_per_class_accuracy": stages[-1] - 0.003,
        "forgetting": sum(lost) / len(lost) if lost else None,
        "backward_transfer": sum(gained) / len(gained) if gained else None,
    }


def mistakes(classes: int, seed: int = 4, tested: bool = True) -> dict[str, Any]:
    """Counts by class and confusion as `learn` would leave them: every class is taken for its neighbours."""
    draw, cells, counted = random.Random(seed), [], []
    for k in range(classes):
        total, left = 36, 36
        for named in sorted({(k + step) % classes for step in (1, 2, 3)} - {k}):
            wrong = draw.randint(0, 9)
            left -= wrong
            cells += [[k, named, wrong]] if wrong else []
        counted.append(
            {
                "train_images": 140 + k,
                "test_images": total if tested else 0,
                "accuracy": left / total if tested else None,
            }
        )
    cells.sort(key=lambda cell: (-cell[2], cell))
    return {"classes": counted, "confusion": cells if tested else None, "wrong_pictures": []}


def make_result(
    tasks: int = 5, tested: bool = True, steps: int = 20, gain: float = 0.1, **changes: Any
) -> dict[str, Any]:
    """`gain`: by how much the learner stands above the class means."""
    return {
        "format_version": 1,
        "edge_zofc": "0.1.0",
        "backbone": "vit_tiny_patch16_96",
        "image_size": 96,
        "feature_size": 192,
        "bundle_identity": "5e" * 32,
        "stream": "digits",
        "preset": "edge",
        "options": {"epochs": 4, "batch_size": 48, "eps": 2**-10, "normalise": True, "max_steps": None},
        "class_names": [f"digit {k}" for k in range(2 * tasks)],
        "tasks": [
            {
                "name": f"{t:03d}_pair",
                "class_ids": [2 * t, 2 * t + 1],
                "train_images": 280 + t,
                "test_images": 72 if tested else 0,
                "skipped_images": 0,
                "steps": steps,
                "seconds": 21.5,
                "first_loss": 0.693,
                "last_loss": 0.051,
            }
            for t in range(tasks)
        ],
        **scores(tasks, 1, 0.0, tested),
        "forgetting_definition": "mean over tasks but the last of (best accuracy - last accuracy)",
        "class_mean_floor": scores(tasks, 2, -gain, tested),
        "beats_class_mean_floor": gain > 0 if tested else None,
        "steps": tasks * steps,
        "forward_passes": tasks * steps * 240,
        "evaluation_forward_passes": 1_440,
        "floor_forward_passes": 1_400,
        "seconds": 24.0 * tasks,
        "seconds_per_step": 0.55,
        "peak_rss_mib": 431.2,
        "peak_anonymous_mib": 300.4,
        "peak_file_mib": 131.9,
        "predicted_peak_mib": 462.0,
        "memory_budget_mib": 512.0,
        "micro_batch": 8,
        "parallel_queries": 2,
        "queries": 4,
        "query_form": "one-sided",
        "head_backend": "torch",
        "precision": "fp32",
        "device_profile": "cpu-512mib",
        "seed": 1993,
        "skipped_images": 0,
        "completed": True,
        **mistakes(2 * tasks, tested=tested),
        "next_steps": ["Take more pictures of digit 0 and digit 1: 9 of 72 are taken for the other."] if tested else [],
        **changes,
    }


def moved(tasks: int, state: str = "moved") -> dict[str, Any]:
    """Changes for ``make_result``: an adapter that left its start, five points below which the head alone stands."""
    held_out = {"pictures": 40, "right_frozen": 30, "right_moved": 31, "gain": 0.025, "low": -0.02, "high": 0.07}
    tested = {"pictures": 1200, "right_frozen": 900, "right_moved": 960, "gain": 0.05, "low": 0.03, "high": 0.07}
    adapter = {"state": state, "held_out": held_out, "tested": tested if state == "moved" else None}
    return {"adapter": adapter, "frozen_head": scores(tasks, 1, -0.05)}


def make_events(result: dict[str, Any]) -> list[dict[str, Any]]:
    draw, step, rss = random.Random(3), 0, 250.0
    events: list[dict[str, Any]] = [{"event": "run_started", "time": 1.7e9, "options": {}}]
    for index, task in enumerate(result["tasks"]):
        events.append({"event": "task_started", "time": 1.7e9 + step, "task": index, "name": task["name"]})
        for within in range(task["steps"]):
            rss = min(431.2, rss + draw.uniform(0, 4))
            loss = 0.7 * math.exp(-8 * within / task["steps"]) + draw.uniform(0.02, 0.12)
            sizes = {"rss_mib": rss, "anonymous_mib": 0.7 * rss, "file_mib": 0.3 * rss}
            events.append({"event": "step", "time": 1.7e9 + step, "task": index, "step": step, "loss": loss, **sizes})
            step += 1
    return [*events, {"event": "finished", "time": 1.7e9 + step}]


def make_run(folder: Path, tasks: int = 5, **changes: Any) -> dict[str, Any]:
    """Write R/result.json and R/events.jsonl and return the result."""
    folder.mkdir(parents=True, exist_ok=True)
    result = make_result(tasks, **changes)
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    lines = [json.dumps(event) + "\n" for event in make_events(result)]
    (folder / "events.jsonl").write_text("".join(lines), encoding="utf-8")
    return result


def write_events(folder: Path, *events: dict[str, object] | bytes) -> None:
    lines = (event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n" for event in events)
    (folder / "events.jsonl").write_bytes(b"".join(lines))


def make_stream(folder: Path, result: dict[str, Any], train: int = 3, test: int = 3) -> None:
    """The stream of a made result: noise of 64 pixels a side, which compresses worst; fills in ``wrong_pictures``."""
    names, draw = result["class_names"], np.random.default_rng(5)
    for task in result["tasks"]:
        for class_id in task["class_ids"]:
            for part, count in (("train", train), ("test", test)):
                place = folder / task["name"] / part / names[class_id]
                place.mkdir(parents=True)
                for k in range(count):
                    pixels = draw.integers(0, 256, (64, 64, 3), np.uint8)
                    Image.fromarray(pixels).save(place / f"{k}.png")
    place_of = {class_id: task["name"] for task in result["tasks"] for class_id in task["class_ids"]}
    result["wrong_pictures"] = [
        {
            "class_id": class_id,
            "named_id": named_id,
            "paths": [f"{place_of[class_id]}/test/{names[class_id]}/{k}.png" for k in range(test)],
        }
        for class_id, named_id, _ in result["confusion"][:20]
    ]
