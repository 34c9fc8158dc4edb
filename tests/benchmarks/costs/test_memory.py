"""Variants compute what they are named after; what they report adds up; a limit and a wrong argument are told."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_zofc.benchmarks import process
from edge_zofc.benchmarks.costs import cgroup, learn, memory, plan, tables
from edge_zofc.benchmarks.costs.child import start
from edge_zofc.benchmarks.costs.in_onnx import RuntimeStep
from edge_zofc.benchmarks.costs.in_torch import TorchStep
from edge_zofc.benchmarks.costs.machine import machine_state
from edge_zofc.benchmarks.costs.setup import Setup, block_ranges, read_picture, write_bundles
from edge_zofc.benchmarks.costs.variants import REFERENCE, Kind, Variant, memory_variants
from edge_zofc.benchmarks.tables import as_markdown, for_terminal
from edge_zofc.errors import DoesNotFitError, InputError

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    """Two blocks of the package's ViT, a batch of 3."""
    made = Setup(str(tmp_path_factory.mktemp("cost")), depth=2, batch_size=3, queries=2)
    assert write_bundles(made, {("fp32", "early")}) == 2
    return made


def variant(kind: Kind, micro_batch: int, **rest: Any) -> Variant:
    return Variant("", "", kind, micro_batch=micro_batch, **rest)


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    memory.add_arguments(parser)
    return parser.parse_args(arguments)


def test_early_blocks_of_twelve_are_the_first_five_and_late_ones_the_last_five() -> None:
    assert block_ranges(12) == {"early": (0, 1, 2, 3, 4), "late": (7, 8, 9, 10, 11)}
    assert block_ranges(2) == {"early": (0, 1), "late": (0, 1)}


def test_a_picture_is_read_back_from_its_place_in_the_file(tmp_path: Path) -> None:
    np.arange(2 * 12, dtype=np.float32).tofile(tmp_path / "pictures")
    out = np.empty((3, 2, 2), np.float32)
    read_picture(tmp_path / "pictures", 1, out)
    assert out[0, 0, 0] == 12
    assert out[2, 1, 1] == 23


def test_every_variant_is_there_once_and_one_is_what_the_others_are_compared_to() -> None:
    names = [each.name for each in memory_variants(["fp32", "w8"], 4)]
    assert len(names) == len(set(names))
    assert names.count(REFERENCE) == 1
    assert {"inference", "zo-fc-fast", "head-only", "fo-batch", "fo-checkpoint", "fo-micro", "full"} <= set(names)
    assert f"{REFERENCE}-w8" in names


def test_first_order_in_micro_batches_with_checkpointing_takes_the_same_step(setup: Setup) -> None:
    whole = TorchStep(setup, variant("first-order", 3))
    best = TorchStep(setup, variant("first-order", 1, checkpoint=True))
    for _ in range(2):
        assert best.step() == pytest.approx(whole.step(), abs=1e-5)
    assert torch.allclose(whole.flat, best.flat, atol=1e-5)
    assert torch.allclose(whole.rows, best.rows, atol=1e-5)


def test_first_orders_forward_pass_is_the_exporters(setup: Setup) -> None:
    step = TorchStep(setup, variant("first-order", 3))
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    flat = step.flat.detach() + 0.01
    with torch.no_grad():
        step.flat.copy_(flat)
        assert torch.allclose(step._features(images), step.model(images, flat[None])[0], atol=1e-5)


@pytest.mark.parametrize(("kind", "form"), [("full", "one-sided"), ("spsa", "one-sided"), ("spsa", "two-sided")])
def test_a_step_in_torch_changes_what_it_trains_and_nothing_else(setup: Setup, kind: Kind, form: str) -> None:
    step = TorchStep(setup, variant(kind, 2, form=form))
    flat, rows = step.flat.detach().clone(), step.rows.detach().clone()
    weight = step.model.timm_model.blocks[1].mlp.fc1.weight
    before = weight.detach().clone()
    step.step()
    assert not torch.equal(rows, step.rows)
    assert torch.equal(before, weight) == (kind == "spsa")
    assert torch.equal(flat, step.flat) == (kind == "full")


def test_first_order_and_zo_fc_see_the_same_batch_with_the_same_features(setup: Setup) -> None:
    runtime = RuntimeStep(setup, variant("zo-fc", 1, prepacking=True, arena=True))
    in_torch = TorchStep(setup, variant("first-order", 3))
    in_torch.rows.data = torch.from_numpy(runtime.head.rows.copy())
    assert in_torch.step() == pytest.approx(runtime.step(), abs=1e-4)
    assert runtime.forward_seconds > 0


@linux
def test_a_child_reports_a_base_and_a_peak_above_it(setup: Setup) -> None:
    arm = next(each for each in memory_variants(["fp32"], 2) if each.name == "zo-fc-in-place-numpy")
    with start(setup, arm) as child:
        first, second = child.ask("step"), child.ask("step")
        found = child.ask("memory")
    assert first["loss"] > second["loss"] - 1
    assert 0 < first["forward_seconds"] <= first["seconds"]
    assert 0 < found["base"]["rss_bytes"] < found["built"]["rss_bytes"] <= found["peak"]["rss_bytes"]


def test_a_variant_that_dies_is_told_with_its_last_line(setup: Setup) -> None:
    arm = next(each for each in memory_variants(["w8"], 2) if each.name == "inference")
    with pytest.raises(DoesNotFitError, match=r"inference ended with code 1: .*bundle"), start(setup, arm) as child:
        child.ask("step")


@linux
def test_the_whole_benchmark_prints_json_and_writes_table_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["--depth", "1", "--batch-size", "2", "--queries", "1", "--steps", "1", "--json", "--threads", "1"]
    arms = ["--arms", "inference,zo-fc-in-place-numpy"]
    assert memory.main(parsed(*wanted, *arms, "--out", str(tmp_path))) == 0
    data = json.loads(capsys.readouterr().out)
    for row in data["rows"]:
        assert row["base_mib"] + row["increment_mib"] == pytest.approx(row["peak_rss_mib"], abs=0.2)
    assert data["machine"]["onnxruntime"] and data["machine"]["torch_build"]
    assert "| inference (fp32) |" in re.sub(" +", " ", (tmp_path / "memory.md").read_text())
    assert (tmp_path / "memory.png").stat().st_size > 5000
    assert json.loads((tmp_path / "memory.json").read_text()) == data


def test_a_row_that_did_not_run_says_why_and_the_columns_stay_in_line() -> None:
    rows = [
        {"title": "one", "failed": None, "peak_rss_mib": 100.4, "ratio": 1.0},
        {"title": "two", "failed": "no room"},
    ]
    table = for_terminal(tables.COLUMNS["memory"], rows).splitlines()
    assert len(table) == 3
    assert "100" in table[1]
    assert "did not run: no room" in table[2]
    assert as_markdown(tables.COLUMNS["memory"], rows).count("\n") == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ["--precision", "fp64"],
        ["--arms", "nothing"],
        ["--limits"],
        ["--plan-accuracy"],
        ["--batch-size", "0"],
        ["--limits", "--bundle", "x", "--heads", "jax"],
    ],
)
def test_a_wrong_argument_is_one_sentence(arguments: list[str]) -> None:
    with pytest.raises(InputError):
        memory.main(parsed(*arguments))


def test_a_process_that_is_killed_or_stops_early_has_not_completed() -> None:
    assert not learn.Learnt(-9, 1.0, {}, "", None).completed
    assert learn.Learnt(-9, 1.0, {}, "", None).ending == "killed or out of time"
    assert not learn.Learnt(0, 1.0, {"steps": 1}, "", None).completed
    assert learn.Learnt(0, 1.0, {"steps": 2}, "", None).completed
    assert "exit 3: does not fit" in learn.Learnt(3, 1.0, {}, "does not fit", None).ending


@linux
def test_a_child_in_a_small_cgroup_is_killed_and_the_cgroup_is_gone_afterwards() -> None:
    try:
        with cgroup.memory_cgroup(24 << 20) as place:
            line = cgroup.inside(place, [sys.executable, "-c", "b = bytearray(100 << 20)"])
            found = learn.learnt(process.run(line, 60), cgroup.peak_bytes(place), learn.STEPS)
    except InputError as error:
        pytest.skip(str(error))
    assert found.ending == "killed or out of time"
    assert found.cgroup_peak_bytes is not None and found.cgroup_peak_bytes <= 24 << 20
    assert not place.exists()


def test_the_plan_is_held_to_sixteen_configurations_and_more() -> None:
    per_bundle = len(plan.CASES)
    assert 2 * per_bundle >= 16
    assert {case.micro_batch for case in plan.CASES} == {1, 8, 16}
    assert {case.head for case in plan.CASES} == {"cosine", "lda"}
    assert {case.parallel for case in plan.CASES} == {1, 5, 9}


def test_the_machine_is_named_beside_the_numbers() -> None:
    state = machine_state()
    assert state["cpu_count"] >= 1
    assert state["torch"] == torch.__version__


def test_a_child_does_not_import_torch_unless_its_variant_needs_it() -> None:
    code = "import sys, edge_zofc.benchmarks.costs.in_onnx, edge_zofc.engine.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
