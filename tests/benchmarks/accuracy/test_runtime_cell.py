"""``--search N`` is the same budget for every method, and ``--equal forwards`` counts what ``learn`` will take."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmark_problem import SPEC, tiny_model, tiny_vit, write_stream

from edge_zofc.benchmarks.accuracy import runtime_cell, torch_cell
from edge_zofc.benchmarks.accuracy.request import CellRequest
from edge_zofc.benchmarks.methods.names import METHODS, SEARCH_FACTORS, best
from edge_zofc.data.stream import list_samples, read_stream
from edge_zofc.errors import InputError


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream"))


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_cell, "load", lambda request: (tiny_model(tiny_vit(depth=5), (0, 1, 2, 3, 4)), SPEC))


def request(stream: Path, method: str, **changes: Any) -> CellRequest:
    values: dict[str, Any] = {
        "method": method, "seed": 1993, "stream": stream, "bundle": None, "backbone": None, "checkpoint": None,
        "img_size": None, "preset": "edge", "epochs": 2, "epoch_factor": 1, "search": 1, "threads": 1,
        "work": stream.parent,
    }  # fmt: skip
    return CellRequest(**{**values, **changes})


def test_a_search_tries_every_factor_on_three_quarters_of_the_first_task() -> None:
    assert METHODS
    assert SEARCH_FACTORS[0] == 1.0
    assert best({"1.0": 0.5, "10.0": 0.75, "3.0": 0.6}) == 10.0
    assert best({"1.0": 0.75, "10.0": 0.75}) == 1.0


@pytest.mark.parametrize("method", ["head", "fo-fc", "zo-all", "coda-prompt", "inflora", "aper-adapter"])
def test_every_method_gets_the_same_number_of_trials(method: str, stream: Path) -> None:
    found = torch_cell.run_in_torch(request(stream, method, search=3, epochs=1))
    assert list(found["search"]) == ["1.0", "10.0", "3.0"]
    assert all(0 <= accuracy <= 1 for accuracy in found["search"].values())
    plain = torch_cell.run_in_torch(request(stream, method, epochs=1))
    assert plain["search"] == {}
    assert plain["search_forward_passes"] == 0
    # What was spent on the search is told apart from what the chosen run took.
    assert found["forward_passes"] == plain["forward_passes"]
    # 18 of the 24 pictures of the first of two tasks, three times.
    share = 3 * 18 / 48 if method != "aper-adapter" else found["search_forward_passes"] / plain["forward_passes"]
    assert found["search_forward_passes"] == share * plain["forward_passes"]
    rate = found["training"]["lr"] / plain["training"]["lr"]
    assert rate == pytest.approx(best(found["search"]))


def test_training_free_methods_search_nothing(stream: Path) -> None:
    assert torch_cell.run_in_torch(request(stream, "lda", search=3))["search"] == {}


def test_the_search_of_zo_fc_is_learn_on_a_validation_stream(
    stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second factor, 10, is made the best one: 0.02 of the edge preset's 0.002."""
    calls: list[dict[str, str]] = []

    def learn(*given: object) -> dict[str, Any]:
        words = [str(word) for word in given]
        call = {**dict(zip(words[1::2], words[2::2], strict=True)), "stream": ""}
        root = Path(call["--stream"])
        tasks = read_stream(root).tasks
        call["tasks"], call["train"] = (str(len(tasks)), str(len(list_samples(read_stream(root), tasks[0], "train"))))
        calls.append(call)
        result = dict.fromkeys(runtime_cell.SAME_NAMES)
        accuracy = 0.9 if call.get("--adapter-lr") == "0.02" else 0.5
        result |= {"last_accuracy": accuracy, "forward_passes": 100, "tasks": [], "options": {"adapter_lr": 0.1}}
        Path(call["--run"]).mkdir()
        (Path(call["--run"]) / "result.json").write_text(json.dumps(result))
        (Path(call["--run"]) / "events.jsonl").write_text("")
        return result

    monkeypatch.setattr(runtime_cell, "edge_zofc", learn)
    layout = SimpleNamespace(manifest=SimpleNamespace(adapter=SimpleNamespace(size=7)))
    monkeypatch.setattr(runtime_cell, "read_bundle", lambda path: layout)
    found = runtime_cell.run_zofc(request(stream, "zo-fc", search=3, bundle=tmp_path / "bundle", work=tmp_path))
    assert found["search"] == {"1.0": 0.5, "10.0": 0.9, "3.0": 0.5}
    assert found["search_forward_passes"] == 300
    assert [(call["tasks"], call["train"]) for call in calls] == [("1", "18")] * 3 + [("2", "24")]
    assert [call.get("--adapter-lr") for call in calls] == [None, "0.02", "0.006", "0.02"]


def test_searching_goes_from_the_rate_that_was_asked_for(
    stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[str]] = []

    def learn(*words: object) -> dict[str, Any]:
        said.append([str(word) for word in words])
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "result.json").write_text("{}")
        return {}

    monkeypatch.setattr(runtime_cell, "edge_zofc", learn)
    asked = request(stream, "zo-fc", work=tmp_path, learn_options=("--adapter-lr", "0.5"))
    runtime_cell.learn(asked, stream, tmp_path / "run", 10.0)
    assert said[0][-4:] == ["--adapter-lr", "5.0", "--head-lr", "0.1"]


@pytest.mark.parametrize(
    ("preset", "options", "forwards"),
    [
        ("edge", [], 9),  # 8 queries and the base
        ("edge", ["--loss", "head"], 5),
        ("edge", ["--queries", "16"], 17),
        ("edge", ["--query-form", "two-sided"], 17),
        ("edge", ["--query-form", "two-sided", "--loss", "head"], 8),  # a closed-form head asks for no base
        ("paper", [], 8),  # 2 x 4, and a head step in half of the epochs: 8.5
        ("paper", ["--head-epochs", "20"], 9),
        ("paper", ["--preset", "edge"], 9),
    ],
)
def test_a_picture_takes_as_many_forwards_as_its_options_say(preset: Any, options: list[str], forwards: int) -> None:
    assert runtime_cell.forwards_a_picture(runtime_cell.own_options(preset, 0, options)) == forwards


def test_equal_forwards_leave_fo_fc_one_pass_short_of_zo_fc_and_the_head_looks_as_often(stream: Path) -> None:
    """zo-fc: E (Q + 1) passes of training, one for class means, one to solve its head again: 12 for E = 2, Q = 4.

    The head alone keeps the features of its one pass.
    """
    factor = runtime_cell.forwards_a_picture(runtime_cell.own_options("edge", 2, ["--loss", "head"]))
    for method, passes in (("head", 1), ("fo-fc", 11), ("fo-fc-lda", 12)):
        found = torch_cell.run_in_torch(request(stream, method, epoch_factor=factor))
        assert found["training"]["epochs"] == 10
        assert found["forward_passes"] == 48 * passes


def test_an_option_that_learn_does_not_know_is_told_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        runtime_cell.own_options("edge", 0, ["--quries", "4"])
    assert ended.value.code == 2
    assert "--quries" in capsys.readouterr().err
    with pytest.raises(InputError, match="queries is 0"):
        runtime_cell.own_options("edge", 0, ["--queries", "0"])
