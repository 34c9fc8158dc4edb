"""An export whose adapter starts tuned."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import TINY, TINY_COMMAND
from small import picture

from edge_zofc.cli.main import main
from edge_zofc.export import tuning, writer
from edge_zofc.export.adapters import initial_adapter
from edge_zofc.export.options import ExportOptions
from edge_zofc.export.writer import export_bundle
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.manifest import Fidelity, Precision


def pictures_by_class(folder: Path) -> Path:
    """Eight classes of four pictures."""
    for number in range(8):
        place = folder / "train" / f"class{number}"
        place.mkdir(parents=True)
        for index in range(4):
            picture(number, index).save(place / f"{index}.png")
    return folder


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("precision", ["fp32", "w8"])
def test_a_tuned_start_is_the_bundles_own_and_its_probe_and_fidelity_are_measured_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Bundle, precision: Precision
) -> None:
    monkeypatch.setattr(tuning, "best_strength", max)
    asked = []
    measure = writer.measure_fidelity

    def noted(*args: Any, **options: Any) -> Fidelity:
        asked.append(options["start"])
        return measure(*args, **options)

    monkeypatch.setattr(writer, "measure_fidelity", noted)
    folder = pictures_by_class(tmp_path / "pictures")
    found = export_bundle(
        ExportOptions(tmp_path / "b", tune=[folder], tune_steps=1, seed=3, precision=precision, **TINY)
    )
    start, told = found.initial_adapter(), read_bundle(found.folder).manifest.tuning
    assert found.manifest.format_version == 7
    assert told is not None
    assert (told.classes, told.held_back, told.pictures, told.steps, told.seed) == (6, 2, 18, 1, 3)
    assert 2e-3 < np.abs(start - initial_adapter(found.manifest.adapter, 3)).max() < 4e-3
    probe = found.probe()
    assert np.array_equal(probe.adapters[0], start)
    assert 0 < np.abs(probe.adapters[1] - start).max() <= 0.021
    assert np.array_equal(asked[0], start)
    assert found.identity != tiny_bundle.identity
    never = export_bundle(ExportOptions(tmp_path / "never", seed=3, precision=precision, **TINY))
    assert [one.identity for one in found.starts()] == [found.identity, never.identity]


def test_a_tuning_that_does_not_win_ends_in_a_sentence_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At rate 0 the tuned start is the untuned one."""
    monkeypatch.setitem(tuning.RATES, "bottleneck", 0.0)
    folder = pictures_by_class(tmp_path / "pictures")
    assert main(["export", str(tmp_path / "b"), *TINY_COMMAND, "--tune", str(folder), "--tune-steps", "1"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "The tuned start is refused and nothing is written, for it does not win at any strength" in told
    assert "(+0.0 points, 95 % interval +0.0 to +0.0, 8 pictures)" in told
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


@pytest.mark.usefixtures("quick")
def test_the_command_takes_folders_in_any_number_and_tells_what_they_won(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tuning, "best_strength", max)
    one, other = pictures_by_class(tmp_path / "one"), pictures_by_class(tmp_path / "other")
    command = ["export", str(tmp_path / "b"), *TINY_COMMAND, "--tune-steps", "1"]
    assert main([*command, "--tune", str(one), str(one), "--tune", str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["tuning"]
    assert (found["pictures"], found["seed"]) == (6 * 6, 1993)
    assert main([*command, "--tune", str(one), "--force"]) == 0
    assert re.search(
        r"\ntuned on 6 classes, strength 1; 2 classes held back: \d+\.\d% -> .* 8 pictures\); all: .*\)$",
        capsys.readouterr().out.rstrip(),
    )
