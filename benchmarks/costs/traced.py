"""A ViT's graph by its own writer against the one of torch's exporter: time of a run, side by side in one process.

python -m edge_zofc.benchmarks.costs.traced [--threads N] [--repeats N]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from edge_zofc.benchmarks.tables import Columns, as_markdown
from edge_zofc.export.adapted import AdapterRequest, adapted
from edge_zofc.export.adapters import initial_adapter
from edge_zofc.export.backbones import BackboneRequest, load_backbone
from edge_zofc.export.onnx_graph import write_graph
from edge_zofc.export.probe_pictures import probe_pictures
from edge_zofc.export.session import compute_features, open_session
from edge_zofc.export.shipped import OWN_VIT
from edge_zofc.export.traced_graph import write_traced_graph
from edge_zofc.export.vit import AdapterViT
from edge_zofc.storage.manifest import GRAPH

SHAPES = ((1, 1), (4, 1), (16, 1), (4, 5))
"""(pictures, adapters) of a run."""
COLUMNS: Columns = {
    "pictures": ("pictures", ""),
    "adapters": ("adapters", ""),
    "writer": ("own writer, ms", ".2f"),
    "exporter": ("torch's exporter, ms", ".2f"),
    "ratio": ("ratio", ".2f"),
}


def compare(folder: Path, threads: int, repeats: int) -> list[dict[str, object]]:
    """A row for each shape: median milliseconds of a picture and adapter, and their ratio."""
    loaded = load_backbone(BackboneRequest(OWN_VIT))
    model = adapted(loaded, AdapterRequest(), np.empty(0))
    assert isinstance(model, AdapterViT)
    sessions = {}
    for name, write in (("writer", write_graph), ("exporter", write_traced_graph)):
        (folder / name).mkdir()
        write(model, "fp32", folder / name)
        sessions[name] = open_session(folder / name / GRAPH, threads)
    pictures, theta = probe_pictures(loaded.image, 4), initial_adapter(model.layout, 0)
    rows: list[dict[str, object]] = []
    for images, adapters in SHAPES:
        batch, thetas = np.resize(pictures, (images, *pictures.shape[1:])), np.repeat(theta[None], adapters, axis=0)
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(repeats + 1):
            for name, session in sessions.items():
                started = perf_counter()
                compute_features(session, batch, thetas)
                times[name].append((perf_counter() - started) * 1000 / images / adapters)
        writer, exporter = (median(times[name][1:]) for name in sessions)
        shape = {"pictures": images, "adapters": adapters}
        rows.append({**shape, "writer": writer, "exporter": exporter, "ratio": exporter / writer})
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m edge_zofc.benchmarks.costs.traced", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(Path(folder), asked.threads, asked.repeats)
    sys.stdout.write(as_markdown(COLUMNS, rows))


if __name__ == "__main__":
    main()
