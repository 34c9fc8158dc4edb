"""Where the frozen backbone comes from: the package, timm's hub, a checkpoint file, or random numbers.

How pictures are normalised comes from timm's record of the named weights, unless it is given.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.resources
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import nn

from edge_zofc.errors import InputError
from edge_zofc.export.checkpoints import Checkpoint, fill, parse_checkpoint, read_checkpoint
from edge_zofc.export.vit import SUPPORTED, check_supported
from edge_zofc.storage.manifest import BackboneInfo, ImageSpec

PACKAGE_NAME = "vit_tiny_patch16_96"
_PACKAGE_ARCHITECTURE = "vit_tiny_patch16_224"
_PACKAGE_IMAGE = ImageSpec(
    size=96, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic", crop_fraction=1.0
)
_MODULES = ("vision_transformer", "deit")  # timm's modules that build plain VisionTransformers
MAX_IMAGE_SIZE = 1024
Source = Literal["package", "timm", "checkpoint", "random"]
Colour = tuple[float, float, float]
"""Red, green, blue of pixels from 0 to 1."""


@dataclass(frozen=True)
class BackboneRequest:
    """Which backbone to load. Without ``name`` it is the package's own small ViT at 96 pixels.

    With a timm ``name`` exactly one source of weights must be given: ``pretrained`` (timm's hub), ``checkpoint`` (a
    safetensors file) or ``random_weights``. ``img_size`` S, in pixels, resizes the position table. ``depth`` keeps the
    first blocks. ``seed`` feeds random weights. ``mean`` and ``std`` replace those that timm names.
    """

    name: str | None = None
    pretrained: bool = False
    checkpoint: Path | None = None
    random_weights: bool = False
    img_size: int | None = None
    depth: int | None = None
    seed: int = 0
    mean: Colour | None = None
    std: Colour | None = None

    def source(self) -> Source:
        """Where the weights come from. Raises InputError if that is not said, or said twice."""
        given = [self.pretrained, self.checkpoint is not None, self.random_weights]
        if self.name is None:
            if any(given):
                raise InputError("--pretrained, --checkpoint and --random-weights need --backbone NAME (a timm model).")
            return "package"
        if sum(given) != 1:
            raise InputError(
                f"Give --backbone {self.name} exactly one source of weights: --pretrained (timm's hub), "
                "--checkpoint FILE (safetensors) or --random-weights (for benchmarks only)."
            )
        return "timm" if self.pretrained else "random" if self.checkpoint is None else "checkpoint"


PACKAGE_BACKBONE = BackboneRequest()


@dataclass(frozen=True)
class LoadedBackbone:
    """A timm VisionTransformer in eval mode, how its inputs are made, and where its weights came from.

    ``info.weights_sha256`` is the file's SHA-256 for ``package`` and ``checkpoint``, and that of all names and
    values in name order for the others, where there is no one file.
    ``width`` is D, the length of a token and of a feature. ``notes`` are sentences for whoever exports.
    """

    model: nn.Module
    image: ImageSpec
    info: BackboneInfo
    width: int
    notes: tuple[str, ...] = ()


def load_backbone(request: BackboneRequest = PACKAGE_BACKBONE) -> LoadedBackbone:
    """Build the backbone; torch's global random state is left alone.

    Raises InputError for everything that does not fit together.
    """
    source = request.source()
    if request.name is not None:
        _check_name(request.name)
    checkpoint = _checkpoint(request, source)
    model = _create(request, source, checkpoint is not None and checkpoint.pools_average)
    depth = _depth(model, request.depth)
    if checkpoint is not None:
        checkpoint = fill(model, checkpoint, request.name or PACKAGE_NAME, request.depth)
    model.blocks = model.blocks[:depth]
    info = BackboneInfo(
        name=request.name or PACKAGE_NAME,
        source=source,
        weights_sha256=checkpoint.sha256 if checkpoint else _state_digest(model),
        depth=depth,
        pooling=model.global_pool,
    )
    image = _image_spec(model, request)
    notes = (_normalisation_note(image, model.pretrained_cfg, request), *(checkpoint.notes if checkpoint else ()))
    return LoadedBackbone(model.eval().requires_grad_(False), image, info, int(model.embed_dim), notes)


def _create(request: BackboneRequest, source: Source, average: bool) -> Any:
    """The model at the size that was asked for, with random weights or those of timm's hub.

    ``average`` makes it pool the average of the tokens, whatever timm's model of the name does.
    """
    size = request.img_size
    if request.name is None and size is None:
        size = _PACKAGE_IMAGE.size
    if size is not None and not 8 <= size <= MAX_IMAGE_SIZE:
        raise InputError(f"The image size must be 8 to {MAX_IMAGE_SIZE} pixels, got {size}.")
    options: dict[str, Any] = {"num_classes": 0, "pretrained": source == "timm"}
    if size is not None:
        options["img_size"] = size
    if average:
        options |= {"global_pool": "avg", "fc_norm": True}
    model = _from_timm(request.name or _PACKAGE_ARCHITECTURE, options, request.seed)
    check_supported(model)
    _check_patches(model)
    return model


def _checkpoint(request: BackboneRequest, source: Source) -> Checkpoint | None:
    """The file that the weights come from, if they come from one."""
    if source == "package":
        weights = importlib.resources.files(__package__).joinpath(f"weights/{PACKAGE_NAME}.safetensors")
        return parse_checkpoint(weights.read_bytes(), PACKAGE_NAME)
    return None if request.checkpoint is None else read_checkpoint(request.checkpoint)


def _check_name(name: str) -> None:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3, cutoff=0.5)
        hint = f"the nearest are {', '.join(near)}" if near else "timm.list_models() has them all"
        raise InputError(f"timm has no model named '{name}'; {hint}.")
    if not any(name.split(".")[0] in timm.list_models(module=module) for module in _MODULES):
        raise InputError(f"'{name}' is not a VisionTransformer; supported are {SUPPORTED}.")


def _from_timm(architecture: str, options: dict[str, Any], seed: int) -> Any:
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return timm.create_model(architecture, **options)
    # timm and its hub client raise these for no network, no such tag or no such weights; httpx's errors,
    # which are none of them, are re-raised by the client as one of its own OSErrors.
    except (OSError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        if options["pretrained"]:
            raise InputError(
                f"The pretrained weights of '{architecture}' could not be fetched ({first}); "
                "download them elsewhere and give --checkpoint FILE."
            ) from error
        raise InputError(f"timm cannot build '{architecture}' ({first}).") from error


def _check_patches(model: Any) -> None:
    size, patch = model.patch_embed.img_size[0], model.patch_embed.patch_size[0]
    if size % patch or size < patch:
        raise InputError(f"The image size must be a multiple of the patch size {patch}, got {size}.")


def _depth(model: Any, depth: int | None) -> int:
    available = len(model.blocks)
    if depth is None:
        return available
    if not 1 <= depth <= available:
        raise InputError(f"--depth must be 1 to {available}, the blocks of this backbone; got {depth}.")
    return depth


def _image_spec(model: Any, request: BackboneRequest) -> ImageSpec:
    _check_normalisation(request)
    size, config = model.patch_embed.img_size[0], model.pretrained_cfg
    own = _PACKAGE_IMAGE if request.name is None else None
    interpolation = config.get("interpolation", "bicubic")
    return ImageSpec(
        size=size,
        mean=request.mean or (own.mean if own else tuple(config["mean"])),
        std=request.std or (own.std if own else tuple(config["std"])),
        interpolation=interpolation if interpolation in ("bilinear", "bicubic", "nearest", "lanczos") else "bicubic",
        crop_fraction=own.crop_fraction if own else config.get("crop_pct") or 1.0,
    )


def _check_normalisation(request: BackboneRequest) -> None:
    for option, values, low in (("--mean", request.mean, 0.0), ("--std", request.std, 1e-3)):
        if values is not None and not all(low <= value <= 1.0 for value in values):
            shown = ",".join(f"{value:g}" for value in values)
            raise InputError(
                f"{option} must be {low:g} to 1 in red, green and blue, as pixels are 0 to 1; got {shown}. "
                "Divide numbers for pixels of 0 to 255 by 255."
            )


def _normalisation_note(image: ImageSpec, config: Any, request: BackboneRequest) -> str:
    """One sentence: mean, standard deviation and where they came from."""
    mean, std = (",".join(f"{value:g}" for value in values) for values in (image.mean, image.std))
    given = {"mean": request.mean, "std": request.std}
    kept = [name for name, values in given.items() if values is None]
    told = [f"{name} as given" for name, values in given.items() if values is not None]
    if kept:
        told.append(f"{' and '.join(kept)} {_normalisation_origin(config, request.name)}")
    return f"pictures are normalised with mean {mean} and std {std}: {', '.join(told)}"


def _normalisation_origin(config: Any, name: str | None) -> str:
    if name is None:
        return "of the package's own ViT"
    architecture, tag = str(config.get("architecture")), str(config.get("tag"))
    if "." in name:
        return f"of timm's tag '{tag}'"
    found = f"of '{tag}', timm's default tag for {name}"
    mine = (tuple(config["mean"]), tuple(config["std"]))
    tags = {other: timm.get_pretrained_cfg(other) for other in timm.list_pretrained(f"{architecture}.*")}
    others = [other for other, its in tags.items() if its and (tuple(its.mean), tuple(its.std)) != mine]
    if not others:
        return f"{found} (weights trained with others need --mean and --std)"
    return f"{found} (others are used by {', '.join(others[:3])}: name that, or give --mean and --std)"


def _state_digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + b"\0")
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()
