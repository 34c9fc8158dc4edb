"""The bundle: its manifest literally, its refusals, and attacks on every file of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import save_file
from small import write_small_bundle

from edge_zofc.errors import DamagedFileError, EdgeZofcError, InputError
from edge_zofc.storage import bundle, manifest
from edge_zofc.storage.bundle import Bundle, read_bundle

LITERAL = {
    "format_version": 1,
    "written_by": {"edge-zofc": "0.1.0"},
    "backbone": {"name": "n", "source": "package", "weights_sha256": "a" * 64, "depth": 1, "pooling": "token"},
    "image": {
        "size": 8, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "crop_fraction": 1.0,
    },
    "adapter": {
        "blocks": [0],
        "rank": 1,
        "scale": 0.1,
        "pieces": [{"name": "down", "shape": [1, 3], "offset": 0}, {"name": "up", "shape": [3, 1], "offset": 3}],
    },
    "feature_size": 3,
    "precision": "fp32",
    "fidelity": {"eps": 0.001, "directions": 64, "one_sided": 0.99, "two_sided": 1.0},
    "activation_bytes": {"fixed": 1, "per_image": 2, "per_image_and_adapter": 3},
    "files": {name: {"bytes": 0, "sha256": "b" * 64} for name in manifest.FILES},
}  # fmt: skip


@pytest.fixture
def copy(small_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(small_bundle.folder, tmp_path / "copy"))


def change(folder: Path, edit: dict[str, Any]) -> None:
    """Replace top-level entries of the manifest."""
    path = folder / manifest.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **edit}))


def rehash(folder: Path, name: str) -> None:
    """Make the manifest agree with a file that was changed, as somebody with bad intent would."""
    path = folder / manifest.MANIFEST
    data = json.loads(path.read_text())
    data["files"][name] = {"bytes": (folder / name).stat().st_size, "sha256": bundle.sha256_of(folder / name)}
    path.write_text(json.dumps(data))


def test_a_written_manifest_is_the_literal_one(tmp_path: Path) -> None:
    manifest.write_manifest(tmp_path, manifest.Manifest.model_validate(LITERAL))
    raw = (tmp_path / "bundle.json").read_bytes()
    assert json.loads(raw) == LITERAL
    assert raw.startswith(b'{\n  "activation_bytes": {\n    "fixed": 1,\n    "per_image": 2,\n')


GRADIENT = {
    "error": 0.5,
    "memory": [
        {"prepacking": True, "arena": True, "anonymous": 4, "file": 5},
        {"prepacking": True, "arena": False, "anonymous": 3, "file": 5},
        {"prepacking": False, "arena": True, "anonymous": 2, "file": 5},
        {"prepacking": False, "arena": False, "anonymous": 1, "file": 5},
    ],
}
LITERAL_4 = {
    **LITERAL,
    "format_version": 4,
    "gradient": GRADIENT,
    "files": {
        name: {"bytes": 0, "sha256": "b" * 64}
        for name in (
            "backbone.onnx", "backbone.onnx.data", "adapter.safetensors", "probe.safetensors",
            "gradient.onnx", "gradient.onnx.data",
        )
    },
}  # fmt: skip


def test_a_written_manifest_with_a_gradient_is_the_literal_one(tmp_path: Path) -> None:
    written = manifest.Manifest.model_validate(LITERAL_4)
    manifest.write_manifest(tmp_path, written)
    assert json.loads((tmp_path / "bundle.json").read_bytes()) == LITERAL_4
    without = manifest.Manifest.model_validate({**LITERAL, "format_version": 2})
    assert manifest.identity_of(written, b"") == manifest.identity_of(without, b"")


@pytest.mark.parametrize(
    "edit",
    [
        {"format_version": 3},
        {"gradient": None},
        {"gradient": {**GRADIENT, "error": -1}},
        {"gradient": {**GRADIENT, "surprise": 1}},
        {"files": LITERAL["files"]},
    ],
    ids=str,
)
def test_a_gradient_its_files_and_format_4_go_together(edit: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        manifest.Manifest.model_validate({**LITERAL_4, **edit})


TUNING = {
    "classes": 6,
    "held_back": 2,
    "pictures": 36,
    "steps": 100,
    "strength": 0.5,
    "seed": 1993,
    "on_held_back": {"pictures": 16, "untuned": 0.5, "gain": 0.125, "low": -0.25, "high": 0.5},
    "on_all": {"pictures": 28, "untuned": 0.5, "gain": 0.25, "low": 0.125, "high": 0.375},
}


@pytest.mark.parametrize("untuned", [LITERAL, LITERAL_4], ids=["plain", "gradient"])
def test_a_written_manifest_with_a_tuning_is_the_literal_one(tmp_path: Path, untuned: dict[str, Any]) -> None:
    """What is told of the start is no part of the identity; the start itself is, by its file's hash."""
    literal = {**untuned, "format_version": 5, "tuning": TUNING}
    written = manifest.Manifest.model_validate(literal)
    manifest.write_manifest(tmp_path, written)
    assert json.loads((tmp_path / "bundle.json").read_bytes()) == literal
    without = manifest.Manifest.model_validate({**LITERAL, "format_version": 2})
    assert manifest.identity_of(written, b"") == manifest.identity_of(without, b"")


@pytest.mark.parametrize(
    "edit",
    [
        {"format_version": 4},
        {"tuning": {**TUNING, "strength": 0}},
        {"tuning": {**TUNING, "classes": 0}},
        {"tuning": {**TUNING, "surprise": 1}},
        {"tuning": {**TUNING, "on_all": {**TUNING["on_all"], "untuned": 1.5}}},  # type: ignore[dict-item]
    ],
    ids=str,
)
def test_a_tuning_is_complete_and_of_format_5(edit: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        manifest.Manifest.model_validate({**LITERAL, "format_version": 5, "tuning": TUNING, **edit})


def with_gradient(folder: Path, graph: bytes = b"graph") -> None:
    """The bundle's manifest with a gradient, and two files for it."""
    data = json.loads((folder / manifest.MANIFEST).read_text())
    for name, raw in ((manifest.GRADIENT_GRAPH, graph), (manifest.GRADIENT_WEIGHTS, b"")):
        (folder / name).write_bytes(raw)
        data["files"][name] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    change(folder, {"format_version": 4, "gradient": GRADIENT, "files": data["files"]})


def test_a_bundle_is_the_same_with_any_graph_of_gradients_and_without(copy: Path, small_bundle: Bundle) -> None:
    for graph in (b"one", b"another"):
        with_gradient(copy, graph)
        found = read_bundle(copy)
        assert found.identity == small_bundle.identity
        assert found.gradient_path.read_bytes() == graph


@pytest.mark.parametrize("name", manifest.GRADIENT_FILES)
def test_a_changed_graph_of_gradients_is_found_when_the_bundle_is_read_and_later(copy: Path, name: str) -> None:
    with_gradient(copy)
    found = read_bundle(copy)
    (copy / name).write_bytes(b"other")
    for read in (found.verify_changed, lambda: read_bundle(copy)):
        with pytest.raises(DamagedFileError, match=f"{name} (has 5 bytes|does not have the SHA-256)"):
            read()
    (copy / name).unlink()
    with pytest.raises(DamagedFileError, match=f"{name} is missing"):
        read_bundle(copy)


@pytest.mark.parametrize(("version", "kind"), [(2, ""), (3, ""), (3, '"kind":"film",')])
def test_the_identity_is_the_hash_of_a_literal_text(version: int, kind: str) -> None:
    """FAULTS B3: neither measured numbers, the probe nor who wrote it are in the text. A bottleneck's is that of 2."""
    adapter = {**LITERAL["adapter"], **({"kind": "film"} if kind else {})}  # type: ignore[dict-item]
    written = manifest.Manifest.model_validate({**LITERAL, "format_version": version, "adapter": adapter})
    text = (
        f'{{"adapter":{{"blocks":[0],{kind}'
        '"pieces":[{"name":"down","offset":0,"shape":[1,3]},'
        '{"name":"up","offset":3,"shape":[3,1]}],"rank":1,"scale":0.1},"feature_size":3,"files":{'
        f'"adapter.safetensors":"{"b" * 64}","backbone.onnx":"{"b" * 64}","backbone.onnx.data":"{"b" * 64}"}},'
        '"image":{"crop_fraction":1.0,"interpolation":"bicubic","mean":[0.5,0.5,0.5],"size":8,'
        '"std":[0.5,0.5,0.5]},"precision":"fp32"}'
    )
    assert manifest.identity_of(written, b"anything") == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("edit", "same"),
    [
        ({"activation_bytes": {"fixed": 9, "per_image": 9, "per_image_and_adapter": 9}}, True),
        ({"fidelity": {"eps": 0.002, "directions": 65, "one_sided": 0.95, "two_sided": 0.97}}, True),
        ({"written_by": {"edge-zofc": "9"}}, True),
        ({"precision": "w8"}, False),
        ({"image": {**LITERAL["image"], "size": 32, "mean": [0.4, 0.5, 0.5]}}, False),  # type: ignore[dict-item]
    ],
)  # fmt: skip
def test_what_was_measured_is_no_part_of_the_identity(
    copy: Path, small_bundle: Bundle, edit: dict[str, Any], same: bool
) -> None:
    """FAULTS B3: an equal export is an equal bundle, though memory measured differently."""
    change(copy, edit)
    assert (read_bundle(copy).identity == small_bundle.identity) is same


@pytest.mark.parametrize("name", manifest.FILES)
def test_other_contents_of_a_file_other_than_the_probe_are_another_bundle(
    copy: Path, small_bundle: Bundle, name: str
) -> None:
    """FAULTS B3: the probe's features are measured; another processor rounds them differently."""
    (copy / name).write_bytes((copy / name).read_bytes() + b"x")
    rehash(copy, name)
    assert (read_bundle(copy).identity == small_bundle.identity) is (name == manifest.PROBE)


def test_a_bundle_of_format_1_keeps_its_identity_the_hash_of_its_manifest(copy: Path) -> None:
    """FAULTS B3: journals and settings of older runs hold it."""
    change(copy, {"format_version": 1})
    raw = (copy / manifest.MANIFEST).read_bytes()
    assert read_bundle(copy).identity == hashlib.sha256(raw).hexdigest()


def test_a_bottleneck_has_a_rank_and_a_film_none() -> None:
    layout = {**LITERAL["adapter"], "rank": 0}  # type: ignore[dict-item]
    assert manifest.AdapterLayout.model_validate({**layout, "kind": "film"}).rank == 0
    with pytest.raises(ValidationError, match="rank is at least 1"):
        manifest.AdapterLayout.model_validate(layout)


def test_activation_bytes_add_up() -> None:
    """1 + 5 * (2 + 4 * 3) = 71."""
    assert manifest.ActivationBytes(fixed=1, per_image=2, per_image_and_adapter=3).predict(5, 4) == 71


def test_a_whole_bundle_is_read_back(small_bundle: Bundle) -> None:
    found = read_bundle(small_bundle.folder)
    assert found == small_bundle
    assert len(found.identity) == 64
    assert found.initial_adapter().shape == (found.manifest.adapter.size,)
    probe = found.probe()
    assert probe.features.shape == (2, 2, found.manifest.feature_size)


def test_no_bundle_names_the_way_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="edge-zofc export"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    "edit",
    [
        {"surprise": 1},
        {"feature_size": 0},
        {"feature_size": "three"},
        {"precision": "fp64"},
        {"files": {}},
        {"files": {"../escape": {"bytes": 0, "sha256": "b" * 64}}},
        {"adapter": {"blocks": [0], "rank": 1, "scale": 0.1, "pieces": []}},
        {"adapter": {"blocks": [0], "rank": 1, "scale": 0.1, "pieces": [{"name": "x", "shape": [2], "offset": 5}]}},
        {"fidelity": {"eps": 0.001, "directions": 64, "one_sided": 7, "two_sided": 1.0}},
        {"image": {**LITERAL["image"], "size": 10**9}},  # type: ignore[dict-item]
        {"image": {**LITERAL["image"], "std": [0, 1, 1]}},  # type: ignore[dict-item]
    ],
)  # fmt: skip
def test_a_manifest_that_is_not_the_formats_is_refused(copy: Path, edit: dict[str, Any]) -> None:
    change(copy, edit)
    with pytest.raises(DamagedFileError, match=r"bundle\.json is not a bundle's manifest"):
        read_bundle(copy)


def test_a_newer_format_asks_for_an_update(copy: Path) -> None:
    change(copy, {"format_version": 6})
    with pytest.raises(InputError, match="version 6, this edge-zofc reads 5; update edge-zofc"):
        read_bundle(copy)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format_version": NaN}', b"[" * 100_000])
def test_json_that_is_none_is_refused(copy: Path, raw: bytes) -> None:
    (copy / manifest.MANIFEST).write_bytes(raw)
    with pytest.raises(DamagedFileError):
        read_bundle(copy)


def test_a_manifest_without_end_is_not_read(copy: Path) -> None:
    with (copy / manifest.MANIFEST).open("r+b") as file:
        file.truncate(bundle.MAX_MANIFEST_BYTES + 1)
    with pytest.raises(DamagedFileError, match="at most 1048576"):
        read_bundle(copy)


@pytest.mark.parametrize("name", manifest.FILES)
def test_a_flipped_bit_a_missing_file_and_a_link_are_found_before_anything_is_opened(copy: Path, name: str) -> None:
    path = copy / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DamagedFileError, match="SHA-256"):
        read_bundle(copy)
    path.write_bytes(raw[:-1])
    with pytest.raises(DamagedFileError, match="bytes, the manifest says"):
        read_bundle(copy)
    path.unlink()
    with pytest.raises(DamagedFileError, match="is missing"):
        read_bundle(copy)
    path.symlink_to("/etc/passwd")
    with pytest.raises(DamagedFileError, match="not a plain file"):
        read_bundle(copy)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DamagedFileError, match="not a plain file"):
        read_bundle(copy)


@pytest.mark.parametrize("value", [np.float32(1e-9), np.float32(4.0), np.float32("nan"), np.float32("inf")])
def test_an_adapter_off_the_lattice_is_refused(copy: Path, small_bundle: Bundle, value: np.float32) -> None:
    adapter = small_bundle.initial_adapter()
    adapter[3] = value
    save_file({"adapter": adapter}, copy / manifest.ADAPTER)
    rehash(copy, manifest.ADAPTER)
    with pytest.raises(DamagedFileError, match="multiples of 2"):
        read_bundle(copy).initial_adapter()


@pytest.mark.parametrize(
    "tensors",
    [
        {"adapter": np.zeros(3, np.float32)},
        {"adapter": np.zeros((324,), np.float64)},
        {"other": np.zeros(324, np.float32)},
        {"adapter": np.zeros(324, np.float32), "more": np.zeros(1, np.float32)},
    ],
)
def test_an_adapter_of_another_shape_type_or_name_is_refused(copy: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, copy / manifest.ADAPTER)
    rehash(copy, manifest.ADAPTER)
    with pytest.raises(DamagedFileError):
        read_bundle(copy).initial_adapter()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), cut=st.booleans())
def test_safetensors_changed_anywhere_are_read_or_refused_in_one_sentence(
    copy: Path, small_bundle: Bundle, place: float, byte: int, cut: bool
) -> None:
    raw = bytearray((small_bundle.folder / manifest.ADAPTER).read_bytes())
    index = int(place * len(raw))
    raw[index] = byte
    (copy / manifest.ADAPTER).write_bytes(raw[:index] if cut else raw)
    rehash(copy, manifest.ADAPTER)
    try:
        found = read_bundle(copy).initial_adapter()
    except EdgeZofcError as error:
        assert error.exit_code == 5
    else:
        assert np.isfinite(found).all()


def test_a_graph_that_onnxruntime_cannot_open_is_code_5(copy: Path) -> None:
    from edge_zofc.inference.backbone import Backbone
    from edge_zofc.storage.settings import Placement

    (copy / manifest.GRAPH).write_bytes(b"\x08\x08garbage")
    rehash(copy, manifest.GRAPH)
    with pytest.raises(DamagedFileError, match="cannot open"):
        Backbone(read_bundle(copy), Placement.simple(1))


def test_the_small_bundle_is_the_same_each_time(small_bundle: Bundle, tmp_path: Path) -> None:
    assert write_small_bundle(tmp_path / "again").identity == small_bundle.identity
