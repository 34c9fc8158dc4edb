"""Work of a ViT-B/16 to be planned, and a plan's items by name: what the tests of the memory plan share."""

from __future__ import annotations

from edge_zofc.algorithm.options import Options
from edge_zofc.device import memory_items, memory_plan
from edge_zofc.device.process_cost import BaseCost, Cost
from edge_zofc.storage.manifest import FILES, Manifest

MIB = 1 << 20
WITH_TORCH = BaseCost(process=Cost(30 * MIB, 30 * MIB, 80 * MIB), torch=Cost(270 * MIB, 230 * MIB, 660 * MIB))
OPTIONS = ("batch_size", "queries", "query_form", "head", "optimizer")


def manifest(precision: str = "fp32", weights_mib: int = 327) -> Manifest:
    """A ViT-B/16 at 224, with 26 MiB of activations a picture, which is more than it takes."""
    width, rank = 768, 5
    pieces = [{"name": "blocks.0.down.weight", "shape": (rank, width), "offset": 0}]
    return Manifest.model_validate(
        {
            "format_version": 1,
            "written_by": {},
            "backbone": {
                "name": "vit_base_patch16_224",
                "source": "random",
                "weights_sha256": "0" * 64,
                "depth": 12,
                "pooling": "token",
            },
            "image": {
                "size": 224,
                "mean": (0.5,) * 3,
                "std": (0.5,) * 3,
                "interpolation": "bicubic",
                "crop_fraction": 0.9,
            },
            "adapter": {"blocks": (0,), "rank": rank, "scale": 0.1, "pieces": pieces},
            "feature_size": width,
            "precision": precision,
            "fidelity": {"eps": 1e-3, "directions": 64, "one_sided": 0.99, "two_sided": 0.99},
            "activation_bytes": {"fixed": MIB, "per_image": 6 * MIB, "per_image_and_adapter": 20 * MIB},
            "files": {
                name: {"bytes": weights_mib * MIB if name.endswith(".data") else 1000, "sha256": "0" * 64}
                for name in FILES
            },
        }
    )


def work(precision: str = "w8", weights_mib: int = 89, **changes: object) -> memory_items.Work:
    asked = {name: changes[name] for name in OPTIONS if name in changes}
    options = Options("edge", **{"query_form": "one-sided", **asked})  # type: ignore[arg-type]
    base, threads = changes.get("base", WITH_TORCH), changes.get("threads", 2)
    return memory_items.Work(manifest(precision, weights_mib).sizes, options, base, 100, threads)  # type: ignore[arg-type]


def item(found: memory_plan.MemoryPlan, name: str) -> memory_items.PlanItem:
    return next(entry for entry in found.items if entry.name == name)
