"""The export as a whole: what a bundle holds, that it is the same each time, and where it is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import TINY

from edge_zofc.cli.main import main
from edge_zofc.errors import InputError
from edge_zofc.export import writer
from edge_zofc.export.options import ExportOptions
from edge_zofc.export.session import compute_features, open_session
from edge_zofc.export.writer import export_bundle, relative_error
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.manifest import FILES, MANIFEST, MIN_FIDELITY, ActivationBytes, Precision


def test_all_files_of_a_bundle_may_be_read_by_whoever_may_read_one(tiny_bundle: Bundle) -> None:
    assert len({path.stat().st_mode & 0o777 for path in tiny_bundle.folder.iterdir()}) == 1


def test_an_export_writes_a_bundle_that_the_reader_accepts_and_the_probe_is_computed_again(tiny_bundle: Bundle) -> None:
    assert sorted(path.name for path in tiny_bundle.folder.iterdir()) == sorted((*FILES, MANIFEST))
    assert [path.name for path in tiny_bundle.folder.parent.iterdir()] == ["bundle"]
    manifest = read_bundle(tiny_bundle.folder).manifest
    assert (manifest.backbone.name, manifest.backbone.source) == ("vit_tiny_patch16_224", "random")
    assert (manifest.backbone.depth, manifest.adapter.blocks, manifest.image.size) == (2, (1,), 32)
    assert manifest.feature_size == 192
    assert min(manifest.fidelity.one_sided, manifest.fidelity.two_sided) > 0.99
    assert manifest.activation_bytes.predict(1, 1) > 10_000
    assert set(manifest.written_by) >= {"edge-zofc", "torch", "timm", "onnxruntime"}
    probe = tiny_bundle.probe()
    found = compute_features(open_session(tiny_bundle.graph_path), probe.images, probe.adapters)
    assert relative_error(found, probe.features) < 1e-6
    assert np.array_equal(probe.adapters[0], tiny_bundle.initial_adapter())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("precision", ["w8", "w4", "int8", "fp16"])
def test_every_precision_writes_a_bundle_with_its_fidelity(tmp_path: Path, precision: Precision) -> None:
    lines: list[str] = []
    found = export_bundle(ExportOptions(tmp_path / "b", precision=precision, **TINY), lines.append)
    assert found.manifest.precision == precision
    if precision in ("w8", "w4"):
        assert found.manifest.fidelity.one_sided > MIN_FIDELITY
    assert any(line.startswith("fidelity over 64 directions") for line in lines)


@pytest.mark.parametrize("precision", ["fp32", "w8"])
def test_the_same_export_twice_is_the_same_bundle_whatever_the_threads_and_the_memory_measured(
    tmp_path: Path, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS B3: with resized positions, too."""
    options = ExportOptions(tmp_path / "a", backbone="package-vit", precision=precision, depth=2, img_size=128)
    numbers = iter(ActivationBytes(fixed=n, per_image=2, per_image_and_adapter=3) for n in (1, 2))
    monkeypatch.setattr(writer, "measure_activation_bytes", lambda _graph: next(numbers))
    before = torch.get_num_threads()
    found = []
    try:
        for threads, name in ((1, "a"), (3, "b")):
            torch.set_num_threads(threads)
            monkeypatch.setattr(writer, "__version__", name)
            found.append(export_bundle(replace(options, out=tmp_path / name)))
    finally:
        torch.set_num_threads(before)
    assert found[0].manifest != found[1].manifest
    assert found[0].manifest.files == found[1].manifest.files
    assert found[0].identity == found[1].identity


def test_the_command_takes_mean_and_std_and_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """FAULTS C7."""
    command = [
        "export",
        str(tmp_path / "b"),
        "--backbone",
        "package-vit",
        "--depth",
        "2",
        "--mean",
        "0.4,0.5,0.6",
        "--std",
        "0.2,0.2,0.25",
        "--no-gradient",
    ]
    assert main(command) == 0
    image = read_bundle(tmp_path / "b").manifest.image
    assert (image.mean, image.std) == ((0.4, 0.5, 0.6), (0.2, 0.2, 0.25))
    assert "mean 0.4,0.5,0.6 and std 0.2,0.2,0.25" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "c"), "--mean", "0.4"])
    assert "'0.4' is not three numbers R,G,B" in capsys.readouterr().err


def test_a_graph_that_differs_from_torch_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        writer, "compute_features", lambda _s, images, adapters: np.ones((len(adapters), len(images), 192))
    )
    with pytest.raises(InputError, match=r"differs from torch by .* above the 1e-04 allowed for fp32"):
        export_bundle(ExportOptions(tmp_path / "b", **TINY))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "holiday.jpg").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name, sentence in (("file", "not a folder"), ("folder", "other things in it"), ("link", "not a folder")):
        with pytest.raises(InputError, match=sentence):
            export_bundle(ExportOptions(tmp_path / name, force=True))
    with pytest.raises(InputError, match="at least 64 directions"):
        export_bundle(ExportOptions(tmp_path / "b", directions=3))


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot be written at .*file/b"):
        export_bundle(ExportOptions(tmp_path / "file" / "b", **TINY))
