"""``edge-zofc bench backbones``: accuracy, time and memory of several backbones, and the README's chart of them.

    OUT/bundles, OUT/runs   a bundle for each backbone and size, a run of ``learn --epochs 0`` for it and each stream
    OUT/backbones.json      the rows so far; a row that is there is not measured again
    OUT/backbones.svg       accuracy against milliseconds, memory beside each point (``backbone_chart.py``)

The adapter rests and the head is the edge preset's, in closed form: what differs is the backbone alone. Milliseconds
are processor time of one picture through the graph on one thread, the least of many runs: other work on the machine
only adds to it.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from pathlib import Path
from time import process_time
from typing import Any

from edge_zofc.benchmarks.process import edge_zofc
from edge_zofc.benchmarks.tables import Columns, for_terminal, write_json
from edge_zofc.errors import InputError
from edge_zofc.export.shipped import SHIPPED

log = logging.getLogger("edge_zofc")

DEFAULT = "package-lite0@96,package-lite0@128,package-lite0@160,package-lite0@224,package-lite2@128,package-vit@96"
RUNS = 50
COLUMNS: Columns = {
    "backbone": ("Backbone", ""),
    "side": ("px", ""),
    "stream": ("Stream", ""),
    "average": ("Average", ".1%"),
    "last": ("Last", ".1%"),
    "class_means_average": ("class means, Average", ".1%"),
    "class_means_last": ("Last", ".1%"),
    "milliseconds": ("ms a picture", ".1f"),
    "peak_rss_mib": ("peak MiB", ".0f"),
    "seconds": ("seconds", ".0f"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench backbones``."""
    add = parser.add_argument
    add("--stream", type=Path, nargs="+", required=True, help="folders of tasks, as `edge-zofc split` writes them")
    add("--out", type=Path, required=True, help="folder for bundles, runs, numbers and the chart")
    add("--backbones", metavar="NAME@PX,...", default=DEFAULT, help="names of packages or timm (default: %(default)s)")
    add("--json", action="store_true", help="print one JSON object on standard output")


def main(arguments: argparse.Namespace) -> int:
    """Measure what is missing; write and print everything. Raises InputError."""
    from edge_zofc.benchmarks.accuracy.backbone_chart import draw

    wanted = _parsed(arguments.backbones)
    missing = [path for path in arguments.stream if not path.is_dir()]
    if missing:
        raise InputError(f"There is no stream {missing[0]}; write one with 'edge-zofc split'.")
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    file = out / "backbones.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    known = {(row["backbone"], row["side"], row["stream"]) for row in rows}
    for name, side in wanted:
        for stream in arguments.stream:
            if (name, side, stream.resolve().name) not in known:
                rows.append(measure(name, side, stream.resolve(), out))
                write_json(file, rows)
    draw(rows, out / "backbones.svg")
    print(json.dumps({"out": str(out), "rows": rows}) if arguments.json else for_terminal(COLUMNS, rows))  # noqa: T201
    return 0


def _parsed(text: str) -> list[tuple[str, int]]:
    """Names and sizes. Raises InputError."""
    found = []
    for part in text.split(","):
        name, at, side = part.strip().partition("@")
        if not (name and at and side.isdecimal()):
            raise InputError(f"--backbones takes names with a size in pixels, such as package-lite0@128; got '{part}'.")
        found.append((name, int(side)))
    return found


def measure(name: str, side: int, stream: Path, out: Path) -> dict[str, Any]:
    """The row of a backbone at ``side`` pixels on a stream. Raises InputError."""
    bundle, run = out / "bundles" / f"{name}-{side}", out / "runs" / f"{name}-{side}-{stream.name}"
    if not (bundle / "bundle.json").exists():
        log.info("exporting %s at %d px", name, side)
        weights = [] if name in SHIPPED else ["--pretrained"]
        edge_zofc("export", bundle, "--backbone", name, "--img-size", side, *weights)
    shutil.rmtree(run, ignore_errors=True)  # of a measurement that was cut
    log.info("learning %s with %s at %d px", stream.name, name, side)
    edge_zofc("learn", "--bundle", bundle, "--stream", stream, "--run", run, "--epochs", 0)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    means = result["class_mean_floor"]
    return {
        "backbone": name,
        "side": side,
        "stream": stream.name,
        "average": result["average_accuracy"],
        "last": result["last_accuracy"],
        "class_means_average": means["average_accuracy"],
        "class_means_last": means["last_accuracy"],
        "milliseconds": round(1000 * forward_seconds(bundle), 2),
        "peak_rss_mib": round(result["peak_rss_mib"], 1),
        "predicted_peak_mib": round(result["predicted_peak_mib"], 1),
        "seconds": result["seconds"],
    }


def forward_seconds(bundle: Path) -> float:
    """Processor seconds of one picture through the graph on one thread, the least of ``RUNS`` runs."""
    import numpy as np

    from edge_zofc.export.session import compute_features, open_session
    from edge_zofc.storage.bundle import read_bundle
    from edge_zofc.storage.manifest import GRAPH

    manifest = read_bundle(bundle).manifest
    session = open_session(bundle / GRAPH, threads=1)
    images = np.full((1, 3, manifest.image.size, manifest.image.size), 0.1, np.float32)
    adapters = np.zeros((1, manifest.adapter.size), np.float32)
    compute_features(session, images, adapters)  # the first run of a session is slower
    found = []
    for _ in range(RUNS):
        started = process_time()
        compute_features(session, images, adapters)
        found.append(process_time() - started)
    return min(found)
