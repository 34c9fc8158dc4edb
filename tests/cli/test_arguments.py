"""The words of a command line: help for each, names that are unknown, packages that are missing."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
from typed import run

from edge_zofc.cli import arguments, commands

COMMANDS = (
    "demo", "export", "split", "backbones", "capture", "live", "plan", "learn", "eval", "predict", "teach",
    "forget", "rename", "undo", "lesson", "deploy", "report", "replay", "history", "rollback", "fleet share",
    "fleet merge", "fleet revoke", "fleet keys", "fleet serve", "fleet join", "fleet status", "fleet simulate",
    "profiles", "doctor", "bench",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command.split(), "--help") == 0
    assert f"edge-zofc {command}" in capsys.readouterr().out


def test_every_argument_of_every_command_has_a_help_text() -> None:
    assert tuple(arguments.COMMANDS) == COMMANDS
    for command in COMMANDS:
        parser = argparse.ArgumentParser()
        arguments.fill(parser, command)
        assert [action.dest for action in parser._actions if not action.help] == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("lern", "edge-zofc: lern is unknown; did you mean learn?"),
        ("xyzzy", "edge-zofc: xyzzy is unknown; see 'edge-zofc --help'."),
        ("learn --lr 0.1", "edge-zofc learn: --lr is unknown; did you mean --adapter-lr or --head-lr?"),
        ("learn --strem=x", "edge-zofc learn: --strem is unknown; did you mean --stream?"),
        ("plan --profile x", "edge-zofc plan: --profile is unknown; did you mean --device-profile?"),
        ("history run --wobble", "edge-zofc history: --wobble is unknown; see 'edge-zofc history --help'."),
        ("fleet mrge", "edge-zofc: fleet mrge is unknown; did you mean fleet merge?"),
        ("flet share", "edge-zofc: flet is unknown; did you mean fleet?"),
        ("fleet merge b s --caps 2", "edge-zofc fleet merge: --caps is unknown; did you mean --cap?"),
        ("lern\x1b[31m", "edge-zofc: lern\\x1b[31m is unknown; see 'edge-zofc --help'."),
    ],
)
def test_an_unknown_name_gets_the_nearest(words: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words.split(" ")) == 2
    assert capsys.readouterr().err == sentence + "\n"


def test_shortened_options_and_what_stands_after_two_dashes_are_no_unknown_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("learn", "--str", "x", "--bund=nowhere") == 2
    assert run("predict", "nowhere", "--", "--lr") == 2
    assert run("replay", "nowhere", "journal.bin", "--out", "adapter") == 2
    assert "unknown" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "nowhere a.jpg b.jpg --json",
        "nowhere --json a.jpg b.jpg",
        "nowhere a.jpg --top 2 b.jpg --json",
        "--json nowhere a.jpg b.jpg",
    ],
)
def test_an_option_may_stand_among_pictures(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``predict RUN --json PICTURE`` ended in "unrecognized arguments"."""
    found = []

    def predict(options: argparse.Namespace) -> int:
        found.append(([str(path) for path in options.names], options.json))
        return 0

    monkeypatch.setattr(commands, "predict", predict)
    assert run("predict", *words.split(" ")) == 0
    assert found == [(["nowhere", "a.jpg", "b.jpg"], True)]


@pytest.mark.parametrize("words", ["history run more", "replay b j -o x more", "fleet status a more"])
def test_a_word_too_many_is_named(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words.split(" ")) == 2
    assert "error: unrecognized arguments: more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "end"),
    [
        ("export", "install it with pip install 'edge-zofc[export]'."),
        ("demo", "install it with pip install 'edge-zofc[demo]'."),
        ("bench memory", "pip install 'edge-zofc[demo]'."),
        ("bench accuracy --stream x --out y", "install it with pip install 'edge-zofc[demo]'."),
        ("bench memory --help", ""),
        ("bench accuracy --help", ""),
    ],
)
def test_a_missing_package_is_one_sentence_and_no_hindrance_to_help(words: str, end: str, tmp_path: Path) -> None:
    code = (
        "import sys; from edge_zofc.cli.main import main\n"
        "sys.modules.update(dict.fromkeys(('torch', 'torchvision', 'timm', 'onnx', 'sklearn', 'matplotlib')))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *words.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout == "") == ((2, True) if end else (0, False)), done.stderr
    assert len(done.stderr.splitlines()) == bool(end) and done.stderr.strip().endswith(end)
    assert not list(tmp_path.iterdir())


def test_help_loads_neither_torch_nor_onnxruntime() -> None:
    code = (
        "import sys; from edge_zofc.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'onnxruntime', 'timm', 'matplotlib'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"
