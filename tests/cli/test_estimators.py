"""The choice between forward passes and exact gradients: ``plan`` shows both, ``learn`` takes one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small import write_small_stream
from typed import answer

from edge_zofc.cli.main import main
from edge_zofc.engine import gate
from edge_zofc.storage.bundle import Bundle

FEW = ["--batch-size", "8", "--steps", "3", "--device-profile", "cpu-2gib", "--micro-batch", "2"]


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_stream(tmp_path_factory.mktemp("estimators") / "stream", tasks=1, classes=4)


def test_plan_shows_memory_passes_and_time_of_both(
    exact_bundle: Bundle, stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "--bundle", exact_bundle.folder, "--stream", stream, *FEW]
    exact, spsa = answer(capsys, *words)["estimators"]
    assert (exact["estimator"], spsa["estimator"]) == ("exact", "spsa")
    # Three steps of 8 pictures: theta once for each, and their gradients; against nine adapters.
    passes = exact["time"]["image_forwards"], exact["time"]["gradient_passes"]
    assert spsa["time"]["image_forwards"] - passes[0] == 3 * 8 * (9 - 1)
    assert passes[1] == 3 * 8
    for one in (exact, spsa):
        assert one["least_bytes"] <= one["peak_bytes"]
        seconds = one["time"]["image_forwards"] * one["time"]["seconds_a_forward"]
        seconds += one["time"]["gradient_passes"] * (one["time"]["seconds_a_gradient"] or 0.0)
        assert one["time"]["seconds"] == pytest.approx(seconds)
    assert exact["peak_bytes"] > spsa["peak_bytes"]
    assert main([*map(str, words)]) == 0
    shown = capsys.readouterr().out
    assert "exact gradients (exact), taken" in shown
    assert "forward passes alone (spsa)" in shown


def test_a_budget_between_the_two_changes_the_choice_of_plan_and_learn(
    exact_bundle: Bundle, stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--bundle", exact_bundle.folder, "--stream", stream, *FEW]
    exact, spsa = answer(capsys, "plan", *base)["estimators"]
    between = (exact["least_bytes"] + spsa["least_bytes"]) // 2
    assert spsa["least_bytes"] < between < exact["least_bytes"]
    for budget, taken in (([], "exact"), (["--memory-budget", between], "spsa")):
        assert answer(capsys, "plan", *base, *budget)["estimator"] == taken
        run = tmp_path / taken
        assert answer(capsys, "learn", *base, "--run", run, *budget)["options"]["estimator"] == taken


def test_the_reason_names_what_exact_gradients_lack(
    exact_bundle: Bundle, stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--bundle", exact_bundle.folder, "--stream", stream, *FEW]
    exact, spsa = answer(capsys, "plan", *base)["estimators"]
    found = answer(capsys, "plan", *base, "--memory-budget", (exact["least_bytes"] + spsa["least_bytes"]) // 2)
    assert found["why"].startswith(
        "If the adapter moves, it learns by forward passes alone. By exact gradients: Learning needs"
    )
    assert "above the budget" in found["why"]
    assert found["estimators"][0]["peak_bytes"] is None


@pytest.mark.parametrize(
    ("words", "found", "state"), [([], 0.5, "start"), (["--adapter", "on"], 0.5, None), ([], 0.9, "moved")]
)
def test_no_run_says_that_its_adapter_learns_before_it_knows_whether_it_does(
    words: list[str], found: float, state: str | None, exact_bundle: Bundle, stream: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Where the classes stand far apart no step is taken: what is printed is true there too."""
    monkeypatch.setattr(gate, "crowding", lambda sums, counts: found)
    monkeypatch.setattr(gate, "is_worse", lambda first, second: False)
    base = ["learn", "--bundle", exact_bundle.folder, "--stream", stream, "--run", tmp_path / "run", "--json"]
    assert main([*map(str, base), *FEW, *words]) == 0
    printed = capsys.readouterr()
    told, result = " ".join(printed.err.split()), json.loads(printed.out)
    assert "If the adapter moves, it learns by exact gradients." in told
    assert "The adapter learns" not in told
    stays = state == "start"
    assert ("The adapter stays at its start: the classes of the first task stand far apart" in told) == stays
    assert (result["steps"], result["gradient_passes"]) == ((0, 0) if stays else (3, 24))
    assert (result["adapter"] and result["adapter"]["state"]) == state


def test_a_run_keeps_the_estimator_that_it_began_with(
    exact_bundle: Bundle, stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["learn", "--bundle", exact_bundle.folder, "--stream", stream, "--run", tmp_path / "run"]
    assert answer(capsys, *base, *FEW, "--max-steps", "1")["options"]["estimator"] == "exact"
    assert answer(capsys, *base, "--resume", "--max-steps", "2")["options"]["estimator"] == "exact"
    assert answer(capsys, *base, "--resume", "--estimator", "auto")["options"]["estimator"] == "exact"
    assert main([*map(str, base), "--estimator", "spsa"]) == 2
    assert "estimator: exact -> spsa" in capsys.readouterr().err


def test_a_bundle_without_the_graph_has_one_row_and_says_so(
    small_bundle: Bundle, stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "--bundle", small_bundle.folder, "--stream", stream, *FEW]
    found = answer(capsys, *words)
    assert [one["estimator"] for one in found["estimators"]] == ["spsa"]
    assert main([*map(str, words), "--estimator", "exact"]) == 2
    assert "export it with --gradient, or use --estimator spsa" in capsys.readouterr().err


def test_an_adapter_that_rests_has_no_estimator_to_choose(
    exact_bundle: Bundle, stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(capsys, "plan", "--bundle", exact_bundle.folder, "--stream", stream, "--adapter", "off")
    assert [one["estimator"] for one in found["estimators"]] == ["spsa"]


def test_conserve_goes_with_forward_passes_alone(
    exact_bundle: Bundle, stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "--bundle", str(exact_bundle.folder), "--stream", str(stream), "--optimizer", "conserve"]
    assert answer(capsys, *words)["estimator"] == "spsa"
    assert main([*words, "--estimator", "exact"]) == 2
    assert "it needs --estimator spsa" in capsys.readouterr().err


def test_an_option_of_forward_passes_is_never_dropped_without_a_word(
    exact_bundle: Bundle, stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "--bundle", str(exact_bundle.folder), "--stream", str(stream), "--queries", "4"]
    assert answer(capsys, *words)["estimator"] == "spsa"
    assert main([*words, "--estimator", "exact"]) == 2
    assert "queries is 4, which belongs to --estimator spsa" in capsys.readouterr().err
