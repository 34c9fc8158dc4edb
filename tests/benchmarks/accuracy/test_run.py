"""``bench accuracy`` runs each cell once, in a process of its own, and tells what came out in four forms."""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmark_problem import write_stream

from edge_zofc.benchmarks.accuracy import run, tables
from edge_zofc.benchmarks.accuracy.charts import write_pictures
from edge_zofc.benchmarks.methods import names, registry
from edge_zofc.errors import InputError


def arguments(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def unpadded(table: str) -> str:
    return re.sub(" +", " ", table)


def cell(method: str, seed: int, average: float, forgetting: float | None = 0.1) -> dict[str, Any]:
    return {
        "method": method,
        "seed": seed,
        "average_accuracy": average,
        "last_accuracy": average - 0.1,
        "forgetting": forgetting,
        "mean_per_class_accuracy": average,
        "stage_accuracy": [0.9, average],
        "training": {"epochs": 2},
        "trainable_parameters": [7, 5],
        "forward_passes": 100,
        "backward_passes": 40,
        "seconds": 1.5,
        "peak_rss_mib": 321.0,
    }


def test_a_cell_is_run_once_and_gives_table_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream, out = write_stream(tmp_path / "stream"), tmp_path / "out"
    asked = arguments("--stream", stream, "--out", out, "--methods", "simplecil", "--seeds", 1, "--json")
    assert run.main(asked) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["failed"] == []
    row = answer["rows"][0]
    assert (row["method"], row["seeds"], row["forward_passes"], row["backward_passes"]) == ("simplecil", 1, 48, 0)
    assert row["average_accuracy"]["mean"] > 0.9
    assert row["peak_rss_mib"] > 100
    file = out / "cells" / "simplecil-seed1993.json"
    written = file.stat().st_mtime_ns
    assert run.main(asked) == 0
    assert file.stat().st_mtime_ns == written
    for name in ("accuracy_over_tasks.png", "accuracy_memory.png", "forgetting.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="another epochs"):
        run.main(arguments("--stream", stream, "--out", out, "--methods", "simplecil", "--epochs", 3))


def test_a_failed_cell_is_named_with_its_words_and_leaves_no_file(tmp_path: Path) -> None:
    stream, out = write_stream(tmp_path / "stream"), tmp_path / "out"
    asked = arguments(
        "--stream", stream, "--out", out, "--methods", "simplecil", "--seeds", 1,
        "--backbone", "vit_tiny_patch16_224", "--checkpoint", tmp_path / "missing.safetensors",
    )  # fmt: skip
    with pytest.raises(InputError, match=r"1 cells failed: simplecil \(seed 1993\)"):
        run.main(asked)
    assert list((out / "cells").iterdir()) == []
    assert "missing.safetensors" in (out / "logs" / "simplecil-seed1993.txt").read_text()


def test_of_several_seeds_the_table_has_mean_and_standard_deviation(tmp_path: Path) -> None:
    cells = [cell("head", 1, 0.5), cell("head", 2, 0.7), cell("simplecil", 1, 0.4, None)]
    settings = {"stream": "/x/digits", "preset": "edge", "search": 1, "threads": 1, "epoch_factor": 1}
    rows = tables.write_tables(cells, settings, tmp_path)
    assert [row["method"] for row in rows] == ["simplecil", "head"]
    assert rows[1]["average_accuracy"] == {"mean": pytest.approx(0.6), "std": pytest.approx(0.1)}
    assert rows[0]["forgetting"] is None
    text = unpadded((tmp_path / "accuracy.md").read_text())
    assert "| head | 60.0 ± 10.0 | 50.0 ± 10.0 | 10.0 ± 0.0 |" in text
    assert "| simplecil | 40.0 | 30.0 | - |" in text
    with (tmp_path / "accuracy.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert read[1]["method"] == "head"
    assert float(read[1]["last_accuracy_mean"]) == pytest.approx(0.5)
    assert read[0]["forgetting_mean"] == ""
    assert len({len(line) for line in tables.terminal(rows).splitlines()}) == 1
    write_pictures(cells, tmp_path)


def test_an_unknown_method_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no method \['eas'\]; known are simplecil, ridge"):
        run.chosen_methods("head,eas")
    assert run.chosen_methods("ease, head,ease") == ["ease", "head"]
    assert run.chosen_methods("all") == list(names.METHODS)


def test_methods_that_work_inside_a_vit_refuse_a_cnn_before_anything_runs(tmp_path: Path) -> None:
    stream, out = write_stream(tmp_path / "stream"), tmp_path / "out"
    with pytest.raises(InputError, match=r"^l2p, ease work inside a ViT, and this backbone is a CNN; give --backbone"):
        run.main(arguments("--stream", stream, "--out", out, "--methods", "l2p,simplecil,ease"))
    assert not out.exists()


def test_what_takes_any_backbone_is_all_that_is_not_built_inside_a_vit() -> None:
    assert set(names.METHODS) - set(registry.BUILD) == names.ANY_BACKBONE


def test_the_command_line_loads_no_torch() -> None:
    code = "import sys, edge_zofc.benchmarks.accuracy.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_trained_method_has_values_and_they_follow_the_command_line() -> None:
    for name in names.METHODS:
        if name in names.TRAINING_FREE or name == "zo-fc":
            continue
        own = registry.training(name, registry.MethodSettings())
        assert own.epochs >= 1
        assert registry.training(name, registry.MethodSettings(epochs=3)).epochs == 3
        assert registry.training(name, registry.MethodSettings(lr_factor=3.0)).lr == pytest.approx(3 * own.lr)


def test_equal_forwards_give_head_and_fo_fc_more_epochs() -> None:
    more = registry.MethodSettings(epochs=2, epoch_factor=5)
    assert registry.training("head", more).epochs == 10
    assert registry.training("fo-fc", more).epochs == 10
    assert registry.training("zo-all", more).epochs == 2


def test_the_paper_preset_is_the_papers() -> None:
    how = registry.training("zo-all", registry.MethodSettings(preset="paper"))
    assert (how.epochs, how.batch_size, how.lr, how.eps, how.queries, how.two_sided, how.clip_norm) == (
        20, 48, 0.01, 1e-3, 4, True, 1.0,
    )  # fmt: skip
    assert registry.training("head", registry.MethodSettings(preset="paper")).head_epochs == 10
