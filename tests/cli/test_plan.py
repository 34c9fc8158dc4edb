"""``plan`` and ``backbones``: what they tell before a run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typed import FAST, answer, run

from edge_zofc.data import folders
from edge_zofc.data import stream as streams
from edge_zofc.storage.bundle import Bundle


def test_plan_prints_its_items_and_code_3_when_nothing_fits(
    small_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", "--bundle", small_bundle.folder, "--device-profile", "cpu-2gib") == 0
    shown = capsys.readouterr().out
    assert "predicted peak" in shown
    assert "weights" in shown
    assert run("plan", "--bundle", small_bundle.folder, "--memory-budget", "20MiB") == 3
    assert "above the budget of 20" in capsys.readouterr().err


def test_plan_answers_before_an_export(
    small_stream: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("plan", "--backbone", "package-lite0", "--stream", small_stream, "--device-profile", "cpu-2gib") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("package-lite0 at 128 px in fp32, before an export: its activations")
    assert "catalogue, an estimate until an export measures" in " ".join(" ".join(lines).split())
    assert not [line for line in lines if len(line) > 80]
    found = answer(capsys, "plan", "--backbone", "package-lite0", "--stream", small_stream)
    assert (found["backbone"], found["time"]) == ("package-lite0", None)
    assert found["disk_bytes"] > 1_000_000


def test_plan_for_larger_pictures_takes_memory_by_their_pixels(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("plan", "--backbone", "package-lite0", "--micro-batch", "4", "--parallel-queries", "1")
    plain, large = answer(capsys, *words), answer(capsys, *words, "--img-size", "256")
    assert (plain["img_size"], large["img_size"]) == (128, 256)

    def activations(found: dict[str, object]) -> int:
        [item] = [item for item in found["items"] if item["name"] == "activations"]
        return int(item["anonymous_bytes"])

    assert activations(large) == pytest.approx(4 * activations(plain), rel=0.01)
    assert run(*words, "--img-size", "256") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("package-lite0 at 256 px in fp32, before an export")
    assert "scaled with the pixels from 128 px" in told


@pytest.mark.parametrize(("name", "told"), [("resnet18", False), ("vit_tiny_patch16_224", True)])
def test_smaller_weights_are_advised_where_there_are_linear_layers(
    name: str, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", "--backbone", name, "--memory-budget", "40MiB") == 3
    assert ("--precision w8" in capsys.readouterr().err) is told


def test_plan_for_a_backbone_is_that_for_a_bundle_of_the_same_sizes(
    small_bundle: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, words = small_bundle.manifest.sizes, ("plan", "--device-profile", "cpu-2gib")
    monkeypatch.setattr("edge_zofc.cli.plan_text.entry", lambda _name: SimpleNamespace(sizes=sizes, side=0))
    before = answer(capsys, *words, "--backbone", "any")
    assert before | {"backbone": None} == answer(capsys, *words, "--bundle", small_bundle.folder)


def test_backbones_fit_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("backbones") == 0
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if len(line) > 80]
    assert [line.split()[0] for line in lines if line].count("vit_small_patch14_dinov2") == 2
    assert lines[-1] == "--measure adds the forward time on this machine."
    found = answer(capsys, "backbones", "package-vit")["backbones"]
    assert [(each["name"], each["forward_seconds"]) for each in found] == [("package-vit", None)]


def test_backbones_measure_the_names_that_are_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pytest.importorskip("edge_zofc.export.catalogue_rows")
    monkeypatch.setattr(rows, "time_forwards", lambda names, _tell: dict.fromkeys(names, 0.0123))
    assert run("backbones", "resnet18", "package-vit", "--measure") == 0
    told = capsys.readouterr().out
    costs = told.split("\n\n")[1].splitlines()
    assert [line.split()[0] for line in costs] == ["name", "resnet18", "package-vit"]
    assert all(line.endswith("12.3") for line in costs[1:])
    assert "measured here" in told


def test_plan_times_the_forwards_that_the_stream_takes(
    small_bundle: Bundle, small_stream: Path, learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FAULTS C5: the run that was learnt took no more image-forwards than were planned."""
    words = ["plan", "--bundle", small_bundle.folder, "--stream", small_stream, *FAST]
    time = answer(capsys, *words)["time"]
    assert isinstance(time, dict)
    result = json.loads((learned / "result.json").read_text())
    took = sum(result[f"{name}forward_passes"] for name in ("", "evaluation_", "floor_"))
    assert took <= time["image_forwards"] <= 1.5 * took
    cost = result["last_learn"]
    assert cost["predicted_image_forwards"] == time["image_forwards"]
    assert cost["image_forwards"] == took
    assert cost["predicted_seconds"] > 0
    assert run("report", learned, "--out", tmp_path / "page.html") == 0
    assert f"{took:,} image-forwards; at most " in capsys.readouterr().out
    assert time["seconds"] == time["image_forwards"] * time["seconds_a_forward"] > 0
    assert time["gradient_passes"] == 0
    assert run(*words) == 0
    shown = capsys.readouterr().out
    assert f"  {time['image_forwards']}          0 " in shown
    assert "forward passes alone (spsa)" in shown


def test_plan_lists_train_pictures_twice(
    small_bundle: Bundle, small_stream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS C5: once to read the stream, once to count and to choose what is timed. The stream has 6 such folders."""
    listed = Counter[str]()

    def scan(folder: Path) -> Any:
        listed[str(folder)] += folder.parent.name == "train"
        return real(folder)

    real = folders.scan
    for module in (folders, streams):
        monkeypatch.setattr(module, "scan", scan)
    assert run("plan", "--bundle", small_bundle.folder, "--stream", small_stream, *FAST) == 0
    assert sorted(listed[name] for name in listed if listed[name]) == [2] * 6
