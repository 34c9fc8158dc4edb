"""What a run began with stays: its options, and how its session runs."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from runs import FAST, go, quiet

from edge_zofc.cli.main import main
from edge_zofc.device.profiles import load_profile
from edge_zofc.engine.run import learn_run
from edge_zofc.engine.setup import LearnRequest, kept_settings
from edge_zofc.errors import InputError
from edge_zofc.inference.backbone import Backbone
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.run_folder import RunFolder
from edge_zofc.storage.settings import Placement, read_settings, write_settings


@pytest.mark.parametrize("prepacking", [True, False])
def test_a_run_goes_on_with_its_weights_as_they_were_packed(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, prepacking: bool
) -> None:
    """Packed weights round differently, so what memory is free today must not decide."""
    run = tmp_path / "run"
    go(small_bundle, small_stream, run, max_steps=1)
    settings = read_settings(run)
    assert settings.execution.prepacking  # fp32, with room
    execution = settings.execution.model_copy(update={"prepacking": prepacking})
    write_settings(run, settings.model_copy(update={"execution": execution}))

    request = LearnRequest(small_bundle.folder, small_stream, run, profile="cpu-2gib")
    _, plan = kept_settings(request, small_bundle, load_profile("cpu-2gib"), RunFolder(run), 6)
    assert plan.placement.prepacking == prepacking


def test_a_run_goes_on_with_the_threads_that_it_began_with(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many there are decides how a product is cut up; a profile or the processors given today must not."""
    run, opened = tmp_path / "run", []
    go(small_bundle, small_stream, run, max_steps=1)
    settings = read_settings(run)
    execution = settings.execution.model_copy(update={"threads": 3})
    write_settings(run, settings.model_copy(update={"execution": execution}))
    real = Backbone.__init__

    def look(self: Backbone, bundle: Bundle, placement: Placement, *more: Any) -> None:
        opened.append(placement.threads)
        real(self, bundle, placement, *more)

    monkeypatch.setattr(Backbone, "__init__", look)
    go(small_bundle, small_stream, run, max_steps=2)
    assert opened == [3]


@pytest.mark.parametrize("number", ["000", "001"])
def test_a_run_that_learnt_another_stream_is_refused(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, number: str
) -> None:
    """FAULTS B1: task names alike, classes not; nothing in the run changes. A stream with more classes is the same."""
    run, other = tmp_path / "run", tmp_path / "other"
    go(small_bundle, small_stream, run)
    before = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    shutil.copytree(small_stream, other)
    changed = sorted(other.glob(f"{number}_*"))[0]
    for part in ("train", "test"):
        for folder in sorted((changed / part).iterdir()):
            folder.rename(folder.with_name(f"mine-{folder.name}"))
    with pytest.raises(InputError, match=r"has learnt another stream .* give --run a new folder"):
        go(small_bundle, other, run)
    assert {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()} == before
    for folder in sorted((changed / "train").iterdir()):
        shutil.copytree(folder, folder.with_name(folder.name.removeprefix("mine-")))
    go(small_bundle, other, run)


MIB = 1 << 20


def learnt(bundle: Bundle, stream: Path, run: Path, **more: Any) -> tuple[float | None, str | None]:
    """Budget in MiB and profile that a ``learn`` of one more step says it took."""
    found = learn_run(LearnRequest(bundle.folder, stream, run, changes=FAST, **more), quiet)
    return found.memory_budget_mib, found.device_profile


def test_budget_and_profile_stay_those_of_the_run(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """FAULTS B5: a later learn that names none goes on with them; one that names another says so and keeps it."""
    run = tmp_path / "run"
    steps = iter(range(1, 10))

    def go_on(**more: Any) -> tuple[float | None, str | None]:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            return learnt(small_bundle, small_stream, run, max_steps=next(steps), **more)

    assert go_on(profile="cpu-2gib", budget_bytes=700 * MIB) == (700, "cpu-2gib")
    assert go_on() == (700, "cpu-2gib")
    assert go_on(resume=True, profile="cpu-2gib") == (700, "cpu-2gib")
    assert "From here on" not in caplog.text
    assert go_on(budget_bytes=650 * MIB) == (650, "cpu-2gib")
    assert "memory budget 650 MiB; before, the device profile is cpu-2gib and the memory budget 700" in caplog.text
    assert go_on() == (650, "cpu-2gib")
    own = load_profile("cpu-4gib").learning_budget_mib
    assert go_on(profile="cpu-4gib") == (own, "cpu-4gib")
    assert "From here on the device profile is cpu-4gib and the memory budget the profile's own" in caplog.text
    assert go_on() == (own, "cpu-4gib")


def test_a_profile_file_is_found_from_another_folder_and_named_when_it_is_gone(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS B5."""
    (tmp_path / "board.toml").write_text(
        'name = "board"\ndescription = "mine"\nram_mib = 4096\nsystem_reserve_mib = 96\nlearning_budget_mib = 900\n'
        "threads = 1\nverified_on_hardware = false\n"
        '[[providers]]\nname = "CPUExecutionProvider"\n'
    )
    monkeypatch.chdir(tmp_path)
    assert learnt(small_bundle, small_stream, tmp_path / "run", max_steps=1, profile="board.toml")[1] == "board"
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert learnt(small_bundle, small_stream, tmp_path / "run", max_steps=2)[1] == "board"
    (tmp_path / "board.toml").unlink()
    with pytest.raises(InputError, match="begun with it; name another one with --device-profile"):
        learnt(small_bundle, small_stream, tmp_path / "run", max_steps=3)


def test_the_arena_of_a_gpu_that_is_not_here_does_not_shape_a_run(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path
) -> None:
    text = 'name = "board"\nram_mib = 4096\nsystem_reserve_mib = 96\nlearning_budget_mib = 900\nthreads = 1\n'
    text += "verified_on_hardware = false\n"
    text += '[[providers]]\nname = "CUDAExecutionProvider"\ngpu_mem_limit_mib = 1\n'
    (tmp_path / "board.toml").write_text(text + '[[providers]]\nname = "CPUExecutionProvider"\n')
    free = {"micro_batch": None, "parallel_queries": None, "max_steps": 1}
    result = go(small_bundle, small_stream, tmp_path / "run", profile=str(tmp_path / "board.toml"), **free)
    assert result["micro_batch"] == FAST["batch_size"]


def test_a_budget_that_does_not_fit_is_not_kept(small_bundle: Bundle, small_stream: Path, tmp_path: Path) -> None:
    """FAULTS B5: a number typed wrong must not stay in the settings."""
    words = ["learn", "--bundle", str(small_bundle.folder), "--stream", str(small_stream), "--run", str(tmp_path / "r")]
    assert main([*words, "--max-steps", "1", "--memory-budget", "700MiB"]) == 0
    assert main([*words, "--max-steps", "2", "--memory-budget", "7MiB"]) == 3
    assert read_settings(tmp_path / "r").memory_budget_bytes == 700 * MIB
