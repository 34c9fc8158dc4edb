"""Where the frozen backbone comes from: a package, timm's hub, a checkpoint file, or random numbers."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import nn

from edge_zofc.errors import InputError
from edge_zofc.export import cnn, vit
from edge_zofc.export.checkpoints import Checkpoint, fill, fill_cnn, read_checkpoint
from edge_zofc.export.image_spec import Colour, check_colours, image_spec, normalisation_note, picture_note, timm_origin
from edge_zofc.export.package_weights import fill_shipped
from edge_zofc.export.shipped import DEFAULT, SHIPPED, Shipped
from edge_zofc.storage.manifest import BackboneInfo, ImageSpec

_VIT_MODULES = ("vision_transformer", "deit")  # timm's modules that build plain VisionTransformers
_CNN_MODULES = ("efficientnet", "mobilenetv3", "resnet", "regnet", "convnext")
_SIDES = (8, 1024)
Source = Literal["package", "timm", "checkpoint", "random"]


@dataclass(frozen=True)
class BackboneRequest:
    """Which backbone to load. Without ``name`` it is the default, EfficientNet-Lite0 from its package.

    A ``name`` of SHIPPED brings its weights. With a timm ``name`` exactly one source of weights must be given:
    ``pretrained`` (timm's hub), ``checkpoint`` (a safetensors file) or ``random_weights``. ``img_size`` S is in pixels;
    a ViT's position table is resized to it. ``depth`` keeps the first blocks of a ViT. ``seed`` feeds random weights.
    ``mean`` and ``std`` replace those that come with the name.
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

    @property
    def shipped(self) -> Shipped | None:
        """The backbone of a package that is meant, if one is."""
        return SHIPPED.get(self.name or DEFAULT)

    def source(self) -> Source:
        """Where the weights come from. Raises InputError if that is not said, or said twice."""
        given = [self.pretrained, self.checkpoint is not None, self.random_weights]
        if self.shipped is not None:
            if any(given):
                raise InputError("--pretrained, --checkpoint and --random-weights need --backbone NAME (a timm model).")
            return "package"
        if sum(given) != 1:
            raise InputError(
                f"Give --backbone {self.name} exactly one source of weights: --pretrained (timm's hub), "
                "--checkpoint FILE (safetensors) or --random-weights (for benchmarks only)."
            )
        return "timm" if self.pretrained else "random" if self.checkpoint is None else "checkpoint"


@dataclass(frozen=True)
class LoadedBackbone:
    """A timm network without its classifier in eval mode, how its inputs are made, and where its weights came from.

    ``info.weights_sha256`` is the file's SHA-256 for ``package`` and ``checkpoint``, and that of all names and
    values in name order for the others, where there is no one file.
    ``width`` is D, the length of a feature. ``notes`` are sentences for whoever exports.
    """

    model: nn.Module
    image: ImageSpec
    info: BackboneInfo
    width: int
    notes: tuple[str, ...] = ()

    @property
    def is_vit(self) -> bool:
        """Whether it is a VisionTransformer; if not it is a CNN."""
        return hasattr(self.model, "patch_embed")


@dataclass(frozen=True)
class _Weights:
    """What there is to tell of weights: their SHA-256 if they are one file, and sentences."""

    sha256: str | None = None
    notes: tuple[str, ...] = ()


def load_backbone(request: BackboneRequest) -> LoadedBackbone:
    """Build the backbone; torch's global random state is left alone.

    Raises InputError for everything that does not fit together.
    """
    source, shipped = request.source(), request.shipped
    check_colours(request.mean, request.std)
    if request.img_size is not None and not _SIDES[0] <= request.img_size <= _SIDES[1]:
        raise InputError(f"The image size must be {_SIDES[0]} to {_SIDES[1]} pixels, got {request.img_size}.")
    name = shipped.architecture if shipped else _known_name(str(request.name))
    side = request.img_size or (shipped.image.size if shipped else None)
    is_vit = _is_of(name, _VIT_MODULES)
    if request.depth is not None and not is_vit:
        raise InputError("--depth keeps the first blocks of a ViT; a CNN is taken whole.")
    checkpoint = None
    if request.checkpoint is not None and is_vit:
        checkpoint = read_checkpoint(request.checkpoint)
    options: dict[str, Any] = {"pretrained": source == "timm"}
    if is_vit:
        model = _create_vit(name, options, side, request.seed, checkpoint)
    else:  # its weights fit any size of picture
        model = _from_timm(name, options, request.seed)
        cnn.check_supported(model)
    return _loaded(model, _fill(model, request, checkpoint), request, source, is_vit)


def _fill(model: Any, request: BackboneRequest, checkpoint: Checkpoint | None) -> _Weights:
    """Fill ``model``, which timm has filled already where the weights are timm's or random."""
    if request.shipped is not None:
        fill_shipped(model, request.shipped)
        return _Weights(request.shipped.sha256)
    if checkpoint is not None:
        checkpoint = fill(model, checkpoint, str(request.name), request.depth)
    elif request.checkpoint is not None:
        checkpoint = fill_cnn(model, request.checkpoint, str(request.name))
    return _Weights(checkpoint.sha256, checkpoint.notes) if checkpoint else _Weights()


def _loaded(model: Any, weights: _Weights, request: BackboneRequest, source: Source, is_vit: bool) -> LoadedBackbone:
    shipped = request.shipped
    if is_vit:
        model.blocks = model.blocks[: _depth(model, request.depth)]
    side = model.patch_embed.img_size[0] if is_vit else request.img_size
    if shipped is not None:
        given = {"size": side or shipped.image.size, "mean": request.mean, "std": request.std}
        image = shipped.image.model_copy(update={key: value for key, value in given.items() if value is not None})
    else:
        config = model.pretrained_cfg
        image = image_spec(config, side or config["input_size"][1], request.mean, request.std)
    info = BackboneInfo(
        name=shipped.name if shipped else str(request.name),
        source=source,
        weights_sha256=weights.sha256 or _state_digest(model),
        depth=len(model.blocks) if is_vit else len(cnn.blocks_of(model)),
        pooling=model.global_pool if is_vit else "avg",
    )
    origin = f"of {shipped.name}" if shipped else timm_origin(model.pretrained_cfg, str(request.name))
    notes = (picture_note(image), normalisation_note(image, origin, request.mean, request.std), *weights.notes)
    width = int(model.embed_dim) if is_vit else cnn.feature_size(model, image.size)
    return LoadedBackbone(model.eval().requires_grad_(False), image, info, width, notes)


def _create_vit(name: str, options: dict[str, Any], side: int | None, seed: int, checkpoint: Checkpoint | None) -> Any:
    """A ViT at S = ``side``, with random weights or those of timm's hub, pooled as the checkpoint was."""
    if side is not None:
        options = options | {"img_size": side}
    if checkpoint is not None and checkpoint.pools_average:
        options = options | {"global_pool": "avg", "fc_norm": True}
    model = _from_timm(name, options, seed)
    vit.check_supported(model)
    size, patch = model.patch_embed.img_size[0], model.patch_embed.patch_size[0]
    if size % patch or size < patch:
        raise InputError(f"The image size must be a multiple of the patch size {patch}, got {size}.")
    return model


def _known_name(name: str) -> str:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], [*timm.list_models(), *SHIPPED], n=3, cutoff=0.5)
        hint = f"the nearest are {', '.join(near)}" if near else "timm.list_models() has them all"
        raise InputError(f"timm has no model named '{name}'; {hint}.")
    if not _is_of(name, (*_VIT_MODULES, *_CNN_MODULES)):
        raise InputError(f"'{name}' is not supported; supported are {cnn.SUPPORTED}, and {vit.SUPPORTED}.")
    return name


def _is_of(name: str, modules: tuple[str, ...]) -> bool:
    return any(name.split(".")[0] in timm.list_models(module=module) for module in modules)


def _from_timm(architecture: str, options: dict[str, Any], seed: int) -> Any:
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return timm.create_model(architecture, num_classes=0, **options)
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


def _depth(model: Any, depth: int | None) -> int:
    available = len(model.blocks)
    if depth is None:
        return available
    if not 1 <= depth <= available:
        raise InputError(f"--depth must be 1 to {available}, the blocks of this backbone; got {depth}.")
    return depth


def _state_digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + b"\0")
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()
