"""Reads a checkpoint that somebody else wrote into a timm network.

A checkpoint is a safetensors file with timm's names, or the index of several. They may stand behind any prefix
(``module.``, ``model.encoder.``, ``teacher.backbone.``, ...), and heads and decoders of the training may be in the file
too. What is not used is told. A position table of another size is resized, as timm does it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm.layers
import torch

from edge_zofc.errors import InputError
from edge_zofc.export.checkpoint_files import parse_tensors, read_tensors

VIT_ANCHOR = "patch_embed.proj.weight"  # every VisionTransformer has it; what stands before it is the prefix
_WRAPPERS = re.compile(r"\b(_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_CHUNKED = re.compile(r"^blocks\.\d+\.(\d+)\.")  # DINOv2 trains its blocks in groups
_LAYER_SCALE = re.compile(r"\.gamma_([12])$")
_NO_BACKBONE = re.compile(
    r"(head|head_dist|fc|fc_norm|classifier|linear|pre_logits|mask_token|decoder\w*|(dino|ibot|proj|projection)_head"
    r"|projector|predictor|last_layer)(\.|$)"
)
_AVERAGED, _TRAINED = ("teacher", "ema"), ("student", "momentum", "decoder", "predictor")
_OTHER_NAMES = (
    ("patch_embeddings.projection", "Hugging Face transformers"),
    ("encoder.layer.0.", "Hugging Face transformers"),
    ("embeddings.patch_embedding.weight", "Hugging Face transformers' CLIP or SigLIP"),
    ("conv_proj.weight", "torchvision"),
    ("visual.conv1.weight", "OpenAI's CLIP or open_clip"),
)
_MODEL_OF_WIDTH = {192: "vit_tiny", 384: "vit_small", 768: "vit_base", 1024: "vit_large", 1280: "vit_huge"}


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by timm's names. ``origin`` says in errors which file it is; ``sha256`` is that of its bytes.

    ``notes`` are sentences about what was left out.
    """

    origin: str
    sha256: str
    tensors: dict[str, torch.Tensor]
    notes: tuple[str, ...] = ()

    @property
    def pools_average(self) -> bool:
        """Whether it was trained on the average of the tokens, normalised after pooling and not before."""
        return "fc_norm.weight" in self.tensors and "norm.weight" not in self.tensors


def read_checkpoint(path: Path, anchor: str = VIT_ANCHOR) -> Checkpoint:
    """Read a file, or the shards of an index file, of a network that has a tensor of the name ``anchor``.

    Raises InputError if it is not safetensors or has another library's names.
    """
    return _with_plain_names(*read_tensors(path), str(path), anchor)


def parse_checkpoint(raw: bytes, origin: str, anchor: str = VIT_ANCHOR) -> Checkpoint:
    """The checkpoint in the bytes of a safetensors file; errors as ``read_checkpoint``."""
    return _with_plain_names(parse_tensors(raw, origin), hashlib.sha256(raw).hexdigest(), origin, anchor)


def _with_plain_names(found: dict[str, torch.Tensor], sha256: str, origin: str, anchor: str) -> Checkpoint:
    prefix, others = _prefix(found, anchor)
    _refuse_other_names(found, prefix + anchor, origin)
    taken = [key for key in found if key.startswith(prefix) and not key.startswith(others)]
    kept = {_plain(key[len(prefix) :], anchor): found[key] for key in taken}
    checkpoint = Checkpoint(origin, sha256, kept)
    if prefix:
        checkpoint = _noted(checkpoint, f"the backbone's names in {origin} begin with '{prefix}'")
    return _noted(checkpoint, _left_out(origin, sorted(found.keys() - set(taken))))


def fill(model: Any, checkpoint: Checkpoint, name: str, depth: int | None) -> Checkpoint:
    """Copy the tensors into ``model``, timm's ``name`` in full depth; returns the checkpoint with its notes.

    Blocks from ``depth`` on may be missing in the file. Raises InputError if something does not fit.
    """
    state, origin = dict(checkpoint.tensors), checkpoint.origin
    _check_sizes(state, model, origin, name)
    _check_blocks(state, origin, name, len(model.blocks), depth)
    _place_registers(state, model, origin, name)
    wanted = model.state_dict()
    extra = [key for key in state if key not in wanted and _NO_BACKBONE.match(key)]
    state = {key: value.float() for key, value in state.items() if key not in extra}
    if depth is not None:
        for key, value in wanted.items():
            if key.startswith("blocks.") and int(key.split(".")[1]) >= depth:
                state.setdefault(key, value)
    check_names(wanted, state, origin, name)
    if model.pos_embed is not None:
        state["pos_embed"] = _resize_positions(state["pos_embed"], model, origin)
    copy_tensors(model, state, origin)
    return _noted(checkpoint, _left_out(origin, extra))


def fill_cnn(model: torch.nn.Module, path: Path, name: str) -> Checkpoint:
    """Copy the tensors of a file into ``model``, timm's CNN ``name`` without its classifier.

    Returns the checkpoint with its notes. Raises InputError if something does not fit.
    """
    wanted = model.state_dict()
    checkpoint = read_checkpoint(path, next(iter(wanted)))
    extra = [key for key in checkpoint.tensors if key not in wanted and _NO_BACKBONE.match(key)]
    state = {key: value for key, value in checkpoint.tensors.items() if key not in extra}
    for key, value in wanted.items():
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, value)  # a counter of training, which some writers leave out
    check_names(wanted, state, checkpoint.origin, name)
    copy_tensors(model, state, checkpoint.origin)
    return _noted(checkpoint, _left_out(checkpoint.origin, extra))


def check_names(wanted: Collection[str], found: Collection[str], origin: str, name: str) -> None:
    """Raise InputError unless both are the same names."""
    missing, unknown = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or unknown:
        raise InputError(
            f"{origin} does not fit {name} with timm's key names: missing {_some(missing)}, unknown {_some(unknown)}."
        )


def copy_tensors(model: torch.nn.Module, state: dict[str, torch.Tensor], origin: str) -> None:
    """Copy ``state``, which has the model's names, into it. Raises InputError for other shapes or numbers like nan."""
    wanted = model.state_dict()
    wrong = [key for key in sorted(wanted) if wanted[key].shape != state[key].shape]
    if wrong:
        key = wrong[0]
        raise InputError(
            f"{origin} does not fit the model: {key} has shape {list(state[key].shape)}, "
            f"not {list(wanted[key].shape)} ({len(wrong)} such)."
        )
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise InputError(f"{origin} holds weights that are not finite numbers.")
    model.load_state_dict(state)


def _prefix(keys: Iterable[str], anchor: str) -> tuple[str, tuple[str, ...]]:
    """What stands before the names of the backbone, and before those of other backbones in the file.

    A teacher's or an averaged backbone comes first, as it is the one that self-supervised methods are judged by.
    """
    found = [key[: -len(anchor)] for key in keys if key == anchor or key.endswith("." + anchor)]

    def rank(prefix: str) -> tuple[bool, bool, int, str]:
        averaged = any(word in re.split(r"[._]", prefix) for word in _AVERAGED)
        return not averaged, any(word in prefix for word in _TRAINED), len(prefix), prefix

    if not found:
        return "", ()
    best = min(found, key=rank)
    return best, tuple(other for other in found if not best.startswith(other))


def _refuse_other_names(keys: Collection[str], anchor: str, origin: str) -> None:
    if anchor in keys:
        return
    for part, library in _OTHER_NAMES:
        if any(part in key for key in keys):
            raise InputError(
                f"{origin} has the names of {library}, not timm's; take timm's own file of the same model "
                "(--pretrained, or --checkpoint with its model.safetensors)."
            )


def _plain(name: str, anchor: str) -> str:
    name = _WRAPPERS.sub("", name)
    if anchor != VIT_ANCHOR:
        return name
    name = _CHUNKED.sub(r"blocks.\1.", name)
    return _LAYER_SCALE.sub(r".ls\1.gamma", name)


def _check_sizes(state: dict[str, torch.Tensor], model: Any, origin: str, name: str) -> None:
    """Refuse another width or patch size with both numbers."""
    patches = state.get(VIT_ANCHOR)
    if patches is None or patches.ndim != 4:
        return
    width, side, own_side = patches.shape[0], patches.shape[-1], model.patch_embed.patch_size[0]
    if width != model.embed_dim:
        near = f", such as a {_MODEL_OF_WIDTH[width]}" if width in _MODEL_OF_WIDTH else ""
        raise InputError(
            f"{origin} is of a ViT of width {width}, {name} has width {model.embed_dim}; "
            f"give --backbone a model of width {width}{near}."
        )
    if side != own_side:
        raise InputError(
            f"{origin} has patches of {side} pixels, {name} of {own_side}; give --backbone a model with patch{side}."
        )


def _check_blocks(state: Iterable[str], origin: str, name: str, available: int, depth: int | None) -> None:
    """Refuse a file with more blocks than the model, or with fewer than are to be kept."""
    blocks = 1 + max((int(found[1]) for key in state if (found := re.match(r"blocks\.(\d+)\.", key))), default=-1)
    if blocks > available:
        raise InputError(
            f"{origin} has {blocks} blocks, {name} has {available}; give --backbone a model of {blocks} blocks."
        )
    if 0 < blocks < (depth or available):
        raise InputError(
            f"{origin} has {blocks} blocks, {depth or available} of {name} are asked for; "
            f"give --depth {blocks}, or --backbone a model of {blocks} blocks."
        )


def _place_registers(state: dict[str, torch.Tensor], model: Any, origin: str, name: str) -> None:
    """Give DINOv2's own registers timm's names and places, in place; raise InputError if the model has none."""
    own = getattr(model, "reg_token", None)
    if own is None and ("register_tokens" in state or "reg_token" in state):
        raise InputError(
            f"{origin} has register tokens, which {name} has not; "
            "give --backbone a model with them, such as vit_small_patch14_reg4_dinov2."
        )
    if "register_tokens" not in state:
        return
    state["reg_token"] = state.pop("register_tokens")
    positions = state.get("pos_embed")
    if model.no_embed_class and positions is not None and "cls_token" in state:
        # The class token has a place of its own in the table of DINOv2; timm adds it to the token once and for all.
        state["cls_token"] = state["cls_token"] + positions[:, :1]
        state["pos_embed"] = positions[:, 1:]


def _noted(checkpoint: Checkpoint, note: str) -> Checkpoint:
    return replace(checkpoint, notes=(*checkpoint.notes, note)) if note else checkpoint


def _left_out(origin: str, keys: list[str]) -> str:
    parts = sorted({key.split(".")[0] for key in keys})
    return f"left out of {origin}: {len(keys)} tensors beside the backbone ({_some(parts)})" if keys else ""


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:3]) or "nothing"
    return f"{shown} and {len(keys) - 3} more" if len(keys) > 3 else shown


def _resize_positions(table: torch.Tensor, model: Any, origin: str) -> torch.Tensor:
    if table.shape[1:] == model.pos_embed.shape[1:]:
        return table
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    side = math.isqrt(max(0, table.shape[1] - prefix)) if table.ndim == 3 else 0
    if side == 0 or side * side + prefix != table.shape[1] or table.shape[2] != model.pos_embed.shape[2]:
        raise InputError(
            f"{origin} has a position table of shape {list(table.shape)}, which is no square grid for this model."
        )
    layers: Any = timm.layers
    resized: torch.Tensor = layers.resample_abs_pos_embed(
        table, list(model.patch_embed.grid_size), old_size=[side, side], num_prefix_tokens=prefix
    )
    return resized
