"""A finished run is asked about streams that it was not learnt from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from runs import go
from small import write_small_stream

from edge_zofc.engine.predict import Named, evaluate, open_backbone, open_run, predict
from edge_zofc.storage.bundle import Bundle


def test_the_limit_of_likeness_is_measured_where_it_is_asked_for(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=2)
    go(small_bundle, stream, tmp_path / "run")
    pictures = sorted(stream.glob("*/test/*/*.png"))[:2]
    trained = open_run(tmp_path / "run", needs_limit=True)
    found = predict(trained, open_backbone(trained, 1), pictures, 1)
    assert [one.limit for one in found if isinstance(one, Named)] == [trained.limit] * 2
    monkeypatch.setattr("edge_zofc.engine.taught_run.learnt_groups", None)  # what reads the features
    trained = open_run(tmp_path / "run")
    assert trained.limit is None
    with pytest.raises(ValueError, match="needs_limit"):
        predict(trained, open_backbone(trained, 1), pictures, 1)


def test_a_stream_of_test_pictures_alone_is_evaluated(small_bundle: Bundle, tmp_path: Path) -> None:
    """FAULTS A7: tasks or a bare tree without any train folder, and broken links among the pictures are counted."""
    stream = write_small_stream(tmp_path / "stream", tasks=2)
    go(small_bundle, stream, tmp_path / "run")
    trained = open_run(tmp_path / "run")
    whole = evaluate(trained, open_backbone(trained, 1), stream, print)
    for folder in stream.glob("*/train"):
        shutil.rmtree(folder)
    holdout = evaluate(trained, open_backbone(trained, 1), stream, print)
    assert holdout.accuracy is not None
    assert holdout == whole
    (stream / "000_task" / "test" / "class00" / "gone.png").symlink_to("nowhere.png")
    told: list[str] = []
    bare = evaluate(trained, open_backbone(trained, 1), stream / "000_task", told.append)
    assert (bare.skipped_images, len(bare.tasks)) == (1, 1)
    assert bare.tasks[0].accuracy == pytest.approx(whole.tasks[0].accuracy)
    assert "broken link" in told[0]
