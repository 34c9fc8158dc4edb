"""``fleet simulate`` as a user meets it; with Flower's engine it is in ``tests/system``."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from typed import run

from edge_zofc.storage.bundle import Bundle


def words(bundle: Bundle, stream: Path) -> tuple[object, ...]:
    return "fleet", "simulate", "--bundle", bundle.folder, "--stream", stream, "--devices", 6, "--engine", "plain"


def test_a_simulated_fleet_and_what_is_kept_of_it(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--split", "classes:1", "--rounds", 2, "--hostile", 0.2, "--min-pictures", 1, "-o", tmp_path / "out")
    assert run(*words(small_bundle, small_stream), *more) == 0
    told = capsys.readouterr().out
    assert told.startswith("6 devices, 48 pictures of 6 classes, 8 to 8 a device (classes:1)\n")
    assert "one device with all pictures: " in told and "rounds an hour" in told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "accuracy.png", "fleet", "log.txt", "simulation.json",
    ]  # fmt: skip
    kept = json.loads((tmp_path / "out/simulation.json").read_text())
    assert [one["number"] for one in kept["rounds"]] == [1, 2] and kept["attackers"][0]["attack"] == "labels"
    sentences = (tmp_path / "out/log.txt").read_text().splitlines()
    assert sum(sentence.startswith("round ") for sentence in sentences) == 2
    assert run("eval", tmp_path / "out/fleet", "--stream", small_stream, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    right = sum(task["correct"] for task in found["tasks"])
    assert right == round(kept["rounds"][-1]["scores"]["shares"] * kept["test_pictures"])
    assert run(*words(small_bundle, small_stream), "-o", tmp_path / "out") == 2
    assert "is not empty; give -o a new folder" in capsys.readouterr().err


def test_json_has_all_numbers(small_bundle: Bundle, small_stream: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words(small_bundle, small_stream), "--rounds", 1, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["wanted"]["devices"] == 6 and found["engine"] == "plain" and found["classes"] == 6
    assert found["rounds"][0]["asked"] == 6 and found["attackers"] == []


def test_bad_requests_are_a_sentence(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, sentence in (
        (("--split", "x"), "--split is 'x'; write 'classes:K'"),
        (("--devices", 2), "2 devices of 2 classes cannot hold 6 classes"),
        (("--cap", 0.5), "cap"),
    ):
        assert run(*words(small_bundle, small_stream), *more) == 2
        assert sentence in capsys.readouterr().err
    shutil.copytree(small_stream, tmp_path / "stream")
    for place in (tmp_path / "stream").glob("*/test"):
        shutil.rmtree(place)
    assert run(*words(small_bundle, tmp_path / "stream")) == 2
    assert "has no test picture that can be read" in capsys.readouterr().err


def test_without_flower_it_says_what_to_install(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run("fleet", "simulate", "--bundle", small_bundle.folder, "--stream", "x") == 2
    assert "pip install 'edge-zofc[fleet-simulation]', or give --engine plain." in capsys.readouterr().err
