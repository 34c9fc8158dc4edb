"""What can be asked of an export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_zofc.errors import InputError
from edge_zofc.export.adapted import AdapterRequest
from edge_zofc.export.backbones import BackboneRequest
from edge_zofc.export.fidelity import DIRECTIONS
from edge_zofc.export.gradient_graph import PRECISIONS as GRADIENT_PRECISIONS
from edge_zofc.export.image_spec import Colour
from edge_zofc.export.precision import EXPORT_TOLERANCE
from edge_zofc.export.tuning import MOST_STEPS, STEPS, TuningRequest
from edge_zofc.storage.manifest import MANIFEST, AdapterKind, Precision


@dataclass(frozen=True)
class ExportOptions:
    """What to export, where to: the fields of ``BackboneRequest`` and, with other names, of ``AdapterRequest``.

    ``pictures`` is a folder to measure fidelity on instead of the package's photographs; ``seed`` feeds the initial
    adapter and random weights; ``force`` replaces a bundle that is there. ``mean`` and ``std`` (R, G, B of pixels from
    0 to 1) replace those that timm names for the backbone. ``gradient`` adds the graph for exact gradients; None adds
    it where that can be done, and tells why not. ``tune``: folders that the adapter's start is trained on, for
    ``tune_steps``; by default it is the identity.
    """

    out: Path
    backbone: str | None = None
    pretrained: bool = False
    checkpoint: Path | None = None
    random_weights: bool = False
    img_size: int | None = None
    depth: int | None = None
    mean: Colour | None = None
    std: Colour | None = None
    adapter_kind: AdapterKind | None = None
    adapter_blocks: str | None = None
    rank: int | None = None
    scale: float = 0.1
    precision: Precision = "fp32"
    seed: int = 0
    pictures: Path | None = None
    directions: int = DIRECTIONS
    gradient: bool | None = False
    tune: Sequence[Path] = ()
    tune_steps: int | None = None
    force: bool = False


def check_options(options: ExportOptions) -> None:
    """Raise InputError for options that cannot be met, before any work."""
    if options.precision not in EXPORT_TOLERANCE:
        raise InputError(f"--precision must be one of {', '.join(EXPORT_TOLERANCE)}, got '{options.precision}'.")
    if options.gradient and options.precision not in GRADIENT_PRECISIONS:
        raise InputError(
            f"--gradient is for --precision {' or '.join(GRADIENT_PRECISIONS)}, got {options.precision}; leave one of "
            "the two out (without exact gradients a bundle learns by forward passes)."
        )
    if options.directions < DIRECTIONS:
        raise InputError(f"Fidelity needs at least {DIRECTIONS} directions, got {options.directions}.")
    if not 0 <= options.seed < 2**63:
        raise InputError(f"--seed must be 0 to 2^63 - 1, got {options.seed}.")
    if options.tune_steps is not None and not options.tune:
        raise InputError("--tune-steps belongs to --tune FOLDER; give both or neither.")
    if options.tune_steps is not None and not 1 <= options.tune_steps <= MOST_STEPS:
        raise InputError(f"--tune-steps must be 1 to {MOST_STEPS}, got {options.tune_steps}.")
    out = options.out
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(f"{out} is there and is not a folder; choose another OUT.")
    if (out / MANIFEST).exists():
        if not options.force:
            raise InputError(f"{out} holds a bundle already; choose another OUT or replace it with --force.")
    elif out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out} is a folder with other things in it; choose another OUT.")


def backbone_request(options: ExportOptions) -> BackboneRequest:
    """Which backbone is asked for."""
    return BackboneRequest(
        name=options.backbone,
        pretrained=options.pretrained,
        checkpoint=options.checkpoint,
        random_weights=options.random_weights,
        img_size=options.img_size,
        depth=options.depth,
        seed=options.seed,
        mean=options.mean,
        std=options.std,
    )


def adapter_request(options: ExportOptions) -> AdapterRequest:
    """Which adapters are asked for."""
    return AdapterRequest(options.adapter_kind, options.adapter_blocks, options.rank, options.scale)


def tuning_request(options: ExportOptions) -> TuningRequest:
    """What the adapter's start is to be trained on."""
    return TuningRequest(options.tune, options.tune_steps or STEPS, options.seed)
