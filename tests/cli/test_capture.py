"""``edge-zofc capture`` as a user meets it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jpegs import PLAIN, is_running, showing
from typed import run


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    folder = tmp_path / "shown"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(PLAIN)
    return folder


def test_a_burst_for_each_part_of_a_task(shown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("capture", tmp_path / "001_fruit", "apple", "--camera", f"folder://{shown}", "--count", 1)
    assert run(*words) == 0
    said = capsys.readouterr().out
    assert said == (
        f"{tmp_path}/001_fruit/train/apple: burst 1, 1 picture\n"
        "Pictures to test with should be another burst: move the thing, then capture with --test.\n"
    )
    assert run(*words, "--test", "--json") == 0
    folder = tmp_path / "001_fruit" / "test" / "apple"
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(folder), "part": "test", "burst": 1, "pictures": ["0001-0001.jpg"],
        "camera": f"folder://{shown}", "interrupted": False,
    }  # fmt: skip
    assert (folder / "0001-0001.jpg").read_bytes() == PLAIN


def test_any_program_that_writes_jpegs_is_a_camera(shown: Path, tmp_path: Path) -> None:
    command = shlex.join(showing(shown / "a.jpg", ""))
    assert run("capture", tmp_path, "apple", "--camera-command", command, "--count", 1) == 0
    assert (tmp_path / "train" / "apple" / "0001-0001.jpg").read_bytes() == PLAIN


@pytest.mark.parametrize(
    "words",
    [
        ["apple"],
        ["apple", "--camera", "browser"],
        ["apple", "--camera", "film.mp4"],
        ["apple", "--camera", "folder://shown", "--camera-command", "false"],
        ["../apple", "--camera", "folder://shown"],
        ["apple", "--camera", "folder://shown", "--every", "0"],
        ["apple", "--camera", "folder://shown", "--seconds", "nan"],
        ["apple", "--camera", "folder://shown", "--count", "0"],
    ],
)
def test_what_cannot_be_done_ends_with_code_2_and_nothing_written(
    words: list[str], shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("capture", "task", *words) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "task").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_burst_and_the_camera(number: signal.Signals, code: int, shown: Path, tmp_path: Path) -> None:
    command = shlex.join(
        showing(shown / "a.jpg", "print(os.getpid(), file=open(sys.argv[1] + '.pid', 'w'))\ntime.sleep(600)")
    )
    words = ("capture", tmp_path, "apple", "--camera-command", command, "--count", "9", "--json")
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    line = [sys.executable, "-m", "edge_zofc", *map(str, words)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        picture, limit = tmp_path / "train" / "apple" / "0001-0001.jpg", time.monotonic() + 30
        while not picture.exists():
            assert time.monotonic() < limit
            time.sleep(0.02)
        process.send_signal(number)
        out, error = process.communicate(timeout=30)
    assert process.returncode == code, error
    assert picture.read_bytes() == PLAIN
    assert not is_running(int((shown / "a.jpg.pid").read_text()))
    if number == signal.SIGINT:
        assert json.loads(out)["interrupted"] is True
