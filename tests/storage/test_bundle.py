"""A bundle is read back, is the same or another one, and is refused where a file of it was changed."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifests import LITERAL, change, rehash, tuned_bundle, with_gradient
from safetensors.numpy import save_file
from small import write_small_bundle

from edge_zofc.errors import DamagedFileError, EdgeZofcError, InputError
from edge_zofc.storage import bundle, manifest
from edge_zofc.storage.bundle import Bundle, has_identity, read_bundle


@pytest.fixture
def copy(small_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(small_bundle.folder, tmp_path / "copy"))


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


def test_a_whole_bundle_is_read_back(small_bundle: Bundle) -> None:
    found = read_bundle(small_bundle.folder)
    assert found == small_bundle
    assert len(found.identity) == 64
    assert found.initial_adapter().shape == (found.manifest.adapter.size,)
    probe = found.probe()
    assert probe.features.shape == (2, 2, found.manifest.feature_size)


def test_a_tuned_bundle_is_untuned_the_one_that_was_never_tuned(small_bundle: Bundle, tmp_path: Path) -> None:
    found = tuned_bundle(small_bundle, tmp_path / "tuned", small_bundle.initial_adapter() + np.float32(0.5))
    tuned, untuned = found.starts()
    assert (tuned, untuned.identity) == (found, small_bundle.identity)
    assert np.array_equal(untuned.initial_adapter(), small_bundle.initial_adapter())
    assert np.array_equal(tuned.initial_adapter(), small_bundle.initial_adapter() + np.float32(0.5))
    assert untuned.starts() == (tuned, untuned)
    for one in (tuned, untuned):
        assert found.with_identity(one.identity) == untuned.with_identity(one.identity) == one
        assert has_identity(found.folder, one.identity)
        one.verify_changed()
    assert found.with_identity("a" * 64) == found
    assert not has_identity(found.folder, "a" * 64)
    assert small_bundle.starts() == (small_bundle,)


def test_a_bundle_that_was_tuned_by_an_earlier_version_has_its_one_start(small_bundle: Bundle, tmp_path: Path) -> None:
    found = tuned_bundle(small_bundle, tmp_path / "tuned", small_bundle.initial_adapter() + np.float32(0.5), version=5)
    assert found.starts() == (found,)
    assert found.identity != small_bundle.identity


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
    change(copy, {"format_version": 8})
    with pytest.raises(InputError, match="version 8, this edge-zofc reads 7; update edge-zofc"):
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
