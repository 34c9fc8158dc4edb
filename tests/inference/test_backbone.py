"""The session: the same numbers as torch, padding that does not show, K at once as K in turn."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from small import PICTURES, WIDTH, moved, small_model

from edge_zofc.algorithm.spsa import BASE, queries
from edge_zofc.errors import ArenaFullError
from edge_zofc.inference.backbone import Backbone
from edge_zofc.inference.features import Pictures, query_features
from edge_zofc.inference.graph import CPU as CPU_ALONE
from edge_zofc.inference.graph import session_options
from edge_zofc.inference.providers import choose_providers, probe_providers
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.settings import Placement

CUDA = "CUDAExecutionProvider"


def load(index: int, out: np.ndarray) -> None:
    out[:] = PICTURES[index]


def features_of(bundle: Bundle, micro_batch: int, parallel: int, fast: bool = True) -> np.ndarray:
    backbone = Backbone(bundle, Placement.simple(micro_batch, parallel, fast=fast))
    wanted = (BASE, *queries("two-sided", 2))
    return query_features(backbone, moved(bundle), 4, wanted, Pictures(len(PICTURES), load, lambda: None))


def test_features_are_torchs(small_bundle: Bundle) -> None:
    adapter = moved(small_bundle)
    adapters = np.stack([adapter.theta, adapter.theta])
    adapter.perturbed_into(adapters[1], 4, 0, 1)
    with torch.inference_mode():
        expected = small_model()(torch.from_numpy(PICTURES), torch.from_numpy(adapters)).numpy()
    found = features_of(small_bundle, 4, 1)[:2]
    assert found.shape == (2, 7, WIDTH)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_adapter_matters(small_bundle: Bundle) -> None:
    found = features_of(small_bundle, 4, 1)
    assert np.abs(found[0] - found[1]).max() > 1e-5


@pytest.mark.parametrize("parallel", [2, 3, 5])
def test_adapters_at_once_give_the_bits_of_adapters_in_place(small_bundle: Bundle, parallel: int) -> None:
    assert features_of(small_bundle, 4, parallel).tobytes() == features_of(small_bundle, 4, 1).tobytes()


def test_padding_does_not_show(small_bundle: Bundle) -> None:
    """7 pictures in micro-batches of 7 and of 4 (the second one padded) agree to rounding."""
    one, two = features_of(small_bundle, 7, 1), features_of(small_bundle, 4, 1)
    assert np.abs(one - two).max() < 1e-5 * np.abs(one).max()


def test_thrift_changes_no_bit(small_bundle: Bundle) -> None:
    thrifty = features_of(small_bundle, 4, 1, fast=False)
    assert np.abs(thrifty - features_of(small_bundle, 4, 1)).max() < 1e-5


def test_theta_is_restored_also_when_a_run_is_abandoned(small_bundle: Bundle) -> None:
    backbone = Backbone(small_bundle, Placement.simple(4, 1))
    adapter, calls = moved(small_bundle), []
    before = adapter.theta.tobytes()

    def stop_at_third() -> None:
        calls.append(None)
        if len(calls) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        query_features(backbone, adapter, 0, queries("two-sided", 4), Pictures(7, load, stop_at_third))
    assert adapter.theta.tobytes() == before


def test_the_cpu_runs_a_node_and_a_foreign_provider_is_dropped() -> None:
    assert ("CPUExecutionProvider", True, "ran a node") in probe_providers()
    chosen = choose_providers([("NoSuchExecutionProvider", {"a": "b"})])
    assert chosen == (("CPUExecutionProvider", {}),)


class FakeRuntime:
    """An onnxruntime with CUDA built in, which starts once pip's CUDA libraries are loaded, if they are there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, libraries: bool) -> None:
        self.libraries, self.loaded, self.opened = libraries, False, ort.InferenceSession
        monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
        monkeypatch.setattr(ort, "preload_dlls", self.preload)
        monkeypatch.setattr(ort, "InferenceSession", self.open)

    def preload(self) -> None:
        sys.stdout.write("Failed to load libcublas.so" if not self.libraries else "")
        self.loaded = self.libraries

    def open(self, model: bytes, settings: Any, providers: list[Any], enable_fallback: int) -> Any:
        assert not enable_fallback  # onnxruntime's own drops the limits
        session = self.opened(model, ort.SessionOptions(), providers=["CPUExecutionProvider"])
        starts = self.loaded and providers[0][0] == CUDA
        session.get_providers = lambda: [CUDA] * starts + ["CPUExecutionProvider"]
        return session


def test_cuda_is_chosen_once_the_libraries_that_pip_brought_are_loaded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeRuntime(monkeypatch, libraries=True)
    assert choose_providers([(CUDA, {"gpu_mem_limit": "1"})]) == (
        (CUDA, {"gpu_mem_limit": "1"}),
        ("CPUExecutionProvider", {}),
    )
    assert probe_providers()[0] == (CUDA, True, "ran a node")
    assert capsys.readouterr().out == "" and not caplog.records  # stdout holds a command's answer alone


def test_a_provider_that_does_not_start_is_left_out_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """onnxruntime goes on with the CPU on its own; the budget of a run on the CPU must be enforced."""
    FakeRuntime(monkeypatch, libraries=False)
    assert choose_providers([(CUDA, {})]) == (("CPUExecutionProvider", {}),)
    (told,) = caplog.messages
    assert told == (f"{CUDA} is not used: built in, but it does not start on this machine (see 'edge-zofc doctor').")
    assert probe_providers()[0] == (CUDA, False, "built in, but it does not start on this machine")
    assert capsys.readouterr().out == ""


def test_what_keeps_a_provider_from_starting_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FakeRuntime(monkeypatch, libraries=True)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no such option\nand more")

    monkeypatch.setattr(ort, "InferenceSession", fails)
    assert choose_providers([(CUDA, {"a": "b"})]) == (("CPUExecutionProvider", {}),)
    assert "no such option (see" in caplog.messages[0]


@pytest.mark.parametrize(
    ("loader", "told"),
    [
        (
            "libnvinfer.so.10: cannot open shared object file: No such file or directory",
            "built in, but the library libnvinfer.so.10 is missing",
        ),
        ("/x/libonnxruntime_providers_tensorrt.so: cannot open shared object file: No such file", "x.cc:729 Please"),
        ("something else", "x.cc:729 Please"),
    ],
)
def test_a_library_that_a_provider_lacks_is_named_and_onnxruntime_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, loader: str, told: str
) -> None:
    """onnxruntime 1.31 raises where in its source it was, and logs the library's name to stderr in red."""
    severities: list[int] = []

    def fails(*_: object, **__: object) -> None:
        assert severities[-1] == 4
        raise RuntimeError("x.cc:729 Please")

    def load(_: str) -> None:
        raise OSError(loader)

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    monkeypatch.setattr(ort, "set_default_logger_severity", severities.append)
    monkeypatch.setattr(ort, "InferenceSession", fails)
    monkeypatch.setattr(ctypes, "CDLL", load)
    assert probe_providers() == [("TensorrtExecutionProvider", False, told)]
    assert severities == [4, 2]


def test_the_arenas_limit_is_named_where_it_is_reached(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("/x/bfc_arena.cc:360 f(size_t) Available memory of 5 is smaller than requested bytes of 9")

    monkeypatch.setattr(ort, "InferenceSession", fails)
    limited = ((CUDA, {"gpu_mem_limit": str(8 << 20)}), *CPU_ALONE)
    with pytest.raises(ArenaFullError, match=f"^the arena of {CUDA} is full at its limit of 8 MiB$"):
        Backbone(small_bundle, Placement.simple(1), limited)
    with pytest.raises(MemoryError, match="smaller than requested") as caught:
        Backbone(small_bundle, Placement.simple(1))  # no limit, so nothing to raise
    assert not isinstance(caught.value, ArenaFullError)


def test_onnxruntime_prints_no_error_that_it_raises() -> None:
    """FATAL alone: an arena that was full was told twice, once in red with a line of onnxruntime's source."""
    assert session_options(Placement.simple()).log_severity_level == 4


@pytest.mark.parametrize(
    "text",
    [
        "bfc_arena.cc:376 Available memory of 0 is smaller than requested bytes of 2048",  # gpu_mem_limit is reached
        "CUDA failure 2: out of memory ; GPU=0",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
    ],
)
def test_memory_that_an_accelerator_lacks_is_memory_that_ran_out(small_bundle: Bundle, text: str) -> None:
    """Else the run would end with "export the bundle again", and no smaller micro-batch would be tried."""
    backbone = Backbone(small_bundle, Placement.simple(1))

    class Full:
        def run(self, *_: object) -> None:
            raise RuntimeError(text)

    assert backbone._graph is not None
    backbone._graph._session = Full()
    with pytest.raises(MemoryError, match=text[-9:]):
        backbone.features(1, small_bundle.initial_adapter()[None])


def test_nothing_is_written_into_the_home_folder(small_bundle: Bundle, tmp_path: Path) -> None:
    """onnxruntime's own telemetry writes there when it is imported, unless it is told not to."""
    code = (
        "import sys; from pathlib import Path; from edge_zofc.storage.bundle import read_bundle\n"
        "from edge_zofc.inference.backbone import Backbone\nfrom edge_zofc.storage.settings import Placement\n"
        "Backbone(read_bundle(Path(sys.argv[1])), Placement.simple(1))"
    )
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", code, str(small_bundle.folder)], env={**environment, **home}, check=True)
    assert list(tmp_path.iterdir()) == []


def test_numpy_starts_no_thread_of_its_own() -> None:
    """FAULTS D5: a second thread of its products waits in a loop, on a core that onnxruntime needs."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    code = (
        "import os, edge_zofc, numpy as np; np.linalg.solve(np.eye(300), np.ones((300, 300)));"
        "print(len(os.listdir('/proc/self/task')))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
