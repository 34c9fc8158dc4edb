"""The known answers of ``tests/golden/``: what every version on every processor must replay to."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent


def script(name: str) -> Any:
    """A module that stands beside the answers."""
    spec = importlib.util.spec_from_file_location(name, GOLDEN / f"{name}.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_journals_replay_to_the_known_adapters() -> None:
    expected = json.loads((GOLDEN / "answers.json").read_text())
    assert len(expected) == 27
    assert script("replay_here").replayed(GOLDEN) == expected


def test_the_answers_come_from_the_script_beside_them(tmp_path: Path) -> None:
    script("replay_here")
    script("make").main(tmp_path)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(made) == 12
    for name, raw in made.items():
        assert (GOLDEN / name).read_bytes() == raw, name


def test_journals_and_places_differ() -> None:
    """Otherwise an answer would prove less than it says; but after the rollback steps 0-59 are those of task 0."""
    answers = json.loads((GOLDEN / "answers.json").read_text())
    assert len(set(answers.values())) == len(answers)


def test_they_replay_where_neither_psutil_nor_onnxruntime_is() -> None:
    """The emulated processor has numpy, pydantic and safetensors alone."""
    code = (
        "import runpy, sys; sys.modules.update(dict.fromkeys(['psutil', 'PIL', 'onnxruntime', 'torch', 'jinja2']));"
        "sys.path.insert(0, sys.argv[1]); runpy.run_path(sys.argv[1] + '/replay_here.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(GOLDEN)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("27 of 27 known answers")


@pytest.mark.slow
def test_an_emulated_aarch64_gives_the_same_answers() -> None:
    place = os.environ.get("EDGE_ZOFC_AARCH64")
    if place is None:
        pytest.skip("set EDGE_ZOFC_AARCH64 to a folder that may keep 400 MB of an emulated system")
    done = subprocess.run(
        ["sh", str(GOLDEN / "replay_on_aarch64.sh"), place], capture_output=True, text=True, timeout=1800
    )
    assert done.stdout.strip() == "aarch64: 27 of 27 known answers", done.stdout + done.stderr[-2000:]
    assert done.returncode == 0
