"""A head that came is tried beside the one before, on the device's own pictures."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_zofc.algorithm.heads import Head
from edge_zofc.algorithm.naming import named
from edge_zofc.engine.own_pictures import learnt_streams
from edge_zofc.engine.predict import open_run
from edge_zofc.fleet import canary
from edge_zofc.fleet.canary import Tried, among, try_on
from edge_zofc.storage.bundle import Bundle


def test_heads_are_compared_among_the_classes_that_both_know(small_bundle: Bundle, runs: list[Path]) -> None:
    old = open_run(runs[0], small_bundle.folder)
    alone = among(old.head, old.class_names, ["class01"])
    assert np.array_equal(alone.rows, old.head.rows[1:]) and np.array_equal(alone.biases, old.head.biases[1:])
    (stream,) = learnt_streams(runs[0])
    assert stream.resolve().name == "stream0"
    assert try_on(old, old, [stream], print) == Tried(8, 8, 0, 8)
    assert try_on(old, open_run(runs[1], small_bundle.folder), [stream], print) == Tried(0, 0, 0, 0)


def test_each_head_is_tried_with_its_own_adapter_and_a_picture_that_is_none_is_told_once(
    small_bundle: Bundle, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, told, seen = open_run(runs[0], small_bundle.folder), list[str](), list[np.ndarray]()
    stream = Path(shutil.copytree(learnt_streams(runs[0])[0], tmp_path / "stream"))
    gone = sorted(stream.rglob("test/class00/*.png"))[0]
    gone.write_bytes(b"no picture")

    def noted(head: Head, features: np.ndarray) -> np.ndarray:
        seen.append(features)
        return named(head, features)

    monkeypatch.setattr(canary, "named", noted)
    for adapter, is_same in ((old.adapter.copy(), True), (old.adapter + np.float32(0.5), False)):
        found = try_on(old, replace(old, adapter=adapter), [stream], told.append)
        assert (found.old, found.total, len(told)) == (7, 7, 1) and str(gone) in told.pop()
        pairs = zip(seen[0::2], seen[1::2], strict=True)
        assert [np.array_equal(one, other) for one, other in pairs] == [is_same] * (len(seen) // 2)
        seen.clear()


@pytest.mark.parametrize(
    ("tried", "margin", "worse"),
    [
        (Tried(20, 14, 6, 20), 0.1, True),
        (Tried(20, 14, 6, 20), 0.3, False),
        (Tried(20, 14, 6, 20), 0.0, True),
        (Tried(3, 2, 1, 3), 0.1, False),
        (Tried(2, 0, 2, 2), 0.1, False),
        (Tried(3, 0, 3, 3), 0.1, True),
        (Tried(12, 9, 6, 20), 0.1, False),
        (Tried(0, 0, 0, 0), 0.0, False),
    ],
)
def test_a_head_is_worse_by_more_than_the_margin_and_more_than_chance(tried: Tried, margin: float, worse: bool) -> None:
    """Six lost and three won are chance one time in four, and so are two lost of two."""
    assert tried.is_worse(margin) is worse


def test_a_head_is_tried_from_who_was_right_about_each_picture() -> None:
    old, new = np.array([[1, 1, 0, 0, 1], [1, 0, 1, 0, 0]], bool)
    assert Tried.of(old, new) == Tried(3, 2, 2, 5)
