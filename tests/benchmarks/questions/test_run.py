"""``bench questions``: variants that are real cells, answered once, and sentences made of the numbers beside them."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_problem import tiny_problem, write_stream

from edge_zofc.benchmarks.accuracy.request import CellRequest
from edge_zofc.benchmarks.accuracy.runtime_cell import epoch_losses
from edge_zofc.benchmarks.methods import registry
from edge_zofc.benchmarks.methods.names import EXPERIMENTS, METHODS
from edge_zofc.benchmarks.methods.zofc import AdapterAndHead
from edge_zofc.benchmarks.questions import answers, run, sentences, variants
from edge_zofc.benchmarks.questions.variants import Bench, QuestionVariant, thinned
from edge_zofc.data.stream import list_samples, read_stream
from edge_zofc.errors import InputError


def options(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The requests that variants were run with, by name; each is answered with made-up numbers."""
    found: dict[str, dict[str, Any]] = {}

    def run(name: str, request: dict[str, Any], out: Path) -> bool:
        path = out / "cells" / f"{name}.json"
        if not path.exists():
            found[name] = request
            number = len(found)
            cell = {
                "average_accuracy": 0.3, "last_accuracy": 0.2 + 0.01 * number, "forgetting": 0.1,
                "forward_passes": 100 * number, "seconds": 1.5, "trainable_parameters": [7, 9],
                "losses": [[1.5, 1.4], [1.3, 1.2 - 0.01 * number]],
            }  # fmt: skip
            path.write_text(json.dumps(cell))
        return True

    def bundle(self: Bench, export: tuple[str, ...] = ()) -> Path:
        return self.out / "-".join(export)

    monkeypatch.setattr(variants, "run_cell", run)
    monkeypatch.setattr(Bench, "bundle", bundle)
    return found


def ask(tmp_path: Path, letters: str, *more: object) -> int:
    stream = tmp_path / "stream"
    if not stream.exists():
        write_stream(stream)
    return run.main(options("--question", letters, "--stream", stream, "--out", tmp_path / "out", "--json", *more))


def test_answers_are_kept_and_a_variant_is_run_once(
    tmp_path: Path, asked: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(tmp_path, "cfg") == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed["answers"]) == ["c", "f", "g"]
    count = len(asked)
    # c has 6 variants; f has 10, of which two are c's; g has 14, of which two are c's.
    assert count == 6 + 8 + 12
    assert ask(tmp_path, "g") == 0
    assert len(asked) == count
    kept = json.loads((tmp_path / "out/questions.json").read_text())
    assert list(kept["answers"]) == ["c", "f", "g"]
    assert all(answer["sentence"].endswith(".") for answer in kept["answers"].values())
    text = re.sub(" +", " ", (tmp_path / "out/questions.md").read_text())
    assert "at most 6 pictures of a class" in text
    assert "## (f) Where the adapter sits" in text
    assert "| adapter at rest | 30.0% | 21.0% | 10.0% | 1.4000 | 1.2950 | 100 | 2 |" in text
    with pytest.raises(InputError, match="another epochs"):
        ask(tmp_path, "c", "--epochs", 3)


def test_every_variant_is_a_request_that_a_cell_takes(
    tmp_path: Path, asked: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_zofc.algorithm.options import make_options
    from edge_zofc.cli import arguments

    monkeypatch.setattr(answers, "fidelities", lambda *_: [{"one_sided": 0.99, "two_sided": 0.99}] * 4)
    assert ask(tmp_path, "cdefg") == 0
    assert len(asked) > 30
    for name, raw in asked.items():
        request = CellRequest.model_validate(raw)
        assert request.method in {*METHODS, *EXPERIMENTS}, name
        if request.method == "zo-fc":
            parser = argparse.ArgumentParser()
            arguments.learn(parser)
            given = parser.parse_args(["--stream", "x", "--epochs", str(request.epochs), *request.learn_options])
            make_options(request.preset, arguments.changes(given))  # type: ignore[arg-type]
    budget = {}
    for name, raw in asked.items():
        if name.startswith("equal-forwards,-Q"):
            queries = int(name.split("-")[3])
            budget[queries] = raw["epochs"] * (queries + 1)
    assert budget == {1: 66, 2: 66, 4: 65, 8: 63, 16: 68, 32: 66}


def test_flatness_and_memory_are_read_from_their_own_files(tmp_path: Path, asked: dict[str, dict[str, Any]]) -> None:
    ask(tmp_path, "c")
    flat = {
        name: {
            "after_task": [{"loss": 1.0, "gradient_rise": rise, "mean_rise": 0.0, "max_rise": 0.1}] * 2,
            "average_accuracy": 0.5, "last_accuracy": 0.4, "forgetting": lost,
        }
        for name, rise, lost in (("zo-fc-torch", 0.01, 0.02), ("fo-fc", 0.03, 0.01))
    }  # fmt: skip
    (tmp_path / "out/flatness.json").write_text(json.dumps({"methods": flat}))
    rows = [
        {"arm": "zo-fc-in-place-numpy", "title": "ours", "failed": None, "peak_rss_mib": 100, "increment_mib": 40},
        {"arm": "fo-batch", "title": "whole", "failed": None, "peak_rss_mib": 1000, "increment_mib": 280},
    ]  # fmt: skip
    (tmp_path / "out/memory").mkdir()
    (tmp_path / "out/memory/memory.json").write_text(json.dumps({"rows": rows}))
    assert ask(tmp_path, "ab") == 0
    found = json.loads((tmp_path / "out/questions.json").read_text())["answers"]
    assert "10.0 times (whole batch; increments over the base of the process 7.0)" in found["a"]["sentence"]
    assert [row["after_task"] for row in found["b"]["rows"]] == [2, 3, 2, 3]
    assert "zo-fc-torch 0.01000, fo-fc 0.03000" in found["b"]["sentence"]
    assert "fo-fc 1.0, zo-fc-torch 2.0: another order" in found["b"]["sentence"]


def test_a_failed_variant_is_named_with_where_its_words_are(
    tmp_path: Path, asked: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "run_cell", lambda *_: False)
    with pytest.raises(InputError, match=r"The arm adapter at rest failed; its words are in .*\.txt"):
        ask(tmp_path, "c")


def test_a_question_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no question \['x'\]; known are a, b"):
        ask(tmp_path, "cx")
    with pytest.raises(InputError, match="are 1 at least"):
        ask(tmp_path, "c", "--seeds", 0)
    with pytest.raises(InputError, match="There is no stream"):
        run.main(options("--stream", tmp_path / "none", "--out", tmp_path / "out"))


def test_a_thinned_stream_keeps_classes_and_tasks_and_spreads_what_it_takes(tmp_path: Path) -> None:
    whole = read_stream(write_stream(tmp_path / "stream"))
    thin = read_stream(thinned(whole.root, tmp_path / "thin", 3, 1))
    assert thin.class_names == whole.class_names
    for task in thin.tasks:
        assert [s.path.name for s in list_samples(thin, task, "train")] == ["00.png", "04.png", "08.png"] * 2
        assert len(list_samples(thin, task, "test")) == 2
    assert thinned(whole.root, tmp_path / "thin", 5, 5).exists()
    assert len(list_samples(thin, thin.tasks[0], "train")) == 6, "what is there is left as it is"


def test_a_variant_of_the_runtime_learns_for_real(tmp_path: Path) -> None:
    """One cell through ``learn`` on the package's ViT, two pictures a class."""
    stream = thinned(write_stream(tmp_path / "stream"), tmp_path / "thin", 2, 1)
    out = tmp_path / "out"
    for name in ("cells", "logs", "work"):
        (out / name).mkdir(parents=True)
    bench = Bench(out, stream, (1993,), 2, 2, 1.0)
    (row,) = bench.rows([QuestionVariant("zo-fc", learn=("--queries", "1"))])
    # Two tasks of four pictures: means at the start, two epochs of Q + 1 passes.
    assert row["forward_passes"] == 2 * (4 + 2 * 2 * 4)
    assert row["first_loss"] > 0
    (kept,) = answers.fidelities(bench, "fp32", ("1e-3",), ())
    assert kept["one_sided"] > 0.99


def test_the_up_projections_alone_are_half_of_the_adapter_and_all_that_moves(tmp_path: Path) -> None:
    settings = registry.MethodSettings(epochs=2, adapter_lr=1.0, batch_size=4)
    found = {}
    for name in EXPERIMENTS:
        problem = tiny_problem(write_stream(tmp_path / name), blocks=(0, 1), rank=2)
        method = registry.build(name, problem, settings)
        assert isinstance(method, AdapterAndHead)
        assert method.adapter is not None
        before = [piece.detach().clone() for piece in method.adapter.pieces]
        method.learn(problem.tasks[0])
        pieces = zip(problem.model.layout.pieces, before, method.adapter.pieces, strict=True)
        moved = {piece.name.split(".")[-2] for piece, old, new in pieces if not torch.equal(old, new)}
        found[name] = method.parameters_of(problem.tasks[0]), moved
    # Width 32, rank 2, two blocks: down 2 * 32 + 2, up 2 * 32 + 32 a block.
    assert found == {"zo-fc-torch": (324, {"down", "up"}), "zo-fc-up": (192, {"up"})}


def test_the_loss_of_an_epoch_is_the_mean_of_its_steps(tmp_path: Path) -> None:
    events = [
        {"event": "run_started"},
        {"event": "task_started", "task": 0},
        *({"event": "step", "task": 0, "epoch": epoch, "loss": loss} for epoch, loss in ((0, 3.0), (0, 1.0), (1, 0.5))),
        {"event": "task_started", "task": 1},
        {"event": "step", "task": 1, "epoch": 0, "loss": 4.0},
    ]  # fmt: skip
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert epoch_losses(path) == [[2.0, 0.5], [4.0]]


def test_sentences_are_made_of_the_rows() -> None:
    def row(arm: str, last: float, loss: float, **more: float) -> dict[str, Any]:
        return {"arm": arm, "last_accuracy": last, "first_loss": 1.0, "last_loss": loss, **more}

    pairs = [row("", 0.2, 1.0), row("", 0.25, 0.9), row("", 0.3, 1.0), row("", 0.3, 1.0), row("", 0.1, 1.5),
             row("", 0.05, 1.6)]  # fmt: skip
    assert sentences.classifier(pairs) == (
        "Training the adapter moved Last by +5.0 points and the last epoch's loss by -0.1000 under the cosine head "
        "from class means, by +0.0 points and the last epoch's loss by +0.0000 under the LDA head, by -5.0 points and "
        "the last epoch's loss by +0.1000 under the paper preset."
    )
    eps = [row("fp32, eps 1e-3", 0.2, 1.0, one_sided=0.99), row("fp32, eps 1e-1", 0.2, 1.2, one_sided=0.5),
           {"arm": "int8, eps 1e-3", "one_sided": 0.1}]  # fmt: skip
    assert sentences.epsilons(eps) == (
        "One-sided fidelity is at least 0.9 in fp32 at eps 1e-3 (losses 1.0000 to 1.2000), in int8 at eps none "
        "of these."
    )
    assert sentences.memory([{"arm": "fo-batch", "failed": "no room"}]) == "ZO-FC's arm did not run."
