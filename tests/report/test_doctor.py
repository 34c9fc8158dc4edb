"""The doctor says what is there, what is not and the command that gets it; and never raises for what it finds."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from small import write_small_bundle

from edge_zofc.device.system import Board
from edge_zofc.inference.backbone import Backbone
from edge_zofc.report import doctor
from edge_zofc.report.doctor import Finding, inspect
from edge_zofc.storage.bundle import Bundle, Probe
from edge_zofc.storage.manifest import PROBE, Precision
from edge_zofc.storage.settings import Placement

MIB = 1 << 20
PC = Board("", "x86_64", 8, 16_000 * MIB, 8_000 * MIB, None)
NANO = Board("NVIDIA Jetson Orin Nano Developer Kit", "aarch64", 6, 7475 * MIB, 6758 * MIB, 512 * MIB)


def cpu_works() -> list[tuple[str, bool, str]]:
    return [("CPUExecutionProvider", True, "ran a node")]


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def test_a_healthy_machine_has_nothing_to_put_right() -> None:
    found = inspect(here=PC)
    assert [finding for finding in found if finding.ok is False] == []
    names = by_name(found)
    assert names["CPUExecutionProvider"].ok
    assert names["numpy"].detail == np.__version__
    assert names["memory"].detail == "7.8 GiB available of 15.6 GiB"


def test_a_cgroups_limit_counts_as_the_memory_there_is() -> None:
    small = Board("", "x86_64", 1, 16_000 * MIB, 8_000 * MIB, 64 * MIB)
    names = by_name(inspect(here=small, providers=cpu_works))
    assert names["cgroup limit"].detail == "64 MiB"
    assert names["memory"].ok is False
    assert names["memory"].remedy


def test_a_cpu_quota_is_told_beside_the_cpus() -> None:
    """FAULTS B9."""
    board = by_name(inspect(here=replace(PC, cgroup_cpus=0.5), providers=cpu_works))["board"]
    assert board.detail == "x86_64, no device tree, 8 CPUs for this process, of which its cgroup may use 0.5"
    assert "cgroup" not in by_name(inspect(here=PC, providers=cpu_works))["board"].detail


def test_missing_packages_come_with_the_command_that_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name in ("torch", "timm", "onnx", "matplotlib", "psutil"):
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(doctor.metadata, "version", version)
    names = by_name(inspect(here=PC, providers=cpu_works))
    assert (names["torch"].ok, names["torch"].remedy) == (None, "pip install 'edge-zofc[torch]'")
    assert names["matplotlib"].remedy == "pip install 'edge-zofc[report]'"
    assert (names["psutil"].ok, names["psutil"].remedy) == (False, "pip install psutil")
    assert names["onnx"].remedy == "pip install 'edge-zofc[export]'"
    assert "numpy" in names["torch"].detail


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let these packages, and no other, be installed, each as version 1.2."""

    def only(*names: str) -> None:
        def version(name: str) -> str:
            if name not in names:
                raise metadata.PackageNotFoundError(name)
            return "1.2"

        monkeypatch.setattr(doctor.metadata, "version", version)

    return only


@pytest.mark.parametrize(
    ("flavour", "detail"),
    [("onnxruntime", "1.2"), ("onnxruntime-gpu", "onnxruntime-gpu 1.2"), ("onnxruntime-openvino", None)],
)
def test_any_one_flavour_of_onnxruntime_will_do(
    installed: Callable[..., None], flavour: str, detail: str | None
) -> None:
    installed(flavour)
    found = by_name(inspect(here=PC, providers=cpu_works))["onnxruntime"]
    assert (found.ok, found.detail, found.remedy) == (True, detail or f"{flavour} 1.2", "")


@pytest.mark.parametrize("second", ["onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"])
def test_two_flavours_of_onnxruntime_are_a_fault_with_its_remedy(installed: Callable[..., None], second: str) -> None:
    installed("onnxruntime", second)
    found = by_name(inspect(here=PC, providers=cpu_works))["onnxruntime"]
    assert found.ok is False
    assert found.detail == f"onnxruntime 1.2 and {second} 1.2 overwrite each other's files"
    assert found.remedy == f"pip uninstall -y onnxruntime {second} && pip install {second}"


def test_a_jetson_is_not_sent_to_pypi_for_its_onnxruntime(installed: Callable[..., None]) -> None:
    for names in ((), ("onnxruntime", "onnxruntime-gpu")):
        installed(*names)
        found = by_name(inspect(here=NANO, providers=cpu_works))["onnxruntime"]
        assert found.ok is False
        assert "JetPack" in found.remedy and "pip install" not in found.remedy


def test_a_broken_provider_is_mended_by_the_flavour_that_is_there(installed: Callable[..., None]) -> None:
    installed("onnxruntime-gpu")
    found = by_name(inspect(here=PC, providers=list))["CPUExecutionProvider"]
    assert found.remedy == "pip install --force-reinstall onnxruntime-gpu"


def test_without_onnxruntime_the_doctor_still_answers(
    monkeypatch: pytest.MonkeyPatch, installed: Callable[..., None], small_bundle: Bundle
) -> None:
    installed()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for room in ("backbone", "graph", "providers"):
        monkeypatch.delitem(sys.modules, f"edge_zofc.inference.{room}", raising=False)
    names = by_name(inspect(small_bundle, here=PC))
    assert (names["onnxruntime"].ok, names["onnxruntime"].remedy) == (False, "pip install onnxruntime")
    assert names["CPUExecutionProvider"].ok is False
    assert names["bundle probe"].ok is False and "onnxruntime" in names["bundle probe"].detail


def test_the_table_fits_80_columns_and_breaks_no_word() -> None:
    found = [
        *inspect(here=NANO, providers=cpu_works),
        Finding("bundle probe", False, "two\nlines and \x1b[31m " + "words " * 30, "do-this --with='that' " * 6),
        Finding("x", None, ""),
    ]
    text = doctor.table(found, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.replace("\n", "").isprintable()
    words = text.split()
    for finding in found:
        for word in finding.remedy.split() + finding.name.split():
            assert word in words
    assert "-> do-this --with='that'" in text and "BAD  bundle probe" in text
    assert doctor.table([]) == ""


def test_nothing_heavy_is_imported_to_see_that_it_is_there() -> None:
    import subprocess

    code = "import sys; sys.path[:] = " + repr(sys.path) + "\n"
    code += "from edge_zofc.report.doctor import inspect; inspect()\n"
    code += "print([m for m in ('torch', 'timm', 'onnx', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_provider_that_cannot_run_a_node_is_told_and_is_no_fault_while_the_cpu_works() -> None:
    def probe() -> list[tuple[str, bool, str]]:
        return [("CUDAExecutionProvider", False, "no driver"), *cpu_works()]

    found = by_name(inspect(here=PC, providers=probe))["CUDAExecutionProvider"]
    assert (found.ok, found.detail) == (None, "no driver")


@pytest.mark.parametrize(
    ("cuda_works", "instead"), [(True, "CUDA is used instead"), (False, "the CPU is used instead")]
)
def test_without_tensorrt_cuda_is_used_where_it_works(cuda_works: bool, instead: str) -> None:
    def probe() -> list[tuple[str, bool, str]]:
        return [("TensorrtExecutionProvider", False, "x"), ("CUDAExecutionProvider", cuda_works, "y"), *cpu_works()]

    assert by_name(inspect(here=PC, providers=probe))["TensorrtExecutionProvider"].remedy == instead


@pytest.mark.parametrize("probed", [[], [("CPUExecutionProvider", False, "broken")]])
def test_without_a_working_cpu_provider_something_must_be_done(probed: list[tuple[str, bool, str]]) -> None:
    found = by_name(inspect(here=PC, providers=lambda: probed))["CPUExecutionProvider"]
    assert found.ok is False
    assert "onnxruntime" in found.remedy


@pytest.mark.parametrize(
    ("text", "word"),
    [("# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic", "JetPack 6"), ("garbage \0", "not recognised")],
)
def test_a_jetson_is_told_its_jetpack_and_where_its_wheels_are(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(text)
    names = by_name(inspect(here=NANO, providers=cpu_works, root=tmp_path))
    assert word in names["JetPack"].detail
    assert "not verified on hardware" in names["JetPack"].remedy
    assert "orin-nano-8gb" in names["board"].detail


def test_a_pc_is_told_nothing_of_jetpacks() -> None:
    assert "JetPack" not in by_name(inspect(here=PC, providers=cpu_works))


# ---- with a bundle


def as_exported(bundle: Bundle, folder: Path) -> Bundle:
    """The bundle with the graph's own answers as its probe, as export writes it: two pictures, two adapters at once."""
    shutil.copytree(bundle.folder, folder)
    probe = bundle.probe()
    backbone = Backbone(bundle, Placement.simple(2, 2))
    backbone.image_buffer[:] = probe.images
    # safetensors 0.8 stores a strided array's memory as it lies, which is another array.
    features = np.ascontiguousarray(backbone.features(2, probe.adapters))
    save_file({"images": probe.images, "adapters": probe.adapters, "features": features}, folder / PROBE)
    return replace(bundle, folder=folder)


@pytest.mark.parametrize("precision", ["fp32", "w8", "w4"])
def test_this_machine_computes_the_bundles_probe(tmp_path: Path, precision: Precision) -> None:
    bundle = as_exported(write_small_bundle(tmp_path / "small", precision), tmp_path / "bundle")
    names = by_name(inspect(bundle, here=PC, providers=cpu_works))
    assert names["bundle"].ok
    assert names["bundle probe"].ok, names["bundle probe"].detail


@pytest.mark.parametrize(("factor", "ok"), [(1 + 5e-5, True), (1 + 2e-4, False), (float("nan"), False), (0.0, False)])
def test_features_that_differ_beyond_the_tolerance_are_a_fault(small_bundle: Bundle, factor: float, ok: bool) -> None:
    def features(bundle: Bundle, probe: Probe) -> np.ndarray:
        return probe.features * np.float32(factor)

    found = by_name(inspect(small_bundle, here=PC, providers=cpu_works, features=features))["bundle probe"]
    assert found.ok is ok
    assert bool(found.remedy) is not ok


def test_a_session_that_does_not_open_is_a_finding(small_bundle: Bundle) -> None:
    def features(bundle: Bundle, probe: Probe) -> np.ndarray:
        raise MemoryError

    found = by_name(inspect(small_bundle, here=PC, providers=cpu_works, features=features))["bundle probe"]
    assert (found.ok, found.detail) == (False, "out of memory")


def test_a_bundle_that_cannot_learn_is_told_so(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle", fidelity=0.5)
    found = by_name(inspect(bundle, here=PC, providers=cpu_works))["bundle fidelity"]
    assert found.ok is None
    assert "--precision w8" in found.remedy
