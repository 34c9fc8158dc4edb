"""The session that goes both ways: the features of the one that goes forward alone, and autograd's gradient."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import PICTURES, WIDTH, moved, small_model

from edge_zofc.errors import Stopped
from edge_zofc.export.gradient_graph import vjp
from edge_zofc.inference.backbone import Backbone
from edge_zofc.inference.graph import Graph
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.settings import Placement


def test_the_session_that_goes_both_ways_gives_the_same_features(exact_bundle: Bundle) -> None:
    """Of any number of adapters, though the way back takes one."""
    backbone = Backbone(exact_bundle, Placement.simple(4, 2))
    adapters = np.stack([moved(exact_bundle).theta, exact_bundle.initial_adapter()])
    backbone.image_buffer[:] = PICTURES[:4]
    found = [backbone.features(3, adapters)]
    for goes_back in (True, False):
        backbone.go_back(goes_back)
        found.append(backbone.features(3, adapters))
    assert found[0].shape == (2, 3, WIDTH)
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()


def test_the_gradient_is_autograds_and_leaves_the_features_as_they_are(exact_bundle: Bundle) -> None:
    backbone, theta = Backbone(exact_bundle, Placement.simple(2, 1)), moved(exact_bundle).theta
    towards = np.random.default_rng(9).normal(size=WIDTH).astype(np.float32)
    backbone.go_back(True)
    backbone.image_buffer[:] = PICTURES[:2]
    before = backbone.features(2, theta[None])
    backbone.gradient_image[0] = PICTURES[5]
    found = backbone.gradient(theta, towards)
    parts = PICTURES[5:6], theta[None], towards[None]
    wanted = vjp(small_model(), *map(torch.from_numpy, parts)).numpy()
    assert np.linalg.norm(found - wanted) < 1e-5 * np.linalg.norm(wanted)
    assert backbone.features(2, theta[None]).tobytes() == before.tobytes()


def test_a_session_that_goes_forward_alone_gives_no_gradient(exact_bundle: Bundle) -> None:
    backbone = Backbone(exact_bundle, Placement.simple(1))
    backbone.go_back(True)
    backbone.go_back(False)
    with pytest.raises(ValueError, match="does not go back"):
        backbone.gradient(exact_bundle.initial_adapter(), np.zeros(WIDTH, np.float32))


def test_one_session_is_open_at_a_time_and_a_closed_one_opens_again(
    exact_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[Path, weakref.ref[Graph]]] = []

    class Seen(Graph):
        def __init__(self, path: Path, *others: Any) -> None:
            assert not [at for at, graph in opened if graph() is not None]
            super().__init__(path, *others)
            opened.append((path, weakref.ref(self)))

    monkeypatch.setattr("edge_zofc.inference.backbone.Graph", Seen)
    backbone, theta = Backbone(exact_bundle, Placement.simple(1)), exact_bundle.initial_adapter()
    for goes_back in (True, True, False):
        backbone.go_back(goes_back)
        backbone.features(1, theta[None])
    backbone.close()
    backbone.features(1, theta[None])
    forward, both = exact_bundle.graph_path, exact_bundle.gradient_path
    assert [path for path, _ in opened] == [forward, both, forward, forward]


def test_what_was_interrupted_stays_so_with_another_session(exact_bundle: Bundle) -> None:
    backbone, theta = Backbone(exact_bundle, Placement.simple(1)), exact_bundle.initial_adapter()
    backbone.interrupt()
    backbone.go_back(True)
    with pytest.raises(Stopped):
        backbone.features(1, theta[None])
    with pytest.raises(Stopped):
        backbone.gradient(theta, np.zeros(WIDTH, np.float32))
