"""SIGTERM at any instant: the run stops soon, with its state saved, and goes on to the bits of one never stopped."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from kill_points import CALLS
from onnx import TensorProto, helper
from runs import end_state, go
from small import write_small_bundle, write_small_stream

from edge_zofc.engine import pixel_store
from edge_zofc.engine.feature_store import FeatureStore
from edge_zofc.errors import Stopped
from edge_zofc.inference.backbone import Backbone
from edge_zofc.signals import stop_signals
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.run_folder import EventLog
from edge_zofc.storage.settings import Placement
from edge_zofc.storage.writing import DISK

SHORT = {"epochs": 2, "batch_size": 4, "queries": 1}


@pytest.fixture(autouse=True)
def deaf() -> Iterator[None]:
    """Outside of the loop a SIGTERM does nothing here, instead of ending pytest."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of two classes, 4 + 2 pictures each."""
    return write_small_stream(tmp_path_factory.mktemp("stop") / "stream", tasks=2, train=4, test=2, alike=True)


class StopPoints:
    """Raises SIGTERM at the ``at``-th touch of the disk, an event, a picture or the graph; 0 only counts."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int = 0) -> None:
        self.at, self.count = at, 0
        for name in CALLS:
            patch.setattr(DISK, name, self._before(getattr(DISK, name)), raising=False)
        patch.setattr(EventLog, "write", self._before(EventLog.write))
        patch.setattr(Backbone, "features", self._before(Backbone.features))
        patch.setattr(pixel_store, "decode_test", self._before(pixel_store.decode_test))

    def _before(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                signal.raise_signal(signal.SIGTERM)
            return real(*given, **named)

        return call


def learn(bundle: Bundle, stream: Path, run: Path, head: str, at: int = 0) -> tuple[dict[str, Any], int]:
    """The result, and how many touches there were."""
    with pytest.MonkeyPatch.context() as patch:
        points = StopPoints(patch, at)
        return go(bundle, stream, run, changes={**SHORT, "head": head}), points.count


def check_every(bundle: Bundle, stream: Path, tmp_path: Path, head: str, step: int) -> int:
    """Stop at each ``step``-th touch, go on, compare; how many runs were stopped."""
    _, touches = learn(bundle, stream, tmp_path / "whole", head)
    expected, stopped = end_state(tmp_path / "whole"), 0
    for at in range(1, touches + 1, step):
        run = tmp_path / f"{head}-{at}"
        part, _ = learn(bundle, stream, run, head, at)
        stopped += part.get("stopped") == "SIGTERM"
        learn(bundle, stream, run, head)
        assert end_state(run) == expected, f"stopped at touch {at}"
    return stopped


def test_a_run_stopped_at_an_instant_goes_on_to_the_same_bits(
    small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    assert check_every(small_bundle, stream, tmp_path, "lda", 23) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("head", ["lda", "cosine"])
def test_a_run_stopped_at_any_instant_goes_on_to_the_same_bits(
    small_bundle: Bundle, stream: Path, tmp_path: Path, head: str
) -> None:
    assert check_every(small_bundle, stream, tmp_path, head, 1) > 150


def test_counters_of_an_evaluation_that_was_stopped_count_nothing_twice(
    small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        real, seen = FeatureStore.ensure, []

        def ask(*given: Any) -> None:
            real(*given)
            seen.append(1)
            if len(seen) == 5:  # the second task's end: its statistics are new, its evaluation comes
                signal.raise_signal(signal.SIGTERM)

        patch.setattr(FeatureStore, "ensure", ask)
        part = go(small_bundle, stream, tmp_path / "run", changes=SHORT)
    assert part["stopped"] == "SIGTERM"
    assert len(part["tasks"]) == 1
    again = go(small_bundle, stream, tmp_path / "run", changes=SHORT)
    whole = go(small_bundle, stream, tmp_path / "whole", changes=SHORT)
    for name in ("forward_passes", "evaluation_forward_passes", "floor_forward_passes"):
        assert again[name] == whole[name]


# --- soon ----------------------------------------------------------------------------------------------------


def slow_graph(path: Path, feature_size: int) -> None:
    """The bundle's inputs and output around a loop that takes the better part of a minute."""
    info, side = helper.make_tensor_value_info, [256, 256]
    body = helper.make_graph(
        [helper.make_node("MatMul", ["m", "m"], ["next"]), helper.make_node("Identity", ["go_on"], ["again"])],
        "body",
        [info("i", TensorProto.INT64, []), info("go_on", TensorProto.BOOL, []), info("m", TensorProto.FLOAT, side)],
        [info("again", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, side)],
    )  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("Loop", ["count", "", "start"], ["end"], body=body),
            helper.make_node("ReduceSum", ["end"], ["sum"], keepdims=0),
            helper.make_node("ReduceSum", ["adapters"], ["one"], keepdims=0),
            helper.make_node("ReduceSum", ["images"], ["other"], keepdims=0),
            helper.make_node("Sum", ["sum", "one", "other", "zeros"], ["features"]),
        ],
        "slow",
        [info("images", TensorProto.FLOAT, ["B", 3, "S", "S"]), info("adapters", TensorProto.FLOAT, ["K", "P"])],
        [info("features", TensorProto.FLOAT, None)],
        [
            helper.make_tensor("count", TensorProto.INT64, [], [50_000]),
            onnx.numpy_helper.from_array(np.zeros(side, np.float32), "start"),
            onnx.numpy_helper.from_array(np.zeros((1, 1, feature_size), np.float32), "zeros"),
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def test_a_signal_ends_a_long_run_of_the_graph(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    slow_graph(bundle.graph_path, bundle.manifest.feature_size)
    backbone = Backbone(bundle, Placement.simple(micro_batch=1))
    with stop_signals() as signals:
        signals.interrupt = backbone.interrupt
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        began = time.monotonic()
        with pytest.raises(Stopped):
            backbone.features(1, bundle.initial_adapter()[None])
        assert time.monotonic() - began < 5
    with pytest.raises(Stopped):  # a later run does not even begin
        backbone.features(1, bundle.initial_adapter()[None])


def test_a_bell_leaves_no_thread_no_handle_and_the_wakeup_as_it_was() -> None:
    def left() -> tuple[int, list[str]]:
        return threading.active_count(), sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone

    before = left()
    for _ in range(3):
        with stop_signals():
            signal.raise_signal(signal.SIGTERM)
    assert left() == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("readable", [True, False])
def test_a_signal_is_heard_between_two_pictures_of_a_micro_batch(
    small_bundle: Bundle, tmp_path: Path, readable: bool
) -> None:
    """Sixteen pictures of a camera take seconds to decode, and unreadable ones never reach the graph."""
    stream, read = write_small_stream(tmp_path / "stream", tasks=1, train=8), []
    if not readable:
        for path in (stream / "000_task/train").rglob("*.png"):
            path.write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        real = pixel_store.decode_test

        def load(*given: Any, **named: Any) -> Any:
            read.append(1)
            if len(read) == 3:
                signal.raise_signal(signal.SIGTERM)
            return real(*given, **named)

        patch.setattr(pixel_store, "decode_test", load)
        result = go(small_bundle, stream, tmp_path / "run", changes=SHORT, micro_batch=16)
    assert result["stopped"] == "SIGTERM"
    assert len(read) == 3
