"""Medians and ratios are those that can be done in one's head; one round of real variants runs end to end."""

import argparse
import json
import re
import sys
from pathlib import Path

import pytest

from edge_zofc.benchmarks.costs import profile, speed
from edge_zofc.benchmarks.costs.setup import Setup, write_bundles
from edge_zofc.benchmarks.costs.variants import Variant, speed_variants
from edge_zofc.errors import InputError


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    speed.add_arguments(parser)
    return parser.parse_args(arguments)


def answers(*seconds: float, forward: float = 0.0) -> list[dict[str, float]]:
    return [{"seconds": value, "forward_seconds": forward * value} for value in seconds]


def test_ratios_are_of_medians_and_to_the_faster_torch_variant_of_the_same_kind() -> None:
    variants = [
        Variant("a", "first order, whole", "first-order", micro_batch=0),
        Variant("b", "first order, micro", "first-order", micro_batch=8),
        Variant("c", "spsa", "spsa", form="one-sided"),
        Variant("d", "zo", "zo-fc", form="one-sided"),
        Variant("e", "zo two-sided", "zo-fc", form="two-sided"),
        Variant("f", "zo late", "zo-fc", blocks="late"),
    ]
    rounds = {
        "a": answers(4, 4, 100),
        "b": answers(2, 2, 2),
        "c": answers(6, 6, 6),
        "d": answers(0.5, 1, 50, forward=0.8),
        "e": answers(3, 3, 3, forward=0.5),
        "f": answers(1, 1, 1, forward=1.0),
    }
    rows = {row["arm"]: row for row in speed.summarise(variants, rounds)}
    assert rows["a"]["seconds_per_step"] == 4
    assert rows["d"]["to_first_order"] == 0.5
    assert rows["d"]["spsa_to_this"] == 6
    assert rows["d"]["to_first_order_fastest"] == 0.25
    assert rows["d"]["spsa_to_this_fastest"] == 12
    assert rows["d"]["above_forward"] == pytest.approx(0.25)
    assert rows["e"]["spsa_to_this"] is None  # there is no two-sided SPSA to compare it to
    assert rows["f"]["to_first_order"] is None  # nor a first order with late adapters
    assert rows["a"]["above_forward"] is None


def test_every_combination_is_a_variant_of_its_own() -> None:
    variants = speed_variants(["fp32", "w8"], ["early", "late"], ["one-sided", "two-sided"], 4, 8)
    assert len({each.name for each in variants}) == len(variants)
    ours = [each for each in variants if each.kind == "zo-fc"]
    assert len(ours) == 2 * 2 * 2 * 3  # precisions, places, forms, ways
    assert {each.parallel for each in ours} == {1, 5, 9}
    assert len([each for each in variants if each.in_torch]) == 2 * 2 * 3


@pytest.mark.parametrize(
    "arguments", [["--rounds", "0"], ["--blocks", "middle"], ["--precision", "x"], ["--threads", "0"]]
)
def test_a_wrong_argument_is_one_sentence(arguments: list[str]) -> None:
    with pytest.raises(InputError):
        speed.main(parsed(*arguments))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_round_runs_end_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    every = speed_variants(["fp32"], ["early"], ["one-sided"], 1, 2)
    some = [each for each in every if each.name in ("spsa-early-0-one-sided", "zo-fp32-early-one-sided-1-1")]
    monkeypatch.setattr(speed, "speed_variants", lambda *_: some)
    small = ["--depth", "1", "--batch-size", "2", "--queries", "1", "--rounds", "1", "--threads", "1"]
    assert speed.main(parsed(*small, "--json", "--out", str(tmp_path))) == 0
    spsa, ours = json.loads(capsys.readouterr().out)["rows"]
    assert ours["above_forward"] > 0
    assert ours["spsa_to_this"] == pytest.approx(spsa["seconds_per_step"] / ours["seconds_per_step"])
    assert "| ZO-FC in place, early blocks, one-sided (fp32) |" in re.sub(
        " +", " ", (tmp_path / "speed.md").read_text()
    )


def test_a_profile_tells_products_apart_and_takes_the_adapters_together() -> None:
    def event(operator: str, name: str) -> dict[str, object]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "args": {"op_name": operator}}

    assert profile.is_kernel(event("Gemm", "blocks.0.mlp.fc1"))
    assert not profile.is_kernel({"cat": "Session", "name": "session_initialization"})
    assert profile.kind(event("Gemm", "blocks.0.mlp.fc1")) == "Gemm fc1"
    assert profile.kind(event("Gelu", "blocks.0.mlp.gelu")) == "Gelu"
    assert profile.kind(event("Gelu", "blocks.0.adapter.gelu")) == "adapters, all operators"


def test_the_shares_of_a_profile_add_up_to_one_for_each_run(tmp_path: Path) -> None:
    setup = Setup(str(tmp_path), depth=2, batch_size=2, threads=1)
    write_bundles(setup, {("fp32", "early")})
    rows = profile.profile(setup, [("fp32", "early")])
    for shape in profile.SHAPES:
        shares = [row["share"] for row in rows if (row["micro_batch"], row["parallel_queries"]) == shape]
        assert sum(shares) == pytest.approx(1.0)
        assert shares == sorted(shares, reverse=True)
    assert not list(tmp_path.rglob("profile*.json"))
