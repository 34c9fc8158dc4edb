"""What the cost benchmarks share: the question, pictures and bundles to measure on, the machine's state.

What may surprise: a bundle made here is the exporter's graph around the exporter's weights, but its fidelity and
activation bytes are recorded as 0, "not measured", which takes minutes for a ViT-B. ``edge-zofc learn`` refuses to
train through such a bundle; the arms drive the runtime's parts themselves.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edge_zofc.algorithm.adapter import LATTICE_STEP
from edge_zofc.device.system import board
from edge_zofc.errors import InputError

MIB = 1 << 20
CLASSES = 10
SEED = 1993


@dataclass(frozen=True)
class Setup:
    """What every arm gets: the backbone (None: the package's ViT), batch size B, queries Q, threads.

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
        """float32 [B, 3, S, S], raw: what one batch of the arms is read from, picture by picture."""
        return Path(self.folder) / "pictures.f32"

    def bundle(self, precision: str, blocks: str) -> Path:
        """Where the bundle of a precision with adapters on ``blocks`` ("early", "late") lies."""
        return Path(self.folder) / f"{precision}-{blocks}"

    def load(self) -> Any:
        """The backbone in torch as the exporter loads it (``LoadedBackbone``)."""
        from edge_zofc.export.backbones import load_backbone

        return load_backbone(
            self.backbone, random_weights=self.random_weights, img_size=self.img_size, depth=self.depth
        )


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

    from edge_zofc.export.onnx_graph import write_graph
    from edge_zofc.export.vit import AdapterViT, adapter_layout, initial_adapter
    from edge_zofc.storage import bundle

    layout = adapter_layout(loaded.width, blocks, 5, 0.1)
    folder.mkdir(parents=True)
    write_graph(AdapterViT(loaded.model, layout), precision, folder)
    save_file({"adapter": initial_adapter(layout, SEED)}, folder / bundle.ADAPTER)
    save_file({"images": np.zeros(1, np.float32)}, folder / bundle.PROBE)
    manifest = bundle.Manifest(
        format_version=1,
        written_by={"edge-zofc": "bench, for measurements alone"},
        backbone=loaded.info,
        image=loaded.image,
        adapter=layout,
        feature_size=loaded.width,
        precision=precision,
        fidelity=bundle.Fidelity(eps=LATTICE_STEP * 4194, directions=64, one_sided=0, two_sided=0),
        activation_bytes=bundle.ActivationBytes(fixed=0, per_image=0, per_image_and_adapter=0),
        files={
            name: bundle.FileEntry(
                bytes=(folder / name).stat().st_size, sha256=bundle.sha256_of(folder / name)
            )
            for name in bundle.FILES
        },
    )
    bundle.write_manifest(folder, manifest)


def machine_state() -> dict[str, Any]:
    """Machine, versions and how busy it is: what has to stand beside a number."""
    here = board()
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "processor": _processor(),
        "cpu_count": here.cpu_count,
        "mem_total_mib": here.mem_total_bytes // MIB,
        "mem_available_mib": here.mem_available_bytes // MIB,
        "cgroup_limit_mib": None if here.cgroup_limit_bytes is None else here.cgroup_limit_bytes // MIB,
        "load_average": load,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch_build": torch_build(),
        **{name: _version(name) for name in ("edge-zofc", "numpy", "onnxruntime", "torch", "timm")},
    }


def torch_build() -> str:
    """CPU, or which accelerator's libraries this torch brings along: they are most of its base cost."""
    local = _version("torch").partition("+")[2]
    return "CPU" if local in ("cpu", "") else local


def describe(setup: Setup, machine: dict[str, Any]) -> str:
    """One line on what was measured where, for captions."""
    name = setup.backbone or "the package's ViT-Ti/16 at 96 px"
    size = f" at {setup.img_size} px" if setup.img_size else ""
    load = machine["load_average"]
    return (
        f"{name}{size}, batch {setup.batch_size}, Q {setup.queries}, {setup.threads} thread(s); "
        f"{machine['cpu_count']} x {machine['processor']}, torch {machine['torch']}, onnxruntime "
        f"{machine['onnxruntime']}, {machine['time'][:10]}" + (f", load {load[0]:.1f}" if load else "")
    )


def as_request(setup: Setup, arm: Any) -> dict[str, Any]:
    """What a child process is told, as JSON."""
    return {"setup": asdict(setup), "arm": asdict(arm)}


def add_setup_arguments(parser: Any) -> None:
    """The options that both benchmarks share."""
    parser.add_argument("--backbone", metavar="NAME", help="a timm ViT (default: the package's ViT-Ti)")
    parser.add_argument("--img-size", metavar="N", type=int, help="input side in pixels")
    parser.add_argument("--depth", metavar="N", type=int, help="keep the first N blocks")
    parser.add_argument("--random-weights", action="store_true", help="untrained; with --backbone")
    parser.add_argument("--batch-size", metavar="N", type=int, default=48)
    parser.add_argument("--queries", metavar="Q", type=int, default=4)
    parser.add_argument(
        "--threads", metavar="N", type=int, default=board().cpu_count, help="(default: all cores)"
    )
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="also write the tables and a picture here")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def make_setup(options: Any, folder: Path) -> Setup:
    """The setup that was asked for. Raises InputError for numbers below 1."""
    for name in ("batch_size", "queries", "threads"):
        if getattr(options, name) < 1:
            raise InputError(
                f"--{name.replace('_', '-')} is {getattr(options, name)}, it must be at least 1."
            )
    random_weights = bool(options.random_weights or options.backbone)
    return Setup(
        folder=str(folder),
        backbone=options.backbone,
        img_size=options.img_size,
        depth=options.depth,
        random_weights=random_weights and options.backbone is not None,
        batch_size=options.batch_size,
        queries=options.queries,
        threads=options.threads,
    )


def _version(package: str) -> str:
    if package == "torch":
        try:
            from torch.version import __version__ as torch_version  # the local part is not in the metadata
        except ImportError:
            return "not installed"
        return str(torch_version)
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return f"{names[0] if names else platform.processor()} ({platform.machine()})"
