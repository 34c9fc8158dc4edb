"""``bench estimators --curve``: what steps of each estimator win on a stream, and what that costs.

Each point is a ``learn`` of its own over the whole stream, with the estimator's other options as they are by default.
``--adapter on``: no gate takes a gain back. Adam has no schedule, so a run of N steps is the beginning of a longer one,
and the points of one seed lie on one path. The gain is that over the adapter at rest, of the same seed. Seconds and
image-forwards are those of the steps alone (``estimator_arms.py`` says how gradient passes are counted). Without the
exact arm nothing says what half of its gain took.

A seed is also a class order: the first learns the stream as it is, each other one its classes in an order of its own.
With ``--out`` a point that is there is not measured again.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.chart_style import BLUE, GREY, STYLE
from edge_zofc.benchmarks.costs.estimator_arms import ARMS, lacking
from edge_zofc.benchmarks.costs.setup import SEED, tell
from edge_zofc.benchmarks.process import edge_zofc
from edge_zofc.benchmarks.streams.class_orders import has_other_orders, in_order
from edge_zofc.benchmarks.tables import write_json
from edge_zofc.errors import InputError
from edge_zofc.storage.bundle import read_bundle

CURVES = {arm.name.removesuffix("-fast"): arm for arm in ARMS if arm.is_learn and not arm.thrifty}
"""Name -> arm: those of onnxruntime, as the plan places them."""
REFERENCE = "exact"
SHARES = {"half": 0.5, "most": 0.9}
SCORES = ("average_accuracy", "last_accuracy")
KEPT = (
    *SCORES, "steps", "seconds_per_step", "forward_passes", "gradient_passes", "seconds", "peak_rss_mib",
    "micro_batch", "parallel_queries",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A ``learn`` of the curve; None in ``arm``: the adapter rests."""

    bundle: Path
    stream: Path
    seed: int
    arm: str | None
    steps: int
    more: tuple[str, ...] = ()

    def words(self) -> list[object]:
        """What ``learn`` is given beside its folders."""
        if self.arm is None:
            return ["--adapter", "off", "--seed", self.seed, *self.more]
        arm = CURVES[self.arm]
        how = ["--directions", arm.directions] if arm.directions else []
        estimator = ["--estimator", arm.estimator, "--steps", self.steps]
        return ["--adapter", "on", *estimator, *how, "--seed", self.seed, *self.more]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``--curve``."""
    add = parser.add_argument_group("the curve").add_argument
    add("--seeds", metavar="N", type=int, default=3, help=f"class orders, from {SEED} on (default: 3)")
    add("--exact-steps", metavar="LIST", default="3,6,12,25,50", help="(default: 3,6,12,25,50)")
    add("--spsa-steps", metavar="LIST", default="16,32,65,130,260", help="(default: 16,32,65,130,260)")
    add("--learn-options", metavar="'...'", default="", help="more options of learn, in one argument")


def run(options: argparse.Namespace, arms: Sequence[str], folder: Path, show: Callable[..., None]) -> None:
    """Measure the curve of each bundle for those of ``arms`` that have one; ``show`` takes a table's name, its rows and
    a caption. Raises InputError.
    """
    if options.stream is None:
        raise InputError("--curve needs --stream FOLDER, a stream of edge-zofc split.")
    if options.seeds < 1:
        raise InputError(f"--seeds is {options.seeds}, it must be at least 1.")
    if options.seeds > 1 and not has_other_orders(options.stream):
        raise InputError(f"The classes of {options.stream} come back in later tasks; give --seeds 1.")
    steps = {one: counts(getattr(options, f"{one}_steps"), f"{one}-steps") for one in ("spsa", "exact")}
    wanted = {name: steps[arm.estimator] for name, arm in CURVES.items() if arm.name in arms}
    if not wanted:
        known = ", ".join(arm.name for arm in CURVES.values())
        raise InputError(f"--arms is '{options.arms}', which has none for --curve; choose from {known}.")
    place = (options.out or folder).resolve()
    measured = [
        point
        for bundle, seed in itertools.product(options.curve, range(SEED, SEED + options.seeds))
        for point in _of_one_seed(options, bundle.resolve(), seed, wanted, place)
    ]
    curves = averaged(measured)
    how = f"{options.stream.name}, {options.seeds} seeds"
    show("estimators-points", curves, how, runs=measured)
    show("estimators-curve", [row for score in SCORES for row in summary(curves, score)], how)
    if options.out is not None:
        draw(curves, options.out / "estimators-curve.svg")


def counts(text: str, name: str) -> list[int]:
    """The whole numbers of a list, ascending. Raises InputError for anything else, or a number below 1."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"--{name} is '{text}'; give whole numbers from 1, with commas.")
    return sorted(set(map(int, parts)))


def _of_one_seed(
    options: argparse.Namespace, bundle: Path, seed: int, wanted: dict[str, list[int]], place: Path
) -> list[dict[str, Any]]:
    stream = options.stream.resolve()
    if seed != SEED:
        stream = in_order(stream, seed, place / "streams" / f"seed{seed}")
    more = tuple(options.learn_options.split())
    points = [Point(bundle, stream, seed, None, 0, more)]
    for name, steps in wanted.items():
        missing = lacking(CURVES[name], read_bundle(bundle))
        if missing:
            tell(f"{bundle.name}, {CURVES[name].title}: left out, {missing}")
            continue
        points += [Point(bundle, stream, seed, name, count, more) for count in steps]
    return [_measured(point, place) for point in points]


def _measured(point: Point, place: Path) -> dict[str, Any]:
    """The point's row; kept below ``place`` and read from there if it is the same. Raises InputError."""
    asked = [read_bundle(point.bundle).identity, str(point.stream), *map(str, point.words())]
    name = f"{point.bundle.name}-{point.arm or 'rest'}-{point.steps}-seed{point.seed}"
    digest = hashlib.sha256("\n".join(asked).encode()).hexdigest()[:8]
    kept, folder = place / "points" / f"{name}-{digest}.json", place / "runs" / f"{name}-{digest}"
    row: dict[str, Any]
    if kept.exists():
        row = json.loads(kept.read_text(encoding="utf-8"))
        return row
    words = ["--bundle", point.bundle, "--stream", point.stream, "--run", folder, *point.words()]
    # One that is there is of a benchmark that was ended. Its seconds would be those of two processes.
    shutil.rmtree(folder, ignore_errors=True)
    answer = edge_zofc("learn", *words)
    if answer["steps"] != point.steps:
        raise InputError(
            f"{name} did {answer['steps']} of {point.steps} steps; the first task of {point.stream} needs 4 classes."
        )
    forwards = 0 if point.arm is None else CURVES[point.arm].image_forwards(answer["options"]["batch_size"])
    row = {
        "bundle": point.bundle.name,
        "arm": point.arm,
        "seed": point.seed,
        **{key: answer[key] for key in KEPT},
        "step_seconds": point.steps * (answer["seconds_per_step"] or 0.0),
        "image_forwards": point.steps * forwards,
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, row)
    tell(f"{name}: {answer['average_accuracy']:.4f}, {row['step_seconds']:.0f} s of steps")
    return row


def averaged(measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each bundle, arm and number of steps: means over the seeds, and gains over the adapter at rest.

    ``average_accuracy_gains`` and ``last_accuracy_gains`` are those of single seeds.
    """
    at_rest = {(row["bundle"], row["seed"]): row for row in measured if row["arm"] is None}
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for one in measured:
        if one["arm"] is not None:
            groups.setdefault((one["bundle"], one["arm"], one["steps"]), []).append(one)
    found = []
    for (bundle, arm, steps), rows in groups.items():
        mean: dict[str, Any] = {"bundle": bundle, "arm": arm, "steps": steps, "seeds": len(rows)}
        for key in (*SCORES, "step_seconds", "image_forwards", "peak_rss_mib"):
            mean[key] = statistics.fmean(one[key] for one in rows)
        for score in SCORES:
            gains = [one[score] - at_rest[bundle, one["seed"]][score] for one in rows]
            mean[f"{score}_gain"] = statistics.fmean(gains)
            mean[f"{score}_gains"] = gains
        found.append(mean)
    return found


def summary(curves: Sequence[dict[str, Any]], score: str) -> list[dict[str, Any]]:
    """Of each bundle and arm: the gain of the most steps, and what half and 90 % of the exact gain took.

    None where that was not reached, or where the exact steps gain nothing.
    """
    found = []
    for bundle, arm in dict.fromkeys((row["bundle"], row["arm"]) for row in curves):
        rows = {name: _curve(curves, bundle, name) for name in (arm, REFERENCE)}
        last, gains = rows[arm][-1], f"{score}_gains"
        target = rows[REFERENCE][-1][f"{score}_gain"] if rows[REFERENCE] else 0.0
        row = {
            "bundle": bundle,
            "arm": arm,
            "score": score.replace("_", " "),
            "steps": last["steps"],
            "at_rest": last[score] - last[f"{score}_gain"],
            "accuracy": last[score],
            "gain": 100 * last[f"{score}_gain"],
            "gains": f"{100 * min(last[gains]):+.1f} to {100 * max(last[gains]):+.1f}",
            "seconds": last["step_seconds"],
            "image_forwards": last["image_forwards"],
        }
        for key, cost in itertools.product(SHARES, ("step_seconds", "image_forwards")):
            points = [(each[cost], each[f"{score}_gain"]) for each in rows[arm]]
            row[f"{key}_{cost}"] = to_reach(points, SHARES[key] * target) if target > 0 else None
        found.append(row)
    return found


def to_reach(points: Sequence[tuple[float, float]], target: float) -> float | None:
    """The cost at which the gain first reaches ``target``, between measured points in a straight line; None: never.

    ``points`` are (cost, gain) by ascending cost; at cost 0 the gain is 0.
    """
    cost, gain = 0.0, 0.0
    for next_cost, next_gain in points:
        if next_gain >= target:
            return cost + (next_cost - cost) * (target - gain) / (next_gain - gain)
        cost, gain = next_cost, next_gain
    return None


def _curve(curves: Sequence[dict[str, Any]], bundle: str, arm: str) -> list[dict[str, Any]]:
    rows = [row for row in curves if (row["bundle"], row["arm"]) == (bundle, arm)]
    return sorted(rows, key=lambda row: int(row["steps"]))


def draw(curves: Sequence[dict[str, Any]], path: Path) -> None:
    """The gain in average accuracy over the seconds of the steps, a panel for each bundle, as an SVG file."""
    import matplotlib
    from matplotlib.figure import Figure

    bundles = list(dict.fromkeys(row["bundle"] for row in curves))
    looks = dict(zip(CURVES, ((GREY, "^"), (GREY, "o"), (GREY, "s"), (BLUE, "D")), strict=True))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(bundles) + 1, 3.4), layout="constrained")
        for axes, bundle in zip(figure.subplots(1, len(bundles), squeeze=False)[0], bundles, strict=True):
            for name, (colour, marker) in looks.items():
                rows = _curve(curves, bundle, name)
                if rows:
                    seconds = [0.0, *(row["step_seconds"] for row in rows)]
                    gains = [0.0, *(100 * row["average_accuracy_gain"] for row in rows)]
                    axes.plot(seconds, gains, color=colour, marker=marker, ms=4, label=CURVES[name].title)
            axes.set_title(bundle, fontsize=10)
            axes.set_xlabel("seconds of the steps")
            axes.set_ylabel("gain in average accuracy, points")
            axes.legend(fontsize=8, frameon=False)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
