"""The plan of a joined device, against the bytes that it sends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from shares import made_share

from edge_zofc.device.fleet_plan import joined_plan
from edge_zofc.device.memory_costs import FLOWER_BYTES
from edge_zofc.device.process_cost import BaseCost, Cost
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.settings import Placement
from edge_zofc.storage.share import encode

MIB = 1 << 20
BASE = BaseCost(process=Cost(40 * MIB, 32 * MIB, 78 * MIB), torch=None)


def test_a_tiny_network_is_python_and_flower(small_bundle: Bundle) -> None:
    found = joined_plan(small_bundle.manifest.sizes, Placement.simple(), BASE, 5)
    assert 0 < found.peak_bytes - BASE.process.resident_bytes - sum(FLOWER_BYTES) < 25 * MIB
    assert {item.name for item in found.items} >= {"Flower", "weights", "activations"}


def test_long_features_take_their_peak_while_a_head_is_solved(small_bundle: Bundle) -> None:
    sizes = replace(small_bundle.manifest.sizes, feature_size=2048)
    found = joined_plan(sizes, Placement.simple(), BASE, 9)
    assert found.peak_bytes == pytest.approx((72 + 48 + 112 + 1) * MIB, rel=0.01)
    assert not any(item.name == "weights" for item in found.items), "the session has gone by then"


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
