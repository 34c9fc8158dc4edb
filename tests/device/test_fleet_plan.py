"""The plan of a joined device, against the bytes that it sends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from shares import made_share

from edge_zofc.device.fleet_plan import joined_plan
from edge_zofc.device.memory_costs import FLOWER_BYTES
from edge_zofc.device.process_cost import BaseCost, Cost
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.gradient_info import GradientMemory
from edge_zofc.storage.manifest import ActivationBytes, BundleSizes
from edge_zofc.storage.settings import Placement
from edge_zofc.storage.share import encode

MIB = 1 << 20
BASE = BaseCost(process=Cost(40 * MIB, 32 * MIB, 78 * MIB), torch=None)


def test_a_tiny_network_is_python_and_flower(small_bundle: Bundle) -> None:
    found = joined_plan(small_bundle.manifest.sizes, Placement.simple(), BASE, 5)
    for peak in (found.without_steps_bytes, found.peak_bytes):
        assert 0 < peak - BASE.process.resident_bytes - sum(FLOWER_BYTES) < 25 * MIB
    assert {item.name for item in found.items} >= {"Flower", "weights", "activations"}


def test_long_features_take_most_while_a_head_is_solved_or_the_adapter_judged(small_bundle: Bundle) -> None:
    sizes = replace(small_bundle.manifest.sizes, feature_size=2048)
    found = joined_plan(sizes, Placement.simple(), BASE, 9)
    # No session is open while a head is solved.
    assert found.without_steps_bytes == pytest.approx((72 + 48 + 112 + 1) * MIB, rel=0.01)
    assert found.moment == "while the fleet's moved adapter is judged"
    assert found.peak_bytes == pytest.approx((72 + 48 + 304 + 1 + 16 + 4) * MIB, rel=0.01)


def test_bytes_are_those_of_a_share(small_bundle: Bundle) -> None:
    sizes = replace(small_bundle.manifest.sizes, feature_size=300)
    share = encode(made_share("device-7", classes=(0, 1, 2), each=100, size=300))
    found = joined_plan(sizes, Placement.simple(), BASE, 3)
    assert found.up_bytes == pytest.approx(len(share), rel=0.02)
    assert found.up_bytes < found.down_bytes < 1.3 * found.up_bytes


def test_weights_in_fp16_are_widened_while_a_head_is_tried(small_bundle: Bundle) -> None:
    """Not prepacked they were counted as mapped alone, half of what they take."""
    sizes = replace(small_bundle.manifest.sizes, precision="fp16", weights_bytes=8 * MIB)
    kept = Placement.simple().model_copy(update={"prepacking": False})
    weights = next(item for item in joined_plan(sizes, kept, BASE, 5).items if item.name == "weights")
    assert weights.anonymous_bytes == 16 * MIB


def ways(held_mib: int, run_mib: int) -> tuple[GradientMemory, ...]:
    """The same for each way of opening a session."""
    facts = {"anonymous": held_mib * MIB, "file": 0, "run": run_mib * MIB}
    return tuple(GradientMemory(prepacking=p, arena=a, **facts) for p in (False, True) for a in (False, True))


def lite0(small_bundle: Bundle) -> BundleSizes:
    """EfficientNet-Lite0 at 128 px, as it was exported."""
    way = {"prepacking": True, "anonymous": 12525568, "file": 397312, "run": 9351168}
    every = tuple(GradientMemory(**{**way, "prepacking": p, "arena": a}) for p in (False, True) for a in (False, True))
    return replace(
        small_bundle.manifest.sizes,
        precision="fp32", weights_bytes=13534208, image_side=128, feature_size=1280, adapter_size=3616, gradient=every,
        activation_bytes=ActivationBytes(fixed=2461696, per_image=0, per_image_and_adapter=2535424),
    )  # fmt: skip


def test_the_plan_is_what_a_device_took(small_bundle: Bundle) -> None:
    """A process without Flower began at 88.1 MiB, and had 163.3 while a head was tried, 252.0 while it judged."""
    began = BaseCost(process=Cost(int(41.1 * MIB), 47 * MIB, 115 * MIB), torch=None)
    kept = Placement.simple().model_copy(update={"micro_batch": 4, "prepacking": True, "arena": True})
    found = joined_plan(lite0(small_bundle), kept, began, 13)
    flower = sum(FLOWER_BYTES)
    assert found.without_steps_bytes - flower == pytest.approx(163.3 * MIB, rel=0.03)
    assert 252.0 * MIB < found.peak_bytes - flower < 260 * MIB


def test_where_the_way_back_is_long_the_peak_is_an_exact_step(small_bundle: Bundle) -> None:
    sizes, kept = small_bundle.manifest.sizes, Placement.simple()
    none, light, heavy = (
        joined_plan(replace(sizes, gradient=gradient), kept, BASE, 5) for gradient in (None, ways(50, 0), ways(50, 90))
    )
    assert light.moment == heavy.moment == "while a step of the fleet is measured by exact gradients"
    assert none.without_steps_bytes == light.without_steps_bytes == heavy.without_steps_bytes
    assert none.peak_bytes < light.peak_bytes < light.without_steps_bytes + 52 * MIB
    # The run back has the room of a run forward.
    assert 80 * MIB < heavy.peak_bytes - light.peak_bytes <= 90 * MIB


def test_forward_steps_run_as_many_adapters_as_the_run_did(small_bundle: Bundle) -> None:
    several = ActivationBytes(fixed=0, per_image=0, per_image_and_adapter=10 * MIB)
    sizes = replace(small_bundle.manifest.sizes, activation_bytes=several, queries_share=True, gradient=None)
    found = joined_plan(sizes, Placement.simple().model_copy(update={"parallel_queries": 9}), BASE, 5)
    assert found.moment == "while a step of the fleet is measured by forward passes"
    assert "x 9 adapter(s)" in next(item.note for item in found.items if item.name == "activations")
