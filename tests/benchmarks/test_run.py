"""``edge-zofc bench NAME``: help is light, and a missing package is one sentence."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from edge_zofc.benchmarks import NAMES, ON_A_DEVICE, run
from edge_zofc.cli.arguments import BENCHMARKS
from edge_zofc.errors import InputError

HEAVY = ("torch", "timm", "onnx", "onnxruntime", "matplotlib")


@pytest.mark.parametrize("name", NAMES)
def test_help_tells_every_option_and_loads_nothing_heavy(name: str) -> None:
    code = (
        "import sys\nfrom edge_zofc.benchmarks import run\n"
        f"try: run({name!r}, ['--help'])\n"
        f"finally: sys.stderr.write(' '.join({set(HEAVY)!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: edge-zofc bench {name} ")
    assert done.stderr == ""


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(ON_A_DEVICE)))
def test_a_missing_package_is_named_before_anything_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == "timm" else found(asked))
    needed = ["--stream", "s", "--out", "o"] if name in ("accuracy", "backbones", "questions") else []
    with pytest.raises(InputError, match=r"needs the package timm; .*pip install 'edge-zofc\[demo\]'"):
        run(name, needed)


def test_streams_is_a_program_of_its_own() -> None:
    line = [sys.executable, "-m", "edge_zofc.benchmarks.streams", "--help"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "python -m edge_zofc.benchmarks.streams" in done.stdout


def test_the_command_line_offers_every_benchmark() -> None:
    assert set(BENCHMARKS) == set(NAMES)
