"""Where runs of ``learn`` ended: ``python -m edge_zofc.benchmarks.questions.ends --stream STREAM RUN...``.

Does an adapter that was moved by forward passes forget less than one that was moved by exact gradients, and does it end
in a flatter place? Question (b) of the paper, asked of the runtime itself, under the head in closed form. Forgetting is
what the first task's test pictures lost from its own end to the last task's. The rises are those of ``flatness.py``, of
the cross-entropy of the same pictures over all classes; theta alone moves. The bundle needs exact gradients.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_zofc.benchmarks.questions.flatness import RADIUS, RHO
from edge_zofc.benchmarks.tables import print_measured
from edge_zofc.data.stream import list_samples, read_stream
from edge_zofc.engine.predict import TrainedRun, open_backbone, open_run
from edge_zofc.errors import InputError
from edge_zofc.inference.backbone import Backbone
from edge_zofc.inference.transforms import load_test
from edge_zofc.storage.result import read_result

COLUMNS = {
    "name": ("run", ""),
    "estimator": ("estimator", ""),
    "steps": ("steps", ""),
    "average": ("Average", ".1f"),
    "first": ("first task, at its end", ".1f"),
    "last": ("at the last", ".1f"),
    "forgot": ("forgot, points", ".1f"),
    "moved": ("theta moved by", ".2f"),
    "loss": ("loss on it", ".4f"),
    "gradient_rise": ("rise along the gradient", ".5f"),
    "mean_rise": ("mean rise", ".5f"),
    "max_rise": ("largest", ".5f"),
}


class _Place:
    """The loss of the first task's pictures around where a run ended."""

    def __init__(self, trained: TrainedRun, stream: Path, pictures: int) -> None:
        found = read_stream(stream, trained.class_names, needs_train=False)
        samples = list_samples(found, found.tasks[0], "test")
        samples = samples[:: max(1, -(-len(samples) // pictures))]
        self.trained, self.backbone = trained, open_backbone(trained, threads=1, micro_batch=1)
        spec, normalise = trained.bundle.manifest.image, trained.normalise
        self.images = [load_test(sample.path, spec, normalise=normalise) for sample in samples]
        self.labels = np.array([sample.class_id for sample in samples])
        self.class_ids = np.arange(len(trained.class_names))

    def features(self, theta: np.ndarray) -> np.ndarray:
        """Float32 [B, D] under ``theta`` float32 [P]."""
        return np.stack([_features(self.backbone, image, theta) for image in self.images])

    def loss(self, theta: np.ndarray) -> float:
        """The mean cross-entropy over all classes."""
        return float(self.trained.head.losses(self.features(theta)[None], self.labels, self.class_ids)[0])

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        """The loss's, float64 [P]."""
        towards = self.trained.head.gradients(self.features(theta), self.labels, self.class_ids)
        backbone, total = Backbone(self.trained.bundle, self.backbone.placement, goes_back=True), np.zeros(theta.size)
        for image, one in zip(self.images, towards, strict=True):
            backbone.gradient_image[0] = image
            total += backbone.gradient(theta, one)
        backbone.close()
        return total

    def rises(self, directions: int) -> dict[str, float]:
        """``flatness.rises`` by the runtime."""
        theta, random = self.trained.adapter, np.random.default_rng(0)
        base, gradient = self.loss(theta), self.gradient(theta)
        along = (theta + RHO * gradient / max(float(np.linalg.norm(gradient)), 1e-12)).astype(np.float32)
        signs = (random.integers(0, 2, theta.size) * 2 - 1 for _ in range(directions))
        around = [self.loss((theta + RADIUS * one).astype(np.float32)) - base for one in signs]
        rise = self.loss(along) - base
        return {"loss": base, "gradient_rise": rise, "mean_rise": float(np.mean(around)), "max_rise": max(around)}


def _features(backbone: Backbone, image: np.ndarray, theta: np.ndarray) -> np.ndarray:
    backbone.image_buffer[0] = image
    return np.array(backbone.features(1, theta[None])[0, 0])


def measure(run: Path, stream: Path, pictures: int, directions: int) -> dict[str, Any]:
    """A row; accuracies in percent. Raises InputError for a run without test pictures or exact gradients."""
    trained, result = open_run(run), read_result(run)
    first, last = result.accuracy_matrix[0][0], result.accuracy_matrix[-1][0]
    if first is None or last is None or result.average_accuracy is None or trained.bundle.manifest.gradient is None:
        raise InputError(f"{run} needs test pictures, and a bundle with exact gradients (export --gradient).")
    start = trained.bundle.initial_adapter()
    return {
        "name": run.name,
        "estimator": trained.settings.options.estimator,
        "steps": result.steps,
        "average": 100 * result.average_accuracy,
        "first": 100 * first,
        "last": 100 * last,
        "forgot": 100 * (first - last),
        "moved": float(np.linalg.norm(trained.adapter - start)),
        **_Place(trained, stream, pictures).rises(directions),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Print a Markdown table, a row a run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m edge_zofc.benchmarks.questions.ends")
    parser.add_argument("--stream", metavar="STREAM", type=Path, required=True, help="what the runs learnt")
    parser.add_argument("--pictures", metavar="N", type=int, default=64, help="most test pictures (default: 64)")
    parser.add_argument("--directions", metavar="N", type=int, default=20, help="random ones (default: 20)")
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+")
    options = parser.parse_args(words)
    rows = (measure(run, options.stream, options.pictures, options.directions) for run in options.runs)
    return print_measured(COLUMNS, rows)


if __name__ == "__main__":
    sys.exit(main())
