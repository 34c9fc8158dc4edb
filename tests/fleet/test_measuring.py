"""What a device measures on pictures of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shares import made_share
from small import write_small_stream

from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.engine.own_pictures import OwnPictures
from edge_zofc.errors import InputError
from edge_zofc.fleet.measuring import Measuring, held_out
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.settings import Placement
from edge_zofc.storage.share import Share, decode, encode

NAMES = ("class00", "class01")


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_a_fifth_is_held_out_and_never_a_whole_class(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    held = held_out(labels)
    of = np.bincount(labels[held], minlength=len(counts))
    assert (of < counts).all() and held.sum() <= len(labels) // 5
    if min(counts) > 1:
        assert held.sum() >= len(labels) // 5 - max(counts) // 5
    for one in np.unique(labels):
        assert np.array_equal(np.sort(held[labels == one]), held[labels == one]), "the last ones"


def test_held_out_pictures_are_in_neither_head(small_bundle: Bundle, tmp_path: Path) -> None:
    """A head that has seen a picture names it rightly too often: the statistics without them are what is solved."""
    bundle = small_bundle
    stream = write_small_stream(tmp_path / "stream", tasks=1, classes=2, train=10)
    paths = [path for name in NAMES for path in sorted((stream / "000_task/train" / name).iterdir())]
    labels = np.repeat(np.arange(2), 10)
    one = Measuring(bundle, Placement.simple(4), True, OwnPictures(NAMES, tuple(paths), labels), print)
    theta = bundle.initial_adapter()
    names, statistics = one.statistics(theta, 1)
    share = decode(encode(_share(bundle, names, statistics)))
    rest, moved = one.compare(share, share, (theta, theta))
    assert len(rest) == 4 and np.array_equal(rest, moved)
    fewer = Statistics.empty(2, bundle.manifest.feature_size)
    fewer.counts[:] = 1
    with pytest.raises(InputError, match="not in the head"):
        one.compare(_share(bundle, names, fewer), share, (theta, theta))
    one.close()


def _share(bundle: Bundle, names: tuple[str, ...], statistics: Statistics) -> Share:
    return made_share(size=bundle.manifest.feature_size, class_names=names, statistics=statistics)
