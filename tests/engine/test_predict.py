"""A finished run is asked about streams that it was not learnt from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from runs import go
from small import write_small_stream

from edge_zofc.engine.predict import evaluate, open_backbone, open_run
from edge_zofc.storage.bundle import Bundle


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
