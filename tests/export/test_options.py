"""What can be asked of an export, and what is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_zofc.errors import InputError
from edge_zofc.export.options import ExportOptions, check_options, tuning_request


@pytest.mark.parametrize("steps", [0, -1, 10_001])
def test_a_number_of_tuning_steps_that_makes_no_sense_is_refused(tmp_path: Path, steps: int) -> None:
    with pytest.raises(InputError, match=rf"--tune-steps must be 1 to 10000, got {steps}\."):
        check_options(ExportOptions(tmp_path / "b", tune=[tmp_path], tune_steps=steps))


def test_tuning_steps_without_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--tune-steps belongs to --tune FOLDER; give both or neither"):
        check_options(ExportOptions(tmp_path / "b", tune_steps=5))


def test_a_tuning_takes_the_exports_seed_and_a_hundred_steps(tmp_path: Path) -> None:
    found = tuning_request(ExportOptions(tmp_path / "b", tune=[tmp_path], seed=7))
    assert (found.folders, found.steps, found.seed) == ([tmp_path], 100, 7)
    assert tuning_request(ExportOptions(tmp_path / "b", tune=[tmp_path], tune_steps=5)).steps == 5
