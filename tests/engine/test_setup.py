"""What a run began with stays: its options, and how its session runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs import go

from edge_zofc.device.profiles import load_profile
from edge_zofc.engine.setup import LearnRequest, kept_settings
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
    _, plan = kept_settings(request, small_bundle, load_profile("cpu-2gib"), RunFolder(run))
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
