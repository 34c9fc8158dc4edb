"""The plan adds up and chooses speed where there is room; the measurement sees what was taken; the cap is hard."""

import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_zofc.algorithm.options import Options
from edge_zofc.device import memory_plan, process_cost
from edge_zofc.device.process_cost import BaseCost, Cost
from edge_zofc.device.system import Board, PeakSampler, Usage, data_bytes, usage
from edge_zofc.errors import DoesNotFitError, InputError
from edge_zofc.storage.bundle import FILES, Manifest

MIB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

WITH_TORCH = BaseCost(process=Cost(30 * MIB, 30 * MIB, 80 * MIB), torch=Cost(270 * MIB, 230 * MIB, 660 * MIB))
WITHOUT_TORCH = BaseCost(process=Cost(30 * MIB, 30 * MIB, 80 * MIB), torch=None)


def manifest(precision: str = "fp32", weights_mib: int = 327) -> Manifest:
    """A ViT-B/16 at 224 as measured when the project began: 26 MiB of activations a picture."""
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


OPTIONS = ("batch_size", "queries", "query_form", "head", "optimizer")


def planned(budget_mib: int, precision: str = "w8", weights_mib: int = 89, **changes: object) -> memory_plan.MemoryPlan:
    asked = {name: changes.pop(name) for name in OPTIONS if name in changes}
    base, threads = changes.pop("base", WITH_TORCH), changes.pop("threads", 2)
    options = Options("edge", **{"query_form": "one-sided", **asked})  # type: ignore[arg-type]
    work = memory_plan.Work(manifest(precision, weights_mib), options, base, 100, threads)  # type: ignore[arg-type]
    return memory_plan.plan(work, budget_mib * MIB, memory_plan.Fixed(**changes))  # type: ignore[arg-type]


def item(found: memory_plan.MemoryPlan, name: str) -> memory_plan.PlanItem:
    return next(entry for entry in found.items if entry.name == name)


# ---- the plan: numbers you can do in your head


def test_with_room_everything_is_fast() -> None:
    found = planned(100_000)
    assert (
        found.placement.micro_batch,
        found.placement.parallel_queries,
        found.placement.arena,
        found.placement.head_backend,
    ) == (16, 5, True, "torch")


def test_in_200_mib_a_w8_vit_b_learns_without_torch_one_picture_and_adapter_at_a_time() -> None:
    found = planned(200)
    assert (found.placement.micro_batch, found.placement.parallel_queries, found.placement.arena) == (1, 1, False)
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


def test_a_closed_form_head_has_its_covariance_in_the_plan() -> None:
    found = planned(100_000, head="lda", head_backend="numpy")
    assert item(found, "covariance of the closed-form head").anonymous_bytes == 3 * 8 * 768**2
    cosine = planned(100_000, head_backend="numpy")
    more = item(found, "head").anonymous_bytes - item(cosine, "head").anonymous_bytes
    assert more == (100 - 66) * 100 * 768
    assert found.peak_bytes - cosine.peak_bytes == 3 * 8 * 768**2 + more


def test_a_two_sided_step_evaluates_both_sides_and_the_base() -> None:
    assert memory_plan.evaluations_per_step("two-sided", 4) == 9
    assert memory_plan.evaluations_per_step("one-sided", 4) == 5
    assert planned(100_000, query_form="two-sided").placement.parallel_queries == 9


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


# ---- measuring


@linux
def test_an_array_of_64_mib_is_seen_and_its_peak_is_kept() -> None:
    with PeakSampler() as sampler:
        before = sampler.now()
        array = np.ones(64 * MIB, np.uint8)
        during = sampler.now()
        del array
        after = sampler.peak()
    assert before.anonymous_bytes is not None
    assert during.anonymous_bytes is not None
    assert after.anonymous_bytes is not None
    assert during.anonymous_bytes - before.anonymous_bytes == pytest.approx(64 * MIB, rel=0.05)
    assert after.anonymous_bytes >= during.anonymous_bytes
    assert after.rss_bytes >= during.rss_bytes


@linux
def test_the_thread_sees_what_nobody_asked_about() -> None:
    with PeakSampler(interval_seconds=0.005) as sampler:
        start = sampler.now()
        array = np.ones(48 * MIB, np.uint8)
        time.sleep(0.15)
        del array
    assert sampler.peak().anonymous_bytes - start.anonymous_bytes > 40 * MIB  # type: ignore[operator]


@linux
def test_mapped_files_are_told_apart_from_arrays(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(32 * MIB))
    before = usage()
    mapped = np.memmap(path, np.uint8, "r")
    assert int(mapped.sum()) == 0
    after = usage()
    assert after.file_bytes - before.file_bytes == pytest.approx(32 * MIB, rel=0.1)  # type: ignore[operator]
    assert after.rss_bytes == after.anonymous_bytes + after.file_bytes  # type: ignore[operator]


def test_a_sampler_may_be_started_and_stopped_twice() -> None:
    sampler = PeakSampler()
    for _ in range(2):
        sampler.start()
        sampler.start()
        sampler.stop()
        sampler.stop()
    assert sampler.peak().rss_bytes > MIB


def test_without_proc_the_parts_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=2 * MIB))
    monkeypatch.setattr("edge_zofc.device.system._process", lambda number: elsewhere)
    monkeypatch.setattr("edge_zofc.device.system._STATUS", Path("/nowhere/status"))
    found = usage()
    assert isinstance(found, Usage)
    assert found.rss_bytes > MIB
    assert found.anonymous_bytes is None
    assert PeakSampler().peak().file_bytes is None
    assert data_bytes() is None


# ---- the base cost


@linux
def test_the_base_is_measured_in_a_child_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_cost, "torch_estimate", lambda: None)
    first = process_cost.measure_base(("numpy",), tmp_path)
    assert first.measured
    assert first.torch is None
    assert 5 * MIB < first.process.anonymous_bytes + first.process.file_bytes < 120 * MIB
    monkeypatch.setattr(process_cost, "_in_child", lambda *_: pytest.fail("measured twice"))
    assert process_cost.measure_base(("numpy",), tmp_path) == first


@linux
def test_of_two_measurements_of_torch_the_smaller_one_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = iter([Cost(1, 2, 3), Cost(10, 400, 30), Cost(11, 250, 31)])  # without torch, then with it twice
    monkeypatch.setattr(process_cost, "torch_estimate", lambda: Cost(9, 9, 9))
    monkeypatch.setattr(process_cost, "_in_child", lambda *_: next(measured))
    assert process_cost.measure_base(("numpy",), tmp_path).torch == Cost(10, 248, 28)


@linux
@pytest.mark.parametrize(
    "content", [b"", b"\xff\0", b"[]", b"5", b'{"process": [1, 2]}', b'{"process": [1, 2, -3], "torch": null}']
)
def test_a_damaged_cache_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(process_cost, "torch_estimate", lambda: None)
    monkeypatch.setattr(process_cost, "_in_child", lambda *_: Cost(1, 2, 3))
    (tmp_path / f"base-cost-{process_cost._key(('numpy',))}.json").write_bytes(content)
    assert process_cost.measure_base(("numpy",), tmp_path) == BaseCost(process=Cost(1, 2, 3), torch=None)


def test_a_crowded_machine_is_not_measured_but_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crowded = Board("", "any", 1, 4000 * MIB, 3000 * MIB, usage().rss_bytes + 50 * MIB)
    monkeypatch.setattr(process_cost, "board", lambda: crowded)
    monkeypatch.setattr(process_cost, "_in_child", lambda *_: pytest.fail("measured"))
    assert not process_cost.measure_base(cache_folder=tmp_path).measured


def test_a_child_that_fails_leaves_the_estimate(tmp_path: Path) -> None:
    found = process_cost.measure_base(("no_such_module_anywhere",), tmp_path)
    assert not found.measured
    assert found.process == process_cost.PROCESS_ESTIMATE
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS B9: it is kept elsewhere, not measured anew at each start."""
    children: list[int] = []
    monkeypatch.setattr(process_cost, "torch_estimate", lambda: None)
    monkeypatch.setattr(process_cost, "_in_child", lambda *_: children.append(1) or Cost(1, 2, 3))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "file").write_text("")
    for _ in range(3):
        assert process_cost.measure_base((), tmp_path / "file" / "below").measured
    assert len(children) == 1


@pytest.mark.parametrize("planted", ["link", "open"])
def test_where_nothing_can_be_kept_an_estimate_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    """FAULTS B9: nothing is measured; a folder that others may write is not trusted, nor is a link."""
    monkeypatch.setattr(process_cost, "_in_child", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = tmp_path / f"edge-zofc-{os.getuid()}"
    if planted == "link":
        place.symlink_to(tmp_path)
    else:
        place.mkdir()
        place.chmod(0o777)
    (tmp_path / "file").write_text("")
    assert not process_cost.measure_base((), tmp_path / "file" / "below").measured
