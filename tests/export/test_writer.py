"""The export as a whole: a complete bundle or nothing, and a deployed file that says what the run says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

from edge_zofc.algorithm.heads import Head
from edge_zofc.errors import DoesNotFitError, InputError
from edge_zofc.export import deploy as deploy_module
from edge_zofc.export import measure, writer
from edge_zofc.export.deploy import deploy
from edge_zofc.export.fidelity import open_session, run
from edge_zofc.export.probe_pictures import draw_picture, probe_pictures
from edge_zofc.export.writer import ExportOptions, export_bundle, parse_blocks, relative_error
from edge_zofc.storage.bundle import (
    FILES,
    MANIFEST,
    MIN_FIDELITY,
    ActivationBytes,
    Bundle,
    ImageSpec,
    Precision,
    read_bundle,
)

TINY = {
    "backbone": "vit_tiny_patch16_224",
    "random_weights": True,
    "img_size": 32,
    "depth": 2,
    "adapter_blocks": "1",
}
SPEC = ImageSpec(
    size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic", crop_fraction=1.0
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_bundle(ExportOptions(tmp_path_factory.mktemp("export") / "bundle", **TINY))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No measuring processes: one test of them is enough."""
    numbers = ActivationBytes(fixed=1, per_image=2, per_image_and_adapter=3)
    monkeypatch.setattr(writer, "measure_activation_bytes", lambda _graph: numbers)


def test_all_files_of_a_bundle_may_be_read_by_whoever_may_read_one(bundle: Bundle) -> None:
    assert len({path.stat().st_mode & 0o777 for path in bundle.folder.iterdir()}) == 1


def test_an_export_writes_a_bundle_that_the_reader_accepts_and_the_probe_is_computed_again(
    bundle: Bundle,
) -> None:
    assert sorted(path.name for path in bundle.folder.iterdir()) == sorted((*FILES, MANIFEST))
    assert [path.name for path in bundle.folder.parent.iterdir()] == ["bundle"]
    manifest = read_bundle(bundle.folder).manifest
    assert (manifest.backbone.name, manifest.backbone.source) == ("vit_tiny_patch16_224", "random")
    assert (manifest.backbone.depth, manifest.adapter.blocks, manifest.image.size) == (2, (1,), 32)
    assert manifest.feature_size == 192
    assert min(manifest.fidelity.one_sided, manifest.fidelity.two_sided) > 0.99
    assert manifest.activation_bytes.predict(1, 1) > 10_000
    assert set(manifest.written_by) >= {"edge-zofc", "torch", "timm", "onnxruntime"}
    probe = bundle.probe()
    found = run(open_session(bundle.graph_path), probe.images, probe.adapters)
    assert relative_error(found, probe.features) < 1e-6
    assert np.array_equal(probe.adapters[0], bundle.initial_adapter())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("precision", ["w8", "w4", "int8", "fp16"])
def test_every_precision_writes_a_bundle_with_its_fidelity(tmp_path: Path, precision: Precision) -> None:
    lines: list[str] = []
    found = export_bundle(ExportOptions(tmp_path / "b", precision=precision, **TINY), lines.append)
    assert found.manifest.precision == precision
    if precision in ("w8", "w4"):
        assert found.manifest.fidelity.one_sided > MIN_FIDELITY
    assert any(line.startswith("fidelity over 64 directions") for line in lines)


@pytest.mark.parametrize(
    "part", ["write_graph", "measure_fidelity", "measure_activation_bytes", "write_manifest"]
)
def test_a_failing_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, part, fail)
    with pytest.raises(DoesNotFitError, match="No space left on device"):
        export_bundle(ExportOptions(tmp_path / "b", **TINY))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_an_interrupted_replacement_keeps_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ExportOptions(tmp_path / "b", **TINY)
    old = export_bundle(options)
    with pytest.raises(InputError, match=r"holds a bundle already.*--force"):
        export_bundle(options)

    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(writer, "write_manifest", interrupt)
        export_bundle(replace(options, force=True, seed=1))
    assert read_bundle(tmp_path / "b").identity == old.identity
    assert export_bundle(replace(options, force=True, seed=1)).identity != old.identity
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_graph_that_differs_from_torch_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        writer, "run", lambda _s, images, adapters: np.ones((len(adapters), len(images), 192))
    )
    with pytest.raises(InputError, match=r"differs from torch by .* above the 1e-04 allowed for fp32"):
        export_bundle(ExportOptions(tmp_path / "b", **TINY))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "holiday.jpg").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name, sentence in (
        ("file", "not a folder"),
        ("folder", "other things in it"),
        ("link", "not a folder"),
    ):
        with pytest.raises(InputError, match=sentence):
            export_bundle(ExportOptions(tmp_path / name, force=True))
    with pytest.raises(InputError, match="at least 64 directions"):
        export_bundle(ExportOptions(tmp_path / "b", directions=3))


@pytest.mark.parametrize(
    ("text", "depth", "blocks"),
    [("0-4", 12, (0, 1, 2, 3, 4)), ("7-11", 12, (7, 8, 9, 10, 11)), ("5,0, 3", 12, (0, 3, 5)), ("0-1,3", 4, (0, 1, 3)),
     (None, 12, (0, 1, 2, 3, 4)), (None, 2, (0, 1))],
)  # fmt: skip
def test_adapter_blocks_are_ranges_and_numbers(text: str | None, depth: int, blocks: tuple[int, ...]) -> None:
    assert parse_blocks(text, depth) == blocks


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "look like"), ("a-b", "look like"), ("1-", "look like"), ("-1", "look like"), ("0,,1", "look like"),
     ("3-12", "blocks 0 to 11"), ("4-2", "blocks 0 to 11"), ("1,1", "twice"), ("0-2,2", "twice"), ("²", "look like"),
     ("0-99999999999", "look like")],
)  # fmt: skip
def test_adapter_blocks_that_make_no_sense_get_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse_blocks(text, 12)


@pytest.mark.parametrize(
    ("rank", "scale", "sentence"), [(0, 0.1, "rank"), (9999, 0.1, "rank"), (1, 0.0, "scale")]
)
def test_an_adapter_that_cannot_be_gets_one_sentence(
    tmp_path: Path, rank: int, scale: float, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        export_bundle(ExportOptions(tmp_path / "b", rank=rank, scale=scale, **TINY))


def test_drawn_pictures_are_the_same_every_time_and_differ_from_each_other() -> None:
    first, again, other = draw_picture(0, 40), draw_picture(0, 40), draw_picture(1, 40)
    assert first.shape == (3, 40, 40)
    assert first.min() >= 0
    assert first.max() <= 1
    assert np.array_equal(first, again)
    assert np.abs(first - other).mean() > 0.05


def test_the_users_own_pictures_are_taken_from_sub_folders_and_broken_ones_passed_over(
    tmp_path: Path,
) -> None:
    for name, shade in (("a/1.png", 0), ("b/2.png", 255)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (50, 40), (shade, shade, shade)).save(tmp_path / name)
    (tmp_path / "a" / "0.jpg").write_bytes(b"")
    found = probe_pictures(SPEC, 2, tmp_path)
    assert sorted(float(picture.mean()) for picture in found) == [-1.0, 1.0]
    with pytest.raises(InputError, match="holds 2 readable pictures"):
        probe_pictures(SPEC, 3, tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        probe_pictures(SPEC, 3, tmp_path / "none")


def test_a_measuring_process_that_fails_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFitError, match="Measuring the memory of 1 pictures x 1 adapters failed"):
        measure.measure_activation_bytes(tmp_path / "none.onnx")


def some_head(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    rows = random.standard_normal((3, bundle.manifest.feature_size)).astype(np.float32)
    return rows, (bundle.initial_adapter() + np.float32(0.01)).astype(np.float32)


def cosine(rows: np.ndarray, sigma: float = 1.0) -> Head:
    return Head(rows, np.float32([sigma]))


@pytest.mark.parametrize("biases", [None, [0.5, -1.0, 0.25]])
def test_a_deployed_file_gives_the_heads_probabilities_and_says_how_to_use_it(
    bundle: Bundle, tmp_path: Path, biases: list[float] | None
) -> None:
    rows, adapter = some_head(bundle)
    head = cosine(rows, 7.5)
    head.biases = None if biases is None else np.float32(biases)
    path = tmp_path / "out.onnx"
    deploy(head, adapter, ["cat", "dog", "Käfer"], bundle, path)
    assert [found.name for found in tmp_path.iterdir()] == ["out.onnx"]
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [(v.name, v.shape) for v in session.get_inputs()] == [("image", ["N", 3, 32, 32])]
    images = bundle.probe().images[:3]
    (found,) = session.run(["probabilities"], {"image": images})
    features = run(open_session(bundle.graph_path), images, adapter[None])[0]
    np.testing.assert_allclose(found, head.probabilities(features), atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == ["cat", "dog", "Käfer"]
    assert json.loads(metadata["preprocessing"])["size"] == 32
    deploy(head, adapter, ["cat", "dog", "Käfer"], bundle, path, normalise=False)
    raw = (
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        .get_modelmeta()
        .custom_metadata_map
    )
    assert json.loads(raw["preprocessing"])["mean"] == [0.0, 0.0, 0.0]
    assert not any(tensor.external_data for tensor in onnx.load(str(path)).graph.initializer)


def test_a_run_of_another_bundle_is_not_deployed(bundle: Bundle, tmp_path: Path) -> None:
    rows, adapter = some_head(bundle)
    for bad_rows, bad_adapter, names in (
        (rows[:, :5], adapter, ["a", "b", "c"]),
        (rows, adapter[:-1], ["a", "b", "c"]),
        (rows, adapter, ["a", "b"]),
        (rows[:0], adapter, []),
        (rows * np.float32("nan"), adapter, ["a", "b", "c"]),
    ):
        with pytest.raises(InputError, match="does not fit the bundle"):
            deploy(cosine(bad_rows), bad_adapter, names, bundle, tmp_path / "out.onnx")
    with pytest.raises(InputError, match="cannot be written"):
        deploy(cosine(rows), adapter, ["a", "b", "c"], bundle, tmp_path / "none" / "out.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_deployed_file_that_says_something_else_is_not_kept(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, adapter = some_head(bundle)
    monkeypatch.setattr(deploy_module, "TOLERANCE", -1.0)
    with pytest.raises(InputError, match="nothing was written"):
        deploy(cosine(rows), adapter, ["a", "b", "c"], bundle, tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot be written at .*file/b"):
        export_bundle(ExportOptions(tmp_path / "file" / "b", **TINY))
