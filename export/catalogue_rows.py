"""Makes the catalogue's rows from timm's networks, and times their graphs on this machine.

    python -m edge_zofc.export.catalogue_rows [NAME ...] > export/catalogue.csv

Each graph is the one that an export writes, with random weights: they change neither memory nor time.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import torch
from torch import nn

from edge_zofc.export.adapted import Adapted, AdapterRequest, adapted
from edge_zofc.export.backbones import BackboneRequest, LoadedBackbone, load_backbone
from edge_zofc.export.catalogue import NAMES, Entry
from edge_zofc.export.measure import measure_activation_bytes
from edge_zofc.export.precision import linear_layers
from edge_zofc.export.session import open_session
from edge_zofc.export.shipped import SHIPPED
from edge_zofc.export.writer import write_forward_graph
from edge_zofc.storage.manifest import GRAPH, WEIGHTS, ActivationBytes

_TIMED_SECONDS, _TIMED_RUNS = 1.0, 5
_SPDX = {name.lower(): name for name in ("Apache-2.0", "BSD-3-Clause", "CC-BY-NC-4.0", "MIT")}
"""Licences as SPDX spells them; timm writes small letters."""


def shape_of(name: str, loaded: LoadedBackbone, model: Adapted, parameters: int) -> dict[str, int | str]:
    """What of an entry follows from the network alone; ``parameters`` as timm has it."""
    config: Any = loaded.model.pretrained_cfg
    licence, shipped = str(config.get("license") or "unknown"), SHIPPED.get(name)
    return {
        "name": name,
        "side": loaded.image.size,
        "blocks": loaded.info.depth,
        "feature_size": loaded.width,
        "parameters": parameters,
        "adapter_kind": model.layout.kind,
        "adapter_size": model.layout.size,
        "linear_layers": len(linear_layers(model)),
        "licence": shipped.licence if shipped else _SPDX.get(licence, licence),
        "hub": "" if shipped else str(config.get("hf_hub_id") or ""),
    }


def build(name: str) -> tuple[LoadedBackbone, Adapted, int]:
    """The network of a catalogue's name with random weights and the adapters that an export gives it, and how many
    parameters it had before, its norms not yet folded.
    """
    shipped = SHIPPED.get(name)
    architecture, side = (shipped.architecture, shipped.image.size) if shipped else (name, None)
    loaded = load_backbone(BackboneRequest(architecture, random_weights=True, img_size=side))
    _make_different(loaded.model)
    pictures = np.random.default_rng(0).standard_normal((2, 3, loaded.image.size, loaded.image.size))
    parameters = sum(value.numel() for value in loaded.model.parameters())
    return loaded, adapted(loaded, AdapterRequest(), pictures.astype(np.float32)), parameters


def _make_different(network: nn.Module) -> None:
    """Change all numbers a little: torch's exporter writes equal constants, such as new biases, once for all layers."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in (*network.parameters(), *network.buffers()):
            if value.is_floating_point():
                value.add_(0.01 * torch.randn(value.shape, generator=random))


@contextmanager
def _written(model: Adapted) -> Iterator[Path]:
    """A folder with the graph in fp32, removed at the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_forward_graph(model, "fp32", folder)
        yield folder


def measure_entry(name: str) -> Entry:
    """A row of the catalogue, its memory measured in child processes: up to minutes."""
    loaded, model, parameters = build(name)
    shape = shape_of(name, loaded, model, parameters)
    with _written(model) as folder:
        queries_share = model.layout.queries_share
        del loaded, model  # the measuring processes need the room
        weights = (folder / WEIGHTS).stat().st_size
        activations = measure_activation_bytes(folder / GRAPH, queries_share)
    return entry_of(shape, weights, activations)


def entry_of(shape: dict[str, int | str], weights_bytes: int, activations: ActivationBytes) -> Entry:
    """The row of these parts."""
    return Entry(**shape, weights_bytes=weights_bytes, **activations.model_dump())  # type: ignore[arg-type]


def time_forwards(names: Iterable[str], tell: Callable[[str], None]) -> dict[str, float]:
    """Processor seconds of one picture through each graph on one thread, the median of a second's runs, at least five.

    Other work on the machine hardly changes them.
    """
    found = {}
    for name in names:
        tell(f"{name}: writing its graph with random weights")
        _, model, _ = build(name)
        with _written(model) as folder:
            found[name] = _forward_seconds(folder / GRAPH, model)
        tell(f"{name}: {1000 * found[name]:.1f} ms a picture")
    return found


def _forward_seconds(graph: Path, model: Adapted) -> float:
    session = open_session(graph, threads=1)
    side = model.image_side
    feeds = {
        "images": np.full((1, 3, side, side), 0.1, np.float32),
        "adapters": np.zeros((1, model.layout.size), np.float32),
    }
    times: list[float] = []
    session.run(["features"], feeds)  # the first run of a session is slower
    while len(times) < _TIMED_RUNS or sum(times) < _TIMED_SECONDS:
        started = process_time()
        session.run(["features"], feeds)
        times.append(process_time() - started)
    return median(times)


def main(names: Sequence[str]) -> None:
    """Print the rows of ``names``, of all without any."""
    table = csv.DictWriter(sys.stdout, [field.name for field in fields(Entry)], lineterminator="\n")
    table.writeheader()
    for name in names or NAMES:
        table.writerow(asdict(measure_entry(name)))
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
