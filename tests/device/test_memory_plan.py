"""The plan adds up and chooses speed where there is room."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import MIB, OPTIONS, item, manifest, work

from edge_zofc.algorithm.options import make_options
from edge_zofc.device import memory_plan
from edge_zofc.device.memory_costs import head_costs
from edge_zofc.device.process_cost import BaseCost, Cost
from edge_zofc.errors import DoesNotFitError, InputError
from edge_zofc.storage.manifest import ActivationBytes

WITHOUT_TORCH = BaseCost(process=Cost(30 * MIB, 30 * MIB, 80 * MIB), torch=None)


def planned(budget_mib: int, precision: str = "w8", weights_mib: int = 89, **changes: object) -> memory_plan.MemoryPlan:
    fixed = {name: changes[name] for name in changes if name not in (*OPTIONS, "base", "threads")}
    asked = work(precision, weights_mib, **changes)
    return memory_plan.plan(asked, budget_mib * MIB, memory_plan.Fixed(**fixed))  # type: ignore[arg-type]


# ---- the plan: numbers that are easy to check


def test_with_room_everything_is_fast() -> None:
    found = planned(100_000)
    assert (
        found.placement.micro_batch,
        found.placement.parallel_queries,
        found.placement.arena,
        found.placement.head_backend,
    ) == (16, 5, True, "torch")


def test_in_200_mib_a_w8_vit_b_learns_without_torch_one_picture_and_adapter_at_a_time() -> None:
    asked = work()
    measured = ActivationBytes(fixed=MIB, per_image=MIB, per_image_and_adapter=8 * MIB)
    asked = replace(asked, sizes=replace(asked.sizes, activation_bytes=measured))
    found = memory_plan.plan(asked, 200 * MIB)
    assert (found.placement.micro_batch, found.placement.parallel_queries) == (1, 1)
    assert found.placement.head_backend == "numpy"
    assert "torch does not fit" in found.reason
    assert item(found, "weights").file_bytes == 89 * MIB


def test_torch_is_kept_wherever_it_fits() -> None:
    assert planned(750).placement.head_backend == "torch"
    assert planned(600).placement.head_backend == "numpy"
    assert planned(10_000, base=WITHOUT_TORCH).placement.head_backend == "numpy"
    assert planned(10_000, head_backend="numpy").placement.head_backend == "numpy"


def test_activations_are_those_of_the_manifest() -> None:
    found = planned(100_000, micro_batch=2, parallel_queries=3)
    assert item(found, "activations").anonymous_bytes == (1 + 2 * (6 + 3 * 20)) * MIB
    alone = planned(100_000, micro_batch=2, parallel_queries=1)
    assert item(alone, "activations").anonymous_bytes == (1 + 2 * (6 + 20)) * MIB


def test_several_adapters_that_share_nothing_are_asked_for_with_room_for_the_arenas_doubling() -> None:
    films = manifest("w8").adapter.model_copy(update={"kind": "film", "blocks": (0, 5)})
    asked = replace(work(), sizes=manifest("w8").model_copy(update={"adapter": films}).sizes)
    found = memory_plan.plan(asked, 100_000 * MIB, memory_plan.Fixed(micro_batch=2, parallel_queries=3))
    assert item(found, "activations").anonymous_bytes == int(1.6 * (1 + 2 * (6 + 3 * 20)) * MIB)


@pytest.mark.parametrize(
    ("kind", "first", "shape"), [("film", 0, (4, 1)), ("film", 1, (16, 5)), ("bottleneck", 0, (16, 5))]
)
def test_films_on_the_first_block_run_one_at_a_time_as_they_share_nothing(
    kind: str, first: int, shape: tuple[int, int]
) -> None:
    adapter = manifest("w8").adapter.model_copy(update={"kind": kind, "blocks": (first, 5)})
    asked = replace(work(threads=2), sizes=manifest("w8").model_copy(update={"adapter": adapter}).sizes)
    found = memory_plan.plan(asked, 100_000 * MIB).placement
    assert (found.micro_batch, found.parallel_queries) == shape


def test_a_closed_form_head_has_its_covariance_in_the_plan() -> None:
    """Two packed matrices, and the covariance with the solver's copy of it."""
    packed = sum(64 * (768 - 64 * slab) for slab in range(12))
    matrices = 8 * (2 * packed + 2 * 768**2)
    found = planned(100_000, head="lda", head_backend="numpy")
    assert item(found, "covariance of the closed-form head").anonymous_bytes == matrices
    cosine = planned(100_000, head_backend="numpy")
    more = item(found, "head").anonymous_bytes - item(cosine, "head").anonymous_bytes
    assert more == (100 - 66) * 100 * 768
    assert found.peak_bytes - cosine.peak_bytes == matrices + more


@pytest.mark.parametrize(
    ("classes", "each", "matrices"),
    [
        # Before the first step: the start's and the fit pictures' moments, three matrices and three times 128 columns.
        (100, 32, 2 * 860_160 + 3 * 1280**2 + 3 * 128 * 1280),
        # With many classes their sums at a task's end: three moments, the covariance and the solver's copy.
        (1000, 100, 3 * 860_160 + 2 * 1280**2),
    ],
)
def test_the_edge_preset_takes_most_before_its_first_step_or_at_a_tasks_end(
    classes: int, each: int, matrices: int
) -> None:
    options = make_options("edge", {})
    found = {name: size for name, size, _ in head_costs(options, classes, 1280)}
    assert found == {"head": each * classes * 1280, "covariance of the closed-form head": 8 * matrices}


def test_steps_by_the_heads_loss_may_hold_the_starts_moment_twice_as_a_task_begins() -> None:
    options = replace(make_options("edge", {}), loss="head")
    found = {name: size for name, size, _ in head_costs(options, 1, 1280)}
    assert found["covariance of the closed-form head"] == 8 * (4 * 860_160 + 2 * 1280**2)


def test_a_two_sided_step_evaluates_both_sides_and_the_base() -> None:
    assert work(query_form="two-sided", queries=4).evaluations == 9
    assert work(query_form="one-sided", queries=4).evaluations == 5
    assert planned(100_000, query_form="two-sided").placement.parallel_queries == 9


def test_float16_weights_are_held_as_float32() -> None:
    """They were planned as mapped alone: a run of EfficientNet-Lite0 held 10 MiB more than planned."""
    found = planned(100_000, "fp16")
    assert not found.placement.prepacking
    assert (item(found, "weights").anonymous_bytes, item(found, "weights").file_bytes) == (178 * MIB, int(8.9 * MIB))
    assert "weights widened to fp32" in found.reason


def test_where_the_adapter_rests_there_are_no_queries_to_run_together() -> None:
    """The own ViT at 96 px was planned with 227 MiB and took 129."""
    for changes in ({"adapter": "off"}, {"steps": 0, "epochs": 0}):
        resting = replace(work(), options=replace(work().options, **changes))  # type: ignore[arg-type]
        found = memory_plan.plan(resting, 100_000 * MIB)
        assert (found.placement.micro_batch, found.placement.parallel_queries) == (16, 1)
        assert item(found, "activations").anonymous_bytes == (1 + 16 * (6 + 20)) * MIB
        assert found.reason.startswith("there are no queries;")


def test_weights_are_prepacked_where_that_is_faster_and_there_is_room() -> None:
    assert planned(100_000, "w4", 54).placement.prepacking
    assert item(planned(100_000, "w4", 54), "weights").anonymous_bytes == pytest.approx(0.8 * 54 * MIB, abs=1)
    assert planned(100_000, "fp32", 327).placement.prepacking
    assert not planned(100_000, "w8", 89).placement.prepacking


def test_a_run_goes_on_with_its_weights_as_they_were_packed() -> None:
    """Packed weights round differently: what fits today must not change the bits of a run."""
    assert not planned(100_000, "fp32", 327, prepacking=False).placement.prepacking
    tight = planned(500, "fp32", 327, prepacking=True)
    assert tight.placement.prepacking
    assert tight.peak_bytes <= 500 * MIB


# Weights take 89 MiB and b x K 1 + 6 b + 20 b K: 16 x 5 together 1,786 MiB, 4 x 5 514, 1 x 5 196, 2 x 1 142.
@pytest.mark.parametrize(
    ("arena_mib", "shape"),
    [
        (None, (16, 5)),
        (1786, (16, 5)),
        (1785, (8, 5)),
        (514, (4, 5)),
        (196, (1, 5)),
        (195, (1, 3)),
        (155, (2, 1)),
        (116, (1, 1)),
        (9, (1, 1)),
    ],
)
def test_the_micro_batch_is_one_that_an_accelerators_arena_has_room_for(
    arena_mib: int | None, shape: tuple[int, int]
) -> None:
    """Without it the first step of a run on a GPU failed and was done again, and the plan's shape was not the run's."""
    asked = replace(work(), arena_bytes=None if arena_mib is None else arena_mib * MIB)
    found = memory_plan.plan(asked, 100_000 * MIB).placement
    assert (found.micro_batch, found.parallel_queries) == shape
    kept = memory_plan.plan(asked, 100_000 * MIB, memory_plan.Fixed(16, 5)).placement
    assert (kept.micro_batch, kept.parallel_queries) == (16, 5)  # a run keeps its shape, and so its bits


def test_what_is_asked_for_is_kept() -> None:
    found = planned(100_000, micro_batch=32, parallel_queries=2)
    assert (found.placement.micro_batch, found.placement.parallel_queries) == (32, 2)
    assert planned(100_000, micro_batch=500, parallel_queries=70).placement.micro_batch == 48
    assert planned(100_000, micro_batch=500, parallel_queries=70).placement.parallel_queries == 5


# ---- the plan: properties


@settings(max_examples=60)
@given(st.integers(150, 20_000), st.sampled_from(["fp32", "w8", "w4"]), st.integers(1, 200), st.integers(1, 32))
def test_a_plan_fits_its_budget_and_its_items_add_up(budget: int, precision: str, batch: int, queries: int) -> None:
    try:
        found = planned(budget, precision, 100, batch_size=batch, queries=queries)
    except DoesNotFitError:
        return
    assert found.peak_bytes == found.anonymous_bytes + found.file_bytes <= budget * MIB
    assert 1 <= found.placement.micro_batch <= batch
    assert 1 <= found.placement.parallel_queries <= queries + 1


@settings(max_examples=40)
@given(st.integers(100, 5_000), st.integers(0, 1000))
def test_more_room_never_makes_a_plan_slower(budget: int, more: int) -> None:
    def rank(mib: int) -> tuple[bool, bool, int, int] | None:
        try:
            found = planned(mib)
        except DoesNotFitError:
            return None
        return (
            found.placement.head_backend == "torch",
            found.placement.arena,
            found.placement.parallel_queries,
            found.placement.micro_batch,
        )

    small, large = rank(budget), rank(budget + more)
    assert small is None or (large is not None and small <= large)


def test_a_budget_named_as_the_nearest_that_fits_does_fit() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        planned(100)
    message = str(caught.value)
    nearest = int(message.split("a budget of ")[1].split(" MiB")[0])
    assert "above the budget of 100 MiB" in message
    assert planned(nearest).peak_bytes <= nearest * MIB
    with pytest.raises(DoesNotFitError):
        planned(nearest - 1)


def test_a_choice_that_does_not_fit_is_told_what_would() -> None:
    with pytest.raises(DoesNotFitError, match=r"leave the choice of micro-batch to the plan: .* fits with"):
        planned(400, micro_batch=48)
    with pytest.raises(DoesNotFitError, match="leave the choice of head to the plan"):
        planned(400, head_backend="torch")


def test_fp32_is_told_of_smaller_precisions() -> None:
    with pytest.raises(DoesNotFitError, match="--precision w8"):
        planned(200, "fp32", 327)


@pytest.mark.parametrize(
    "changes", [{"micro_batch": 0}, {"micro_batch": -3}, {"parallel_queries": 0}, {"batch_size": 0}, {"threads": 0}]
)
def test_numbers_below_one_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        planned(1000, **changes)


def test_torch_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"pip install 'edge-zofc\[torch\]'"):
        planned(1000, base=WITHOUT_TORCH, head_backend="torch")
