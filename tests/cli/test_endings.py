"""How a command ends: one sentence and its exit code, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small import write_small_bundle
from typed import FAST, run

from edge_zofc.cli import commands
from edge_zofc.cli.main import main
from edge_zofc.errors import ArenaFullError
from edge_zofc.storage.bundle import Bundle


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["learn", "--stream", "nowhere"], 2, "There is no bundle in bundle"),
        (["report", "nowhere"], 2, "nowhere"),
        (["predict", "nowhere", "a.jpg"], 2, "There is no run in nowhere or run"),
        (["eval", "nowhere", "--stream", "x"], 2, "There is no run in nowhere"),
        (["history", "nowhere"], 2, "There is no run in nowhere"),
        (["rollback", "nowhere", "--to-task", "0"], 2, "There is no run in nowhere"),
        (["replay", "nowhere", "j", "-o", "a"], 2, "There is no bundle in nowhere"),
        (["export", "--backbone", "swin_tiny_patch4_window7_224", "--random-weights"], 2, "VisionTransformer"),
        (["split", "nowhere", "out", "--classes-per-task", "2"], 2, "nowhere"),
        (["plan", "--memory-budget", "lots"], 2, "There is no bundle"),
        (["plan", "--backbone", "resnet81"], 2, "'resnet81'; the nearest are resnet18"),
        (["plan", "--backbone", "resnet18", "--bundle", "b"], 2, "two things to plan for; give one"),
        (["plan", "--img-size", "224"], 2, "--img-size 224 belongs to --backbone"),
        (["plan", "--backbone", "resnet18", "--img-size", "4"], 2, "8 to 1024 pixels, got 4"),
        (["plan", "--backbone", "resnet50", "--memory-budget", "90MiB"], 3, "above the budget of 90"),
        (["backbones", "resnet18", "resnet81"], 2, "'resnet81'; the nearest are resnet18"),
        (["doctor", "--bundle", "nowhere"], 2, "There is no bundle in nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    words: list[str], code: int, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(*words) == code
    shown = capsys.readouterr().err
    assert sentence in shown
    assert "Traceback" not in shown
    assert json_error(words, capsys)["exit_code"] == code


def json_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """What the same command prints with --json."""
    run(*words, "--json")
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_a_damaged_bundle_ends_with_code_5(
    small_stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    weights = bundle.folder / "backbone.onnx.data"
    raw = bytearray(weights.read_bytes())
    raw[100] ^= 1
    weights.write_bytes(raw)
    assert run("learn", "--bundle", bundle.folder, "--stream", small_stream, "--run", tmp_path / "run") == 5
    assert "SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_with_its_number(
    number: signal.Signals, small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    words = ["learn", "--bundle", small_bundle.folder, "--stream", small_stream, "--run", tmp_path / "run", *FAST]
    words[words.index("--epochs") + 1] = "5000"
    script = "import sys; from edge_zofc.cli.main import main; sys.exit(main(sys.argv[1:]))"
    child = subprocess.Popen([sys.executable, "-c", script, *map(str, words)], stderr=subprocess.PIPE, text=True)
    events = tmp_path / "run" / "events.jsonl"
    for _ in range(1200):
        if events.exists() and '"step"' in events.read_text():
            break
        time.sleep(0.05)
    os.kill(child.pid, number)
    _, shown = child.communicate(timeout=60)
    assert child.returncode == 128 + number
    assert "--resume" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError("8 bytes"), "Memory ran out (8 bytes); give a larger budget."),
        (
            ArenaFullError("it is full"),
            "Memory ran out: it is full; give a device profile with a larger gpu_mem_limit_mib.",
        ),
    ],
)
def test_memory_that_runs_out_ends_with_code_3_and_its_way_out(
    error: MemoryError, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> int:
        raise error

    monkeypatch.setattr(commands, "profiles", fails)
    assert main(["profiles"]) == 3
    assert capsys.readouterr().err == f"edge-zofc: {told}\n"


def test_a_budget_without_a_unit_is_not_taken_for_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    """FAULTS C9."""
    assert run("learn", "--stream", "nowhere", "--memory-budget", "512") == 2
    assert capsys.readouterr().err == "edge-zofc: --memory-budget 512 is 512 bytes; write the unit, such as 512MiB.\n"
