"""What is measured when, and from which passes: the kept features decide, not the number of tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import BY_HEAD, go, without_times
from small import write_small_stream

from edge_zofc.engine.feature_store import FeatureStore, PictureSet
from edge_zofc.engine.pictures import PictureReader
from edge_zofc.inference.backbone import Backbone
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.settings import Placement


@pytest.fixture
def runs_of_the_graph(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    real, seen = Backbone.features, list[int]()

    def count(self: Backbone, pictures: int, adapters: np.ndarray) -> np.ndarray:
        seen.append(pictures)
        return real(self, pictures, adapters)

    monkeypatch.setattr(Backbone, "features", count)
    return seen


def test_a_theta_that_rests_is_looked_at_once(
    small_bundle: Bundle, tmp_path: Path, runs_of_the_graph: list[int]
) -> None:
    """FAULTS D1: one-class tasks never move theta, so each picture goes through the graph once in the whole run."""
    stream = write_small_stream(tmp_path / "stream", tasks=5, classes=1, train=6, test=3)
    result = go(small_bundle, stream, tmp_path / "run", changes={"batch_size": 8})
    assert sum(runs_of_the_graph) == 5 * (6 + 3)
    assert (result["forward_passes"], result["evaluation_forward_passes"]) == (30, 15)
    assert [len(row) for row in result["accuracy_matrix"]] == [1, 2, 3, 4, 5]


def test_an_evaluation_pads_its_last_micro_batch_alone(
    small_bundle: Bundle, tmp_path: Path, runs_of_the_graph: list[int]
) -> None:
    """FAULTS D4: two test pictures a task in micro-batches of four, all tasks in one pass."""
    stream = write_small_stream(tmp_path / "stream", tasks=6, train=4, test=1, alike=True)
    go(small_bundle, stream, tmp_path / "run", changes={**BY_HEAD, "batch_size": 8, "queries": 1}, parallel_queries=1)
    # The last evaluation: five old tasks under the moved theta, then the new one under it and the frozen adapter.
    assert runs_of_the_graph[-5:] == [4, 4, 2, 2, 2]


@pytest.mark.parametrize(
    ("evaluate", "measured"), [("new", [[1], [0, 1], [0, 0, 1]]), ("last", [[0], [0, 0], [1, 1, 1]])]
)
def test_less_is_measured_where_it_is_asked_for(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, evaluate: str, measured: list[list[int]]
) -> None:
    whole = go(small_bundle, small_stream, tmp_path / "whole")
    part = go(small_bundle, small_stream, tmp_path / "part", evaluate=evaluate)
    assert [[int(value is not None) for value in row] for row in part["accuracy_matrix"]] == measured
    expected = [
        [value if known else None for value, known in zip(row, keep, strict=True)]
        for row, keep in zip(whole["accuracy_matrix"], measured, strict=True)
    ]
    assert part["accuracy_matrix"] == expected
    assert part["evaluation_forward_passes"] < whole["evaluation_forward_passes"]
    if evaluate == "last":
        assert part["last_accuracy"] == whole["last_accuracy"]


def test_the_cache_may_be_deleted_at_any_time(small_bundle: Bundle, small_stream: Path, tmp_path: Path) -> None:
    def clear(*_: Any) -> None:
        for path in (tmp_path / "run/features").iterdir():
            path.unlink()

    whole = go(small_bundle, small_stream, tmp_path / "whole")
    assert without_times(go(small_bundle, small_stream, tmp_path / "run", clear)) == without_times(whole)


def test_kept_features_say_whose_they_are(small_bundle: Bundle, small_stream: Path, tmp_path: Path) -> None:
    """Another theta, other pictures and an unreadable picture are kept apart."""
    paths = tuple(sorted(small_stream.rglob("*.png"))[:5])
    (tmp_path / "bad.png").write_bytes(b"")
    pictures = PictureSet("some", (*paths[:2], tmp_path / "bad.png", *paths[2:]))
    reader = PictureReader(small_bundle.manifest.image, True, lambda index, path, error: None)
    backbone = Backbone(small_bundle, Placement.simple(4, 2))
    moved = np.random.default_rng(0).normal(size=small_bundle.manifest.adapter.size).astype(np.float32)
    thetas = [small_bundle.initial_adapter(), small_bundle.initial_adapter() + moved]
    store = FeatureStore(tmp_path / "features", backbone.feature_size)
    store.ensure(backbone, [pictures], thetas[:1], reader)
    store.ensure(backbone, [pictures], thetas, reader)
    again = FeatureStore(tmp_path / "features", backbone.feature_size)
    found = [np.concatenate([rows for _, rows in again.rows(pictures, theta)]) for theta in thetas]
    assert [len(again.kept(pictures, theta)) for theta in thetas] == [6, 6]
    assert again.kept(pictures, thetas[0]).positions == [0, 1, 3, 4, 5]
    assert again.kept(pictures, thetas[1]).unreadable == [2]
    assert np.abs(found[0] - found[1]).max() > 1e-4
    (tmp_path / "features" / again.name(pictures, thetas[0])).write_bytes(b"torn")
    fresh = FeatureStore(tmp_path / "features", backbone.feature_size)
    assert len(fresh.kept(pictures, thetas[0])) == 0
    fresh.ensure(backbone, [pictures], thetas, reader)
    assert np.array_equal(np.concatenate([rows for _, rows in fresh.rows(pictures, thetas[0])]), found[0])
