"""A merged fleet answers as a run does, is looked at again when a share comes, and is not taught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shares import write_share
from small import picture

from edge_zofc.engine.predict import open_run
from edge_zofc.errors import InputError
from edge_zofc.fleet.merging import merge
from edge_zofc.learner import Learner
from edge_zofc.storage.bundle import Bundle


@pytest.fixture
def fleet(small_bundle: Bundle, tmp_path: Path) -> Path:
    """Of one device, which knows a cup and a fork."""
    merge(small_bundle.folder, [write_share(tmp_path, small_bundle, "a", classes=(0, 1))], tmp_path / "fleet")
    return tmp_path / "fleet"


def test_a_fleet_answers_with_the_head_of_open_run(small_bundle: Bundle, fleet: Path, tmp_path: Path) -> None:
    pixels = np.asarray(picture(0, 0).convert("RGB"))
    with Learner.open(fleet) as learner:
        answer = learner.predict(pixels)
        assert {guess.class_name for guess in answer.guesses} == {"cup", "fork"}
        assert [(each.name, each.learnt, each.taught) for each in learner.classes] == [("cup", 12, 0), ("fork", 12, 0)]
        trained = open_run(fleet)
        features = learner._run.features_of(pixels, "x")
        assert trained.head.logits(features[None]).tobytes() == learner._run.head.logits(features[None]).tobytes()
        assert not learner.refresh()
        merge(small_bundle.folder, [write_share(tmp_path, small_bundle, "b", classes=(2,))], fleet)
        assert learner.refresh()
        assert [each.name for each in learner.classes] == ["cup", "fork", "jar"]


def test_a_fleet_is_not_taught(fleet: Path) -> None:
    with Learner.open(fleet) as learner:
        for change in (
            lambda: learner.teach(np.zeros((8, 8, 3), np.uint8), "cup"),
            lambda: learner.forget("cup"),
            lambda: learner.rename("cup", "mug"),
            learner.undo,
            learner.close_lesson,
        ):
            with pytest.raises(InputError, match="is put together from shares"):
                change()
    assert not (fleet / "lesson").exists()
