"""Which precisions keep the gradient: fidelity, error, size and time of graphs of several backbones.

    python -m edge_zofc.benchmarks.costs.precisions [NAME[:KIND] ...]

A name is a package's or timm's; those without a package get random weights, of a size at which every block
counts: with timm's own a ConvNeXt's blocks add a millionth to what passes them by, and no rounding in them would show.
Fidelity is measured as an export measures it, on the package's photographs, on one thread.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import get_args

import numpy as np
import torch
from torch import nn

from edge_zofc.benchmarks.tables import Columns, as_markdown
from edge_zofc.errors import InputError
from edge_zofc.export.adapted import Adapted, AdapterRequest, adapted
from edge_zofc.export.backbones import BackboneRequest, load_backbone
from edge_zofc.export.fidelity import measure_fidelity, moved_adapter
from edge_zofc.export.precision import check_precision, dequantised_weights
from edge_zofc.export.probe_pictures import probe_pictures
from edge_zofc.export.session import compute_features, open_session
from edge_zofc.export.shipped import SHIPPED
from edge_zofc.export.writer import FIDELITY_PICTURES, PICTURES, write_forward_graph
from edge_zofc.storage.manifest import GRAPH, WEIGHTS, AdapterKind, Precision

CONVNEXTS = ("convnext_atto:film", "test_convnext:film")
"""The smallest of convolutions alone, and timm's smallest with matrix products."""
DEFAULT = ("package-lite0:film", "package-lite0:bottleneck", "package-lite2:film", *CONVNEXTS, "package-vit")
RUNS = 30
COLUMNS: Columns = {
    "backbone": ("backbone", ""),
    "kind": ("adapter", ""),
    "precision": ("precision", ""),
    "mib": ("weights, MiB", ".1f"),
    "error": ("features, relative error", ".1e"),
    "one_sided": ("fidelity, one-sided", ".3f"),
    "two_sided": ("two-sided", ".3f"),
    "milliseconds": ("ms a picture", ".1f"),
}


def measure(name: str, kind: AdapterKind | None, folder: Path) -> Iterator[dict[str, object]]:
    """A row for each precision that the backbone has; ``kind`` None: its own. Files go to ``folder``."""
    loaded = load_backbone(BackboneRequest(name, random_weights=name not in SHIPPED))
    if name not in SHIPPED:
        fill_randomly(loaded.model)
    images = probe_pictures(loaded.image, PICTURES)
    model = adapted(loaded, AdapterRequest(kind=kind), images)
    start = moved_adapter(model)[None]
    with torch.no_grad():
        wanted = model(torch.from_numpy(images), torch.from_numpy(start)).numpy()
    for precision in get_args(Precision):
        try:
            check_precision(model, precision)
        except InputError:
            continue
        place = folder / precision
        place.mkdir()
        yield {
            "backbone": name,
            "kind": model.layout.kind,
            "precision": precision,
            **_measured(model, precision, place, (images, start, wanted)),
        }


def fill_randomly(network: nn.Module) -> None:
    """Draw every matrix and kernel so that it keeps the size of what it is given (He et al., ICCV 2015); layer scales
    are 1. The same at every call.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter)
            elif name.endswith("gamma"):
                parameter.fill_(1.0)


def _measured(
    model: Adapted, precision: Precision, folder: Path, known: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> dict[str, float]:
    """What is known of the graph once it is written; ``known``: images, adapters, and torch's features in fp32."""
    write_forward_graph(model, precision, folder)
    images, adapters, wanted = known
    session = open_session(folder / GRAPH, threads=1)
    found = compute_features(session, images, adapters)
    fidelity = measure_fidelity(session, dequantised_weights(model, precision), images[:FIDELITY_PICTURES])
    times = []
    for _ in range(RUNS):
        started = process_time()
        compute_features(session, images[:1], adapters)
        times.append(process_time() - started)
    return {
        "mib": (folder / WEIGHTS).stat().st_size / 2**20,
        "error": float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted)),
        "one_sided": fidelity.one_sided,
        "two_sided": fidelity.two_sided,
        "milliseconds": 1000 * min(times),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m edge_zofc.benchmarks.costs.precisions", description=__doc__)
    parser.add_argument("names", nargs="*", default=DEFAULT, metavar="NAME[:KIND]")
    rows: list[dict[str, object]] = []
    for asked in parser.parse_args().names:
        name, _, kind = asked.partition(":")
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(name, kind or None, Path(folder))
        sys.stderr.write(f"{asked}: measured\n")
    sys.stdout.write(as_markdown(COLUMNS, rows))


if __name__ == "__main__":
    main()
