"""``edge-zofc bench unknown``: how well a score tells what was never shown, under frozen features.

Some classes of a folder of pictures are known by a few training pictures each. The test pictures of the others are
"near", those of the other folders "far". Each score is judged by its AUROC (0.5: no better than chance) of known test
pictures against both; likeness also at the limit that a run of the known pictures sets.

    softmax       the largest probability of the closed-form head
    logit         its largest logit
    mahalanobis   the distance to the nearest class mean, negative
    likeness      the cosine to the nearest class mean

The mean over ``--draws`` draws of the known classes and pictures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_zofc.algorithm.heads import solve, within
from edge_zofc.algorithm.likeness import Likeness, unknown_limit
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.benchmarks.costs.machine import machine_state
from edge_zofc.benchmarks.tables import as_markdown, for_terminal, write_json
from edge_zofc.cli.terminal import say
from edge_zofc.data.folders import LeftOuts, all_pictures
from edge_zofc.errors import InputError
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.settings import Placement

SEED = 1993
SETTINGS = ("4x5", "8x10", "halfx30")
MOST_FAR = 600
COLUMNS = {
    "pictures": ("pictures", ""),
    "known": ("known classes x pictures", ""),
    **{
        f"{score}_{kind}": (f"{score}, {kind}", ".2f")
        for score in ("softmax", "logit", "mahalanobis", "likeness")
        for kind in ("near", "far")
    },
    **{f"refused_{kind}": (f"refused, {kind} %", ".0f") for kind in ("known", "near", "far")},
}


@dataclass(frozen=True)
class Part:
    """Features float32 [n, D] and class ids int64 [n] of the train or test pictures of a folder."""

    features: np.ndarray
    labels: np.ndarray

    def of(self, classes: np.ndarray, inside: bool = True) -> np.ndarray:
        """The features of pictures of these classes, or of the others."""
        chosen: np.ndarray = self.features[np.isin(self.labels, classes) == inside]
        return chosen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench unknown``."""
    parser.add_argument("--bundle", metavar="FOLDER", type=Path, default=Path("bundle"), help="(default: bundle/)")
    parser.add_argument(
        "--pictures", metavar="FOLDER", type=Path, nargs="+", default=(), help="{train,test}/<class>/, two or more"
    )
    parser.add_argument(
        "--known",
        metavar="CxN",
        nargs="+",
        default=SETTINGS,
        help=f"classes x pictures (default: {' '.join(SETTINGS)})",
    )
    parser.add_argument("--draws", metavar="N", type=int, default=5, help="draws of classes (default: 5)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="also write the rows here, as JSON")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def main(options: argparse.Namespace) -> int:
    """Measure and print. Raises InputError."""
    if len(options.pictures) < 2:
        raise InputError("Give --pictures two folders at least: one is the other's far.")
    bundle = read_bundle(options.bundle)
    parts = {folder.name: {part: read_part(bundle, folder / part) for part in ("train", "test")}
             for folder in options.pictures}  # fmt: skip
    rows = []
    for name, found in parts.items():
        others = [other["test"].features for other_name, other in parts.items() if other_name != name]
        far = np.concatenate([features[:MOST_FAR] for features in others])
        rows += [row_of(name, found, far, known, options.draws) for known in options.known]
    data = {"rows": rows, "machine": machine_state(), "bundle": bundle.manifest.backbone.name}
    if options.out:
        write_json(options.out, data)
        options.out.with_suffix(".md").write_text(as_markdown(COLUMNS, rows))
    if options.json:
        say(json.dumps(data))
    else:
        say(for_terminal(COLUMNS, rows))
    return 0


def read_part(bundle: Bundle, folder: Path) -> Part:
    """The pictures of ``folder/<class>/`` under the adapter's start. Raises InputError where there are none."""
    from edge_zofc.engine.pictures import PictureReader
    from edge_zofc.engine.pixel_store import Picture
    from edge_zofc.inference.backbone import Backbone

    left = LeftOuts()
    classes = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    listed = [(path, label) for label, place in enumerate(classes) for path in all_pictures(place, left)]
    if not listed:
        raise InputError(
            f"There is no picture in a folder of {folder}; give a folder of train/<class>/ and test/<class>/."
        )
    backbone = Backbone(bundle, Placement.simple(8))
    reader = PictureReader(bundle.manifest.image, True, lambda index, path, error: None)
    kept, features = [], []
    files = [Picture(path) for path, _ in listed]
    for indices, rows in reader.features(backbone, [bundle.initial_adapter()], files):
        kept.append(indices)
        features.append(rows[0].copy())
    labels = np.array([label for _, label in listed], np.int64)
    return Part(np.concatenate(features), labels[np.concatenate(kept)])


def row_of(name: str, parts: dict[str, Part], far: np.ndarray, known: str, draws: int) -> dict[str, Any]:
    """The mean over draws. Raises InputError for a ``known`` that is not "4x5" or "halfx5"."""
    total = int(parts["train"].labels.max()) + 1
    first, _, second = known.partition("x")
    if not second.isdecimal() or not (first.isdecimal() or first == "half") or int(second) < 2:
        raise InputError(f"--known {known} is not classes x pictures, such as 8x10 or halfx30.")
    count = total // 2 if first == "half" else int(first)
    if not 1 < count < total:
        raise InputError(f"{name} has {total} classes; {count} cannot be known with others left.")
    generator = np.random.default_rng(SEED)
    found = [_draw(parts, far, generator.permutation(total)[:count], int(second), generator) for _ in range(draws)]
    means = {key: float(np.mean([each[key] for each in found])) for key in found[0]}
    return {"pictures": name, "known": f"{count} x {second}", **means}


def _draw(
    parts: dict[str, Part], far: np.ndarray, classes: np.ndarray, most: int, generator: np.random.Generator
) -> dict[str, float]:
    """AUROC by score and kind, and what is refused in percent, for one draw."""
    shown = [generator.permutation(parts["train"].of(np.array([label])))[:most] for label in classes]
    statistics = Statistics.empty(len(classes), shown[0].shape[1])
    for label, rows in enumerate(shown):
        statistics.add(rows, np.full(len(rows), label, np.int64))
    test = parts["test"]
    asked = {"known": test.of(classes), "near": test.of(classes, inside=False), "far": far}
    scores = {kind: scores_of(statistics, rows) for kind, rows in asked.items()}
    groups = [(label, rows[index : index + 1], True) for label, rows in enumerate(shown) for index in range(len(rows))]
    limit = unknown_limit(Likeness(statistics).left_out(groups)[0])
    return {
        **{
            f"{score}_{kind}": auroc(scores["known"][score], scores[kind][score])
            for score in scores["known"]
            for kind in ("near", "far")
        },
        **{f"refused_{kind}": 100 * float((found["likeness"] < limit).mean()) for kind, found in scores.items()},
    }


def scores_of(statistics: Statistics, features: np.ndarray) -> dict[str, np.ndarray]:
    """Each score float64 [n] of features float32 [n, D]; larger: rather known."""
    rows, biases = solve(statistics)
    logits = features.astype(np.float64) @ rows.T.astype(np.float64) + biases
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    # The distance to a mean is f' P f - 2 (logit of that class), with P the inverse covariance.
    solved = np.linalg.solve(within(statistics), features.T.astype(np.float64))
    own = np.sum(features.T * solved, axis=0)
    return {
        "softmax": powers.max(axis=1) / powers.sum(axis=1),
        "logit": logits.max(axis=1),
        "mahalanobis": 2 * logits.max(axis=1) - own,
        "likeness": Likeness(statistics).to_classes(features).max(axis=1),
    }


def auroc(higher: Sequence[float] | np.ndarray, lower: Sequence[float] | np.ndarray) -> float:
    """The chance that one of ``higher`` is above one of ``lower``, ties counted half."""
    both = np.concatenate([higher, lower])
    order = np.argsort(both, kind="stable")
    ranks = np.empty(len(both))
    _, places, counts = np.unique(both[order], return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks[order] = (ends - (counts - 1) / 2)[places]
    above = ranks[: len(higher)].sum() - len(higher) * (len(higher) + 1) / 2
    return float(above / (len(higher) * len(lower)))
