"""The cell of zo-fc: the real runtime, ``edge-zofc learn`` on a bundle, as a process of its own.

Nothing of the method is here. The numbers are those of the run's ``result.json``. The peak memory is that of the
process that learnt.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.options import Options, PresetName, make_options
from edge_zofc.benchmarks.accuracy.request import CellRequest
from edge_zofc.benchmarks.methods.names import SEARCH_FACTORS, best
from edge_zofc.benchmarks.process import edge_zofc
from edge_zofc.benchmarks.streams.links import link_samples
from edge_zofc.benchmarks.streams.validation import set_aside
from edge_zofc.cli import arguments
from edge_zofc.data.stream import list_samples, read_stream
from edge_zofc.errors import InputError
from edge_zofc.storage.bundle import read_bundle
from edge_zofc.storage.run_folder import EVENTS

SAME_NAMES = (
    "accuracy_matrix", "stage_accuracy", "average_accuracy", "last_accuracy", "mean_per_class_accuracy",
    "forgetting", "backward_transfer", "forward_passes", "evaluation_forward_passes", "seconds", "peak_rss_mib",
    "peak_anonymous_mib", "predicted_peak_mib", "micro_batch", "parallel_queries", "class_mean_floor",
)  # fmt: skip
"""What a cell has under the same name as ``result.json``."""


def run_zofc(request: CellRequest) -> dict[str, Any]:
    """Learn the stream with the bundle; the run stays in ``request.work``. Raises InputError."""
    if request.bundle is None:
        raise InputError("zo-fc needs a bundle; give --bundle.")
    run = request.work / f"zo-fc-seed{request.seed}-run"
    searched, search_forwards, factor = {}, 0, 1.0
    if request.search > 1:
        part = _validation_stream(request.stream, request.work / f"validation-seed{request.seed}")
        for tried in SEARCH_FACTORS[: request.search]:
            found = learn(request, part, run, tried)
            searched[str(tried)] = found["last_accuracy"] or 0.0
            search_forwards += found["forward_passes"]
        factor = best(searched)
    result = learn(request, request.stream, run, factor)
    size = read_bundle(request.bundle).manifest.adapter.size
    return {
        **{name: result[name] for name in SAME_NAMES},
        "trainable_parameters": [size] * len(result["tasks"]),
        "losses": epoch_losses(run / EVENTS),
        "backward_passes": 0,
        "training": result["options"],
        "search": searched,
        "search_forward_passes": search_forwards,
    }


def learn(request: CellRequest, stream: Path, run: Path, factor: float) -> dict[str, Any]:
    """The result of a new run of ``edge-zofc learn`` with the learning rates times ``factor``. Raises InputError."""
    # A run that is there is that of a cell which did not finish. Its seconds would be those of two processes.
    shutil.rmtree(run, ignore_errors=True)
    options = own_options(request.preset, request.epochs, request.learn_options)
    words: list[object] = ["--bundle", request.bundle, "--stream", stream, "--run", run]
    words += ["--preset", request.preset, "--seed", request.seed]
    if request.epochs:
        words += ["--epochs", request.epochs]
    if request.batch_size:
        words += ["--batch-size", request.batch_size]
    words += request.learn_options
    if factor != 1.0:
        # After the user's own options: the last one counts.
        words += ["--adapter-lr", options.adapter_lr * factor, "--head-lr", options.head_lr * factor]
    edge_zofc("learn", *words)
    found: dict[str, Any] = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return found


def own_options(preset: PresetName, epochs: int, learn_options: Sequence[str]) -> Options:
    """The options that ``learn`` will have. Raises InputError; ends the process on words that it does not know."""
    parser = argparse.ArgumentParser(prog="--learn-options", add_help=False)
    arguments.learn(parser)
    given = parser.parse_args(["--stream", ".", *learn_options])
    changed = {**({"epochs": epochs} if epochs else {}), **arguments.changes(given)}
    return make_options(given.preset or preset, changed)


def forwards_a_picture(options: Options) -> int:
    """Forward passes of ``learn`` for a picture and an epoch, the mean over the epochs, rounded; or in a step."""
    if options.query_form == "one-sided":
        return options.queries + 1
    if options.loss == "episodic":
        return 2 * options.queries + 1
    with_head = options.head_epochs if options.head == "cosine" else 0
    return round(2 * options.queries + with_head / max(options.epochs, 1))


def epoch_losses(events: Path) -> list[list[float]]:
    """Of each task the mean loss of each epoch's steps, in order."""
    found: dict[int, dict[int, list[float]]] = {}
    for line in events.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "task_started":
            found[event["task"]] = {}
        elif event["event"] == "step":
            found[event["task"]].setdefault(event["epoch"], []).append(event["loss"])
    return [[statistics.fmean(losses) for losses in epochs.values()] for epochs in found.values()]


def _validation_stream(stream_root: Path, out: Path) -> Path:
    """The first task alone, with a validation part of its training pictures as its test part."""
    shutil.rmtree(out, ignore_errors=True)
    stream = read_stream(stream_root)
    for part, samples in zip(("train", "test"), set_aside(list_samples(stream, stream.tasks[0], "train")), strict=True):
        link_samples(stream, samples, out / "000_validation" / part)
    return out
