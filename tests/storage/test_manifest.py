"""The manifest of each format literally, what belongs together in it, and what a bundle's identity is made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from manifests import GRADIENT, GRADIENT_6, LITERAL, LITERAL_4, TUNING
from pydantic import ValidationError

from edge_zofc.storage import manifest

LITERAL_6 = {**LITERAL_4, "format_version": 6, "gradient": GRADIENT_6}


def test_a_written_manifest_is_the_literal_one(tmp_path: Path) -> None:
    manifest.write_manifest(tmp_path, manifest.Manifest.model_validate(LITERAL))
    raw = (tmp_path / "bundle.json").read_bytes()
    assert json.loads(raw) == LITERAL
    assert raw.startswith(b'{\n  "activation_bytes": {\n    "fixed": 1,\n    "per_image": 2,\n')


@pytest.mark.parametrize("literal", [LITERAL_4, LITERAL_6], ids=["4", "6"])
def test_a_written_manifest_with_a_gradient_is_the_literal_one(tmp_path: Path, literal: dict[str, Any]) -> None:
    written = manifest.Manifest.model_validate(literal)
    assert written.goes_back == (written.sizes.gradient is not None) == (literal is LITERAL_6)
    manifest.write_manifest(tmp_path, written)
    assert json.loads((tmp_path / "bundle.json").read_bytes()) == literal
    without = manifest.Manifest.model_validate({**LITERAL, "format_version": 2})
    assert manifest.identity_of(written, b"") == manifest.identity_of(without, b"")


@pytest.mark.parametrize(
    "edit",
    [
        {"format_version": 3},
        {"gradient": None},
        {"gradient": {**GRADIENT, "error": -1}},
        {"gradient": {**GRADIENT, "surprise": 1}},
        {"gradient": GRADIENT_6},
        {"gradient": {**GRADIENT, "memory": GRADIENT["memory"][:3]}},  # type: ignore[index]
        {"gradient": {**GRADIENT, "memory": [*GRADIENT["memory"][:3], GRADIENT["memory"][0]]}},  # type: ignore[index]
        {"format_version": 6},
        {"files": LITERAL["files"]},
    ],
    ids=str,
)
def test_a_gradient_its_files_and_format_4_go_together(edit: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        manifest.Manifest.model_validate({**LITERAL_4, **edit})


@pytest.mark.parametrize("untuned", [LITERAL, LITERAL_4], ids=["plain", "gradient"])
def test_a_written_manifest_with_a_tuning_is_the_literal_one(tmp_path: Path, untuned: dict[str, Any]) -> None:
    """What is told of the start is no part of the identity; the start itself is, by its file's hash."""
    literal = {**untuned, "format_version": 5, "tuning": TUNING}
    written = manifest.Manifest.model_validate(literal)
    manifest.write_manifest(tmp_path, written)
    assert json.loads((tmp_path / "bundle.json").read_bytes()) == literal
    without = manifest.Manifest.model_validate({**LITERAL, "format_version": 2})
    assert manifest.identity_of(written, b"") == manifest.identity_of(without, b"")


UNTUNED = {"bytes": 1, "sha256": "c" * 64}
LITERAL_7: dict[str, Any] = {
    **LITERAL, "format_version": 7, "tuning": TUNING,
    "files": {**LITERAL["files"], "untuned.safetensors": UNTUNED},  # type: ignore[dict-item]
}  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"gradient": GRADIENT_6}], ids=["plain", "gradient"])
def test_since_format_7_a_tuned_bundle_has_the_start_before_that(tmp_path: Path, more: dict[str, Any]) -> None:
    """From there its identity is that of the bundle with that start alone."""
    files = LITERAL_7["files"] | ({name: LITERAL_4["files"][name] for name in manifest.GRADIENT_FILES} if more else {})  # type: ignore[index]
    literal = {**LITERAL_7, **more, "files": files}
    written = manifest.Manifest.model_validate(literal)
    manifest.write_manifest(tmp_path, written)
    assert json.loads((tmp_path / "bundle.json").read_bytes()) == literal
    never = {**LITERAL, "format_version": 2, "files": {**LITERAL["files"], "adapter.safetensors": UNTUNED}}  # type: ignore[dict-item]
    assert manifest.identity_of(written, b"", manifest.UNTUNED) == manifest.identity_of(
        manifest.Manifest.model_validate(never), b""
    )
    assert manifest.identity_of(written, b"") != manifest.identity_of(written, b"", manifest.UNTUNED)


@pytest.mark.parametrize(
    "edit",
    [
        {"format_version": 6},
        {"tuning": None},
        {"files": LITERAL["files"]},
        {"files": {**LITERAL_7["files"], "adapter.untuned": UNTUNED}},
    ],
    ids=str,
)
def test_a_start_before_the_tuning_goes_with_a_tuning_and_format_7(edit: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        manifest.Manifest.model_validate({**LITERAL_7, **edit})


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


def test_a_bottleneck_has_a_rank_and_a_film_none() -> None:
    layout = {**LITERAL["adapter"], "rank": 0}  # type: ignore[dict-item]
    assert manifest.AdapterLayout.model_validate({**layout, "kind": "film"}).rank == 0
    with pytest.raises(ValidationError, match="rank is at least 1"):
        manifest.AdapterLayout.model_validate(layout)


def test_activation_bytes_add_up() -> None:
    """1 + 5 * (2 + 4 * 3) = 71."""
    assert manifest.ActivationBytes(fixed=1, per_image=2, per_image_and_adapter=3).predict(5, 4) == 71
