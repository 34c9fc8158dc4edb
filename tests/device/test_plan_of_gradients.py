"""The plan of a run by exact gradients: the session that goes both ways is an item of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from plans import MIB, item, manifest, work

from edge_zofc.algorithm.options import make_options
from edge_zofc.device import memory_items, memory_plan
from edge_zofc.storage.gradient_info import GradientMemory


def exact_work(anonymous_mib: int, **changes: Any) -> memory_items.Work:
    """A closed-form head steered by episodes, and so many MiB for the way back, half without the arena."""
    ways = [(prepacking, arena) for prepacking in (True, False) for arena in (True, False)]
    memory = tuple(
        GradientMemory(
            prepacking=packed,
            arena=arena,
            anonymous=(anonymous_mib if arena else anonymous_mib // 2) * MIB,
            file=7 * MIB,
        )
        for packed, arena in ways
    )
    options = make_options("edge", {"estimator": "exact", **changes})
    return replace(work(), sizes=replace(manifest("w8").sizes, gradient=memory), options=options)


def test_the_gradient_session_is_an_item_with_the_bytes_of_the_export() -> None:
    found = memory_plan.plan(exact_work(200), 100_000 * MIB)
    assert found.placement.arena
    assert (item(found, "exact gradients").anonymous_bytes, item(found, "exact gradients").file_bytes) == (
        200 * MIB,
        7 * MIB,
    )
    thrifty = memory_plan.plan(exact_work(200), found.peak_bytes - 500 * MIB)
    assert not thrifty.placement.arena
    assert item(thrifty, "exact gradients").anonymous_bytes == 100 * MIB


def test_a_small_gradient_session_lies_in_the_room_of_the_heads_matrices() -> None:
    """It is closed when they are worked on, so that the peak is that of one of the two moments."""
    spsa = replace(exact_work(2), options=make_options("edge", {"estimator": "spsa"}))
    small, large = (memory_plan.plan(exact_work(size), 100_000 * MIB) for size in (2, 200))
    heads = ("head", "covariance of the closed-form head")
    at_its_largest = [item(memory_plan.plan(spsa, 100_000 * MIB), name).anonymous_bytes for name in heads]
    assert item(small, "exact gradients").anonymous_bytes == 3 * MIB
    assert [item(small, name).anonymous_bytes for name in heads] == at_its_largest
    assert sum(item(large, name).anonymous_bytes for name in heads) < sum(at_its_largest)


def test_one_adapter_is_evaluated_in_a_step() -> None:
    assert exact_work(100).evaluations == 1
    assert memory_plan.plan(exact_work(100), 100_000 * MIB).placement.parallel_queries == 1


def test_a_run_back_takes_the_room_of_a_run_forward() -> None:
    plain, work = exact_work(200), exact_work(200)
    room = memory_items.activations(plain.sizes, memory_plan.plan(plain, 100_000 * MIB).placement)
    for run, more in ((room // 2, 0), (room, 0), (room + 5 * MIB, 5 * MIB)):
        ways = tuple(one.model_copy(update={"run": run}) for one in work.sizes.gradient or ())
        found = memory_plan.plan(replace(work, sizes=replace(work.sizes, gradient=ways)), 100_000 * MIB)
        assert item(found, "exact gradients").anonymous_bytes == 200 * MIB + more


def test_what_the_way_back_maps_is_reserved() -> None:
    spsa = replace(exact_work(100), options=make_options("edge", {"estimator": "spsa", "queries": 1}))
    more = memory_plan.plan(exact_work(100), 100_000 * MIB, memory_plan.Fixed(1, 1)).reserved_bytes
    more -= memory_plan.plan(spsa, 100_000 * MIB, memory_plan.Fixed(1, 1)).reserved_bytes
    assert more == 7 * MIB + int(1.25 * 100 * MIB)


def test_an_adapter_that_rests_has_no_gradient_session() -> None:
    found = memory_plan.plan(exact_work(200, adapter="off"), 100_000 * MIB)
    assert all(entry.name != "exact gradients" for entry in found.items)
