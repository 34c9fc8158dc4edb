"""state.py: the arrays of a moved adapter come back from a snapshot, or it is refused in one sentence."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from victim import D, tiny_bundle
from victims_run import moved_state

from edge_zofc.algorithm.options import make_options
from edge_zofc.engine.state import RunState
from edge_zofc.errors import DamagedFileError
from edge_zofc.storage import checkpoint
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.checkpoint import Snapshot

OF_MOVED = ("frozen_moment", "prototype_sums")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("state") / "bundle")


def restored(tiny: Bundle, snapshot: Snapshot) -> RunState:
    return RunState.of(tiny, make_options("edge", {}), snapshot)


@pytest.fixture
def saved(tiny: Bundle, tmp_path: Path) -> Snapshot:
    """A moved state's, as it is read from its file: all matrices are whole."""
    checkpoint.write(tmp_path / "one.safetensors", moved_state(tiny).to_snapshot())
    return checkpoint.load(tmp_path / "one.safetensors")


def bits(snapshot: Snapshot) -> dict[str, bytes]:
    packed = {name: each.values for name, each in snapshot.packed.items()}
    return {name: array.tobytes() for name, array in {**snapshot.arrays, **packed}.items()}


def test_what_is_saved_is_restored_bit_by_bit(tiny: Bundle, saved: Snapshot) -> None:
    before, again = moved_state(tiny).to_snapshot(), restored(tiny, saved).to_snapshot()
    assert set(OF_MOVED) < set(saved.arrays)
    assert bits(again) == bits(before)
    assert again.metadata == saved.metadata


def test_a_snapshot_holds_no_copy_of_a_moment_and_is_restored_bit_by_bit(tiny: Bundle) -> None:
    """One is made before every step."""
    state = moved_state(tiny)
    before = state.to_snapshot()
    assert state.statistics is not None
    assert before.packed["feature_moment"].values is state.statistics.moment
    assert before.packed["frozen_moment"].values is state.frozen_moment
    fresh = RunState.of(tiny, make_options("edge", {}))
    fresh.restore(before)
    assert bits(fresh.to_snapshot()) == bits(before)
    assert fresh.frozen_moment is not state.frozen_moment


@pytest.mark.parametrize("name", OF_MOVED)
def test_a_state_that_no_longer_has_it_forgets_it(tiny: Bundle, saved: Snapshot, name: str) -> None:
    state = moved_state(tiny)
    del saved.arrays[name]
    state.restore(saved)
    assert getattr(state, name) is None


@pytest.mark.parametrize("name", OF_MOVED)
@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((D + 1, D)), "not float64"),
        (np.zeros((2, D)), "not float64"),
        (np.zeros((0, 0)), "not float64"),
        (np.zeros(D), "not float64"),
        (np.zeros((D, D), np.float32), "is float32"),
        (np.zeros((D, D), np.int64), "is int64"),
        (np.full((D, D), np.nan), "not finite"),
        (np.full((D, D), -np.inf), "not finite"),
    ],
)
def test_an_array_of_another_kind_is_refused(
    tiny: Bundle, saved: Snapshot, name: str, array: np.ndarray, words: str
) -> None:
    if name == "prototype_sums" and array.shape == (D, D):
        array = array[:3]  # three classes
    saved.arrays[name] = array
    with pytest.raises(DamagedFileError, match=rf"^a snapshot's array {name} .*{words}.*\.$"):
        restored(tiny, saved)


def test_prototypes_of_no_task_are_refused(tiny: Bundle) -> None:
    """They would be taken for those of the next task, which may have more classes."""
    snapshot = copy.deepcopy(moved_state(tiny).to_snapshot())
    snapshot.metadata["phase"] = "trained"
    with pytest.raises(DamagedFileError, match="no task is being trained"):
        restored(tiny, snapshot)
