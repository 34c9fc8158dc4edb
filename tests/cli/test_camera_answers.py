"""``edge-zofc predict --camera`` as a user meets it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from small import picture
from typed import run

from edge_zofc.cli import camera_answers
from edge_zofc.learner import Learner
from edge_zofc.storage.bundle import Bundle


@pytest.fixture
def taught(small_bundle: Bundle, tmp_path: Path) -> Path:
    """A run that was shown a mug and a pen; the camera beside it, ``shown``, sees mugs."""
    with Learner.create(small_bundle.folder, tmp_path / "run", profile="cpu-2gib") as learner:
        for number, name in ((0, 'mug "1"'), (3, "pen")):
            learner.teach([np.asarray(picture(number, index, side=64)) for index in range(5)], name)
    (tmp_path / "shown").mkdir()
    for index in range(3):
        picture(0, 20 + index, side=64).save(tmp_path / "shown" / f"{index}.jpg")
    return tmp_path / "run"


@contextmanager
def answering(taught: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process that answers without end, which has printed its first line."""
    camera = ("--camera", f"folder://{taught.parent / 'shown'}", "--every", "0.1")
    command = [sys.executable, "-m", "edge_zofc", "predict", str(taught), *camera, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["name"] == 'mug "1"'
            yield process
        finally:
            process.kill()


def test_one_json_object_a_line(
    taught: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(taught.parent)  # run/ needs no name
    assert run("predict", "--camera", "folder://shown", "--count", 2, "--every", 0.1, "--top", 1) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["picture"], line["name"], line["stable"]) for line in lines] == [
        (1, 'mug "1"', None), (2, 'mug "1"', None),
    ]  # fmt: skip
    assert [guess["class_name"] for guess in lines[0]["classes"]] == ['mug "1"']


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly(number: signal.Signals, code: int, taught: Path) -> None:
    with answering(taught) as process:
        process.send_signal(number)
        _, error = process.communicate(timeout=30)
        assert (process.returncode, error) == (code, "")


def test_a_reader_that_goes_ends_it_quietly(taught: Path) -> None:
    with answering(taught) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""


def test_what_another_process_teaches_is_answered(taught: Path) -> None:
    with answering(taught) as process:
        with Learner.open(taught) as learner:
            learner.rename('mug "1"', "cup")
        limit, name = time.monotonic() + 30, ""
        while name != "cup":
            assert time.monotonic() < limit
            assert process.stdout is not None
            name = json.loads(process.stdout.readline())["name"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["run", "shown/0.jpg", "--camera", "folder://shown"], "Pictures and a camera cannot be named at once"),
        (["shown/0.jpg", "--camera", "folder://shown"], "but shown/0.jpg stands beside a camera"),
        (["run", "run", "--camera", "folder://shown"], "with one run or none"),
        (["run", "--camera", "browser"], "edge-zofc live"),
        (["run", "--camera", "nowhere"], "is no address of a camera"),
        (["run", "shown/0.jpg", "--count", "2"], "--count needs a camera"),
        (["run", "shown/0.jpg", "--mqtt-topic", "a"], "--mqtt-topic needs a camera"),
        (["run", "--camera", "folder://shown", "--mqtt-user", "me"], "--mqtt-user needs a broker"),
        (["run", "--camera", "folder://shown", "--mqtt", "a:b"], "--mqtt takes HOST or HOST:PORT"),
        (["run", "--camera", "folder://shown", "--mqtt", "a", "--mqtt-topic", "a/#"], "cannot be the start of a topic"),
        (["run", "--camera", "folder://shown", "--mqtt", "127.0.0.1:1"], "127.0.0.1:1 cannot be used (connection ref"),
        (["run", "--camera", "folder://shown", "--every", "0"], "is not a number of seconds above 0"),
        ([], "Nothing to name"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    words: list[str], why: str, taught: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(taught.parent)
    assert run("predict", *words) == 2
    captured = capsys.readouterr()
    assert why in captured.err
    assert captured.out == ""


def test_a_missing_package_is_told_before_anything_is_opened(
    taught: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def need(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(camera_answers, "need", need)
    assert run("predict", "nowhere", "--camera", "nothing", "--mqtt", "shelf") == 2
    assert capsys.readouterr().err == (
        "edge-zofc: This command needs the package paho; install it with pip install 'edge-zofc[mqtt]'.\n"
    )


def test_the_help_loads_neither_paho_nor_onnxruntime() -> None:
    code = (
        "import sys\nfrom edge_zofc.cli.main import main\ntry: main(['predict', '--help'])\nexcept SystemExit: pass\n"
    )
    code += "print({'paho', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
