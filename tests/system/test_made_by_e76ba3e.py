"""A bundle and two half learnt runs that an earlier version wrote (``made_by_e76ba3e/make.py``): nothing is lost."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edge_zofc.cli.main import main
from edge_zofc.engine.history import read_history, roll_back
from edge_zofc.engine.replay import replay_run
from edge_zofc.engine.run import learn_run
from edge_zofc.engine.setup import LearnRequest
from edge_zofc.storage.result import read_result
from edge_zofc.storage.run_folder import RunFolder

MADE = Path(__file__).parent / "made_by_e76ba3e"
ANSWERS = json.loads((MADE / "answers.json").read_text())
RUNS = ("edge", "paper")


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("made_by_e76ba3e", MADE / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A copy of the files, where the runs find their bundle."""
    for name in ("bundle", "stream", *RUNS):
        shutil.copytree(MADE / name, tmp_path / name)
    for name in RUNS:
        settings = tmp_path / name / "settings.json"
        settings.write_text(settings.read_text().replace("/made/by/e76ba3e/bundle", str(tmp_path / "bundle")))
    return tmp_path


def replayed(world: Path, name: str, until_task: int | None = None) -> Any:
    return replay_run(world / "bundle", world / name / "journal.bin", world / "theta", None, until_task)


def go_on(world: Path, name: str) -> None:
    request = LearnRequest(world / "bundle", world / "stream", world / name, profile="cpu-2gib")
    assert learn_run(request, lambda trainer, loss: None).completed


@pytest.mark.parametrize("name", RUNS)
def test_the_half_learnt_run_replays_to_the_known_adapter(world: Path, name: str) -> None:
    found = replayed(world, name)
    assert {"steps": found.steps, "adapter_sha256": found.sha256} == ANSWERS[name]["half"]


@pytest.mark.parametrize("name", RUNS)
def test_the_run_goes_on_to_the_end_that_its_own_version_came_to(world: Path, name: str) -> None:
    go_on(world, name)
    known, found = ANSWERS[name], RunFolder(world / name).latest()
    result = read_result(world / name)
    assert found is not None
    arrays = found.snapshot.arrays
    assert (result.steps, len(result.tasks)) == (known["steps"], 3)
    assert replayed(world, name).sha256 == hashlib.sha256(arrays["theta"].tobytes()).hexdigest()
    # Since format 2 of the snapshots a solved head's sums are exact, so that its bits are others.
    for key in known["sums"] if name == "paper" else ("theta", "velocity"):
        assert arrays[key].astype("f8").sum() == pytest.approx(known["sums"][key], abs=1e-2), key
    if name == "paper" and (onnxruntime.__version__, script().processor()) == (
        ANSWERS["onnxruntime"],
        ANSWERS["processor"],
    ):
        # Another onnxruntime or processor rounds features differently; here not a bit may differ.
        hashes = {key: hashlib.sha256(arrays[key].tobytes()).hexdigest() for key in known["arrays_sha256"]}
        assert hashes == known["arrays_sha256"]
        assert result.accuracy_matrix == known["accuracy_matrix"]


@pytest.mark.parametrize("name", RUNS)
def test_the_run_goes_back_to_its_first_task_and_learns_the_rest_again(world: Path, name: str) -> None:
    first = replayed(world, name, until_task=0).sha256
    assert roll_back(world / name, 0)["steps"] == 6
    assert replayed(world, name).sha256 == first
    go_on(world, name)
    history = read_history(world / name)
    assert [task["finished"] for task in history["tasks"]] == [True] * 3
    assert history["rollbacks_to"] == [0]


@pytest.mark.parametrize("name", RUNS)
def test_every_command_reads_the_run(world: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run, picture = str(world / name), next((world / "stream").rglob("*.png"))
    for words in (
        ["history", run],
        ["predict", run, str(picture)],
        ["eval", run, "--stream", str(world / "stream")],
        ["report", run],
        ["doctor", "--bundle", str(world / "bundle")],
    ):
        assert main(words) == 0, words
    assert (world / name / "report.html").stat().st_size > 10_000
    assert "class0" in capsys.readouterr().out


@pytest.mark.parametrize("name", RUNS)
def test_the_settings_are_written_back_to_the_same_bytes(name: str) -> None:
    """New learning rates rewrite them: an older version must still be able to read them."""
    path = MADE / name / "settings.json"
    assert RunFolder(MADE / name).settings().to_json() == path.read_bytes()


@pytest.mark.parametrize("name", RUNS)
def test_the_result_of_the_first_task_keeps_all_its_keys(name: str) -> None:
    old = json.loads((MADE / name / "result.json").read_text())
    new = json.loads(read_result(MADE / name).model_dump_json(exclude={"stopped"}))
    assert {key: new[key] for key in old} == old
    assert (new["classes"], new["confusion"], new["next_steps"], new["last_learn"]) == ([], None, [], None)


def test_the_runs_moved(world: Path) -> None:
    """Otherwise the same bits would prove nothing."""
    for name in RUNS:
        theta = RunFolder(world / name).latest().snapshot.arrays["theta"]  # type: ignore[union-attr]
        end = np.abs(theta).sum()
        assert end > 1
        assert ANSWERS[name]["adapter_sha256"] != ANSWERS[name]["half"]["adapter_sha256"]
