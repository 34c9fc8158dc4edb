"""What the cost benchmarks share: the setup, the pictures and the bundles to measure on, and their arguments.

A bundle made here has the graph and the weights of ``edge-zofc export``. Its fidelity and activation bytes are 0, "not
measured", because measuring them takes minutes for a ViT-B. ``edge-zofc learn`` refuses to train through such a bundle.
The variants use the parts of the runtime directly.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_zofc.algorithm.adapter import LATTICE_STEP
from edge_zofc.device.system import board
from edge_zofc.errors import InputError

MIB = 1 << 20
PLENTY_BYTES = 1 << 40
"""A memory budget that limits nothing."""
CLASSES = 10
SEED = 1993
PRECISIONS = ("fp32", "w8", "w4")


@dataclass(frozen=True)
class Setup:
    """What every variant gets: the backbone (None: the package's ViT), batch size B, queries Q, threads.

    ``depth`` keeps the first blocks; ``folder`` holds the pictures and bundles.
    """

    folder: str
    backbone: str | None = None
    img_size: int | None = None
    depth: int | None = None
    random_weights: bool = False
    batch_size: int = 48
    queries: int = 4
    threads: int = 1

    def pictures(self) -> Path:
        """float32 [B, 3, S, S], raw: the one batch of all variants, read picture by picture."""
        return Path(self.folder) / "pictures.f32"

    def bundle(self, precision: str, blocks: str) -> Path:
        """Where the bundle of a precision with adapters on ``blocks`` ("early", "late") lies."""
        return Path(self.folder) / f"{precision}-{blocks}"

    def load(self) -> Any:
        """The backbone in torch as the exporter loads it (``LoadedBackbone``)."""
        from edge_zofc.export.backbones import BackboneRequest, load_backbone
        from edge_zofc.export.shipped import OWN_VIT

        asked = BackboneRequest(
            self.backbone or OWN_VIT, random_weights=self.random_weights, img_size=self.img_size, depth=self.depth
        )
        return load_backbone(asked)


def block_ranges(depth: int) -> dict[str, tuple[int, ...]]:
    """Early and late adapters: the first five and the last five of ``depth`` blocks (fewer if there are fewer)."""
    count = min(5, depth)
    return {"early": tuple(range(count)), "late": tuple(range(depth - count, depth))}


def write_pictures(setup: Setup, side: int) -> None:
    """Standard normal pixels; what a picture shows does not change what learning it costs."""
    generator = np.random.default_rng(SEED)
    with setup.pictures().open("wb") as file:
        for _ in range(setup.batch_size):
            file.write(generator.standard_normal((3, side, side), dtype=np.float32).tobytes())


def read_picture(file: Path, index: int, out: np.ndarray) -> None:
    """Fill ``out`` float32 [3, S, S] with picture ``index``; nothing else of the file is kept in memory."""
    out[:] = np.fromfile(file, np.float32, out.size, offset=4 * out.size * index).reshape(out.shape)


def labels(count: int) -> np.ndarray:
    """Class of each picture, int64 [B]: 0, 1, ..., 9, 0, ..."""
    return np.arange(count, dtype=np.int64) % CLASSES


def write_bundles(setup: Setup, wanted: set[tuple[str, str]]) -> int:
    """Write the bundles of (precision, blocks) that are not there yet, and the pictures; returns the depth."""
    loaded = setup.load()
    Path(setup.folder).mkdir(parents=True, exist_ok=True)
    write_pictures(setup, loaded.image.size)
    ranges = block_ranges(loaded.info.depth)
    for precision, where in sorted(wanted):
        folder = setup.bundle(precision, where)
        if not folder.exists():
            _write_bundle(folder, loaded, ranges[where], precision)
    return int(loaded.info.depth)


def _write_bundle(folder: Path, loaded: Any, blocks: tuple[int, ...], precision: Any) -> None:
    from safetensors.numpy import save_file

    from edge_zofc.export.adapters import adapter_layout, initial_adapter
    from edge_zofc.export.onnx_graph import write_graph
    from edge_zofc.export.vit import AdapterViT
    from edge_zofc.storage import bundle, manifest

    layout = adapter_layout(loaded.width, blocks, 5, 0.1)
    folder.mkdir(parents=True)
    write_graph(AdapterViT(loaded.model, layout), precision, folder)
    save_file({"adapter": initial_adapter(layout, SEED)}, folder / manifest.ADAPTER)
    save_file({"images": np.zeros(1, np.float32)}, folder / manifest.PROBE)
    written = manifest.Manifest(
        format_version=2,
        written_by={"edge-zofc": "bench, for measurements alone"},
        backbone=loaded.info,
        image=loaded.image,
        adapter=layout,
        feature_size=loaded.width,
        precision=precision,
        fidelity=manifest.Fidelity(eps=LATTICE_STEP * 4194, directions=64, one_sided=0, two_sided=0),
        activation_bytes=manifest.ActivationBytes(fixed=0, per_image=0, per_image_and_adapter=0),
        files={
            name: manifest.FileEntry(bytes=(folder / name).stat().st_size, sha256=bundle.sha256_of(folder / name))
            for name in manifest.FILES
        },
    )
    manifest.write_manifest(folder, written)


def caption(setup: Setup) -> str:
    """What was measured, for captions."""
    name = setup.backbone or "the package's ViT-Ti/16 at 96 px"
    size = f" at {setup.img_size} px" if setup.img_size else ""
    return f"{name}{size}, batch {setup.batch_size}, Q {setup.queries}, {setup.threads} thread(s)"


def add_setup_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that ``bench memory`` and ``bench speed`` share."""
    parser.add_argument("--backbone", metavar="NAME", help="a timm ViT (default: the package's ViT-Ti)")
    parser.add_argument("--img-size", metavar="N", type=int, help="input side in pixels")
    parser.add_argument("--depth", metavar="N", type=int, help="keep the first N blocks")
    parser.add_argument("--random-weights", action="store_true", help="always so with --backbone")
    parser.add_argument("--batch-size", metavar="N", type=int, default=48, help="(default: 48)")
    parser.add_argument("--queries", metavar="Q", type=int, default=4, help="queries a step (default: 4)")
    parser.add_argument("--threads", metavar="N", type=int, default=board().usable_cpus, help="(default: all cores)")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="also write the tables and a picture here")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def make_setup(options: argparse.Namespace, folder: Path) -> Setup:
    """The setup that was asked for. Raises InputError for numbers below 1."""
    for name in ("batch_size", "queries", "threads"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(options, name)}, it must be at least 1.")
    return Setup(
        folder=str(folder),
        backbone=options.backbone,
        img_size=options.img_size,
        depth=options.depth,
        random_weights=options.backbone is not None,
        batch_size=options.batch_size,
        queries=options.queries,
        threads=options.threads,
    )


def chosen(text: str, known: Sequence[str], name: str) -> list[str]:
    """The parts of a comma-separated list. Raises InputError for one that is not in ``known``, or none."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in found if part not in known]
    if wrong or not found:
        raise InputError(f"--{name} is '{text}'; choose from {', '.join(known)}.")
    return found


def tell(text: str) -> None:
    """A line on stderr: stdout holds the answer alone."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201
