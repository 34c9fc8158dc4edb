"""Inference alone, a process of its own: what every way to learn is compared with.

``python -m edge_zofc.benchmarks.costs.estimator_inference REQUEST`` prints one JSON object. It takes the pictures of
the steps of ``learn --estimator spsa`` and computes their features once, under the adapter as it is, through the parts
that ``predict`` is made of. It has no head and no run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_zofc.algorithm.directions import episode
from edge_zofc.algorithm.episodes import held_out
from edge_zofc.algorithm.options import make_options
from edge_zofc.data.stream import list_samples, read_stream
from edge_zofc.device.memory_limit import give_freed_memory_back
from edge_zofc.device.system import PeakSampler, mib, usage
from edge_zofc.engine.pictures import PictureReader
from edge_zofc.engine.pixel_store import Picture
from edge_zofc.errors import ImageError
from edge_zofc.inference.backbone import Backbone
from edge_zofc.storage.bundle import read_bundle
from edge_zofc.storage.settings import Placement


@dataclass(frozen=True)
class InferenceRequest:
    """``steps`` batches of the first task of a stream; ``placement`` is that of learning, with one adapter a run."""

    bundle: str
    stream: str
    batch_size: int
    steps: int
    placement: dict[str, Any]
    seed: int = 1993


def measure(request: InferenceRequest) -> dict[str, Any]:
    """Run the batches; memory in MiB and the seconds of each batch. Raises ImageError for an unreadable picture."""
    base = usage()
    with PeakSampler() as sampler:
        placement = Placement.model_validate(request.placement)
        if not placement.arena:
            give_freed_memory_back()
        bundle = read_bundle(Path(request.bundle))
        backbone, theta = Backbone(bundle, placement), np.array(bundle.initial_adapter())
        reader = PictureReader(bundle.manifest.image, make_options("edge", {}).normalise, _refuse)
        seconds = []
        for pictures in _batches(request):
            started = time.perf_counter()
            seen = sum(len(indices) for indices, _ in reader.features(backbone, [theta], pictures))
            seconds.append(time.perf_counter() - started)
            assert seen == request.batch_size
        peak = sampler.peak()
    return {
        "peak_rss_mib": mib(peak.rss_bytes),
        "peak_anonymous_mib": mib(peak.anonymous_bytes),
        "peak_file_mib": mib(peak.file_bytes),
        "base_mib": mib(base.rss_bytes),
        "micro_batch": placement.micro_batch,
        "parallel_queries": placement.parallel_queries,
        "step_seconds": seconds,
        "losses": [None],
        "steps": len(seconds),
    }


def _batches(request: InferenceRequest) -> list[list[Picture]]:
    """The pictures of each step."""
    stream = read_stream(Path(request.stream))
    samples = list_samples(stream, stream.tasks[0], "train")
    labels = np.array([sample.class_id for sample in samples])
    fit = np.flatnonzero(~held_out(labels))
    drawn = (episode(labels[fit], request.batch_size, request.seed, 0, number) for number in range(request.steps))
    return [[Picture(samples[index].path) for index in fit[picked]] for picked in drawn]


def _refuse(index: int, path: Path, error: ImageError) -> None:
    raise error


def main(arguments: Sequence[str]) -> None:
    """Measure what was asked; print it."""
    sys.stdout.write(json.dumps(measure(InferenceRequest(**json.loads(arguments[0])))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
