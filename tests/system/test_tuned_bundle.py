"""A bundle whose start was trained goes the whole road, and what was learnt goes back to that start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from runs import final_bits, go
from safetensors.numpy import load_file
from small import picture, write_small_stream
from typed import run as typed

from edge_zofc.algorithm.adapter import LATTICE_STEP
from edge_zofc.engine import gate
from edge_zofc.export import tuning, writer
from edge_zofc.export.options import ExportOptions
from edge_zofc.export.writer import export_bundle
from edge_zofc.inference.transforms import load_test
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.manifest import ActivationBytes

MOVING: dict[str, Any] = {"batch_size": 8, "queries": 2, "steps": 3, "adapter_lr": 0.05}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A ViT of two blocks, its start five steps away from the identity; whatever they won is taken."""
    place = tmp_path_factory.mktemp("tuned")
    for number in range(8):
        (place / "train" / f"class{number}").mkdir(parents=True)
        for index in range(4):
            picture(number, index).save(place / "train" / f"class{number}" / f"{index}.png")
    options = ExportOptions(
        place / "bundle", "vit_tiny_patch16_224", random_weights=True, img_size=32, depth=2, tune=[place], tune_steps=5
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "best_strength", max)
        numbers = ActivationBytes(fixed=1 << 20, per_image=1 << 18, per_image_and_adapter=1 << 18)
        patch.setattr(writer, "measure_activation_bytes", lambda _graph, _share: numbers)
        return export_bundle(options)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of four classes."""
    return write_small_stream(tmp_path_factory.mktemp("stream") / "s", tasks=2, classes=4, alike=True)


def test_learning_moves_on_from_the_tuned_start_and_replay_rebuilds_it(
    tuned: Bundle, stream: Path, tmp_path: Path
) -> None:
    result = go(tuned, stream, tmp_path / "run", changes=MOVING)
    assert result["adapter"]["state"] == "moved"
    assert typed("replay", tuned.folder, tmp_path / "run" / "journal.bin", "-o", tmp_path / "theta") == 0
    theta = load_file(tmp_path / "theta")["adapter"]
    assert theta.tobytes() == final_bits(tmp_path / "run")[0]
    start = tuned.initial_adapter()
    # The identity is further away: a bottleneck's up.bias is zero there, and moved by Adam's five steps here.
    piece = next(piece for piece in tuned.manifest.adapter.pieces if piece.name == "blocks.0.up.bias")
    assert np.abs(start[piece.offset : piece.offset + piece.size]).max() > 5e-3
    assert np.abs(theta - start).max() > 0
    assert not np.fmod(theta, LATTICE_STEP).any()


def test_an_adapter_that_does_harm_rests_at_the_tuned_start(
    tuned: Bundle, stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = iter([False, True, True])  # of the start, then of the moved adapter
    monkeypatch.setattr(gate, "is_worse", lambda _first, _second: next(verdicts))
    result = go(tuned, stream, tmp_path / "run", changes=MOVING)
    off = go(tuned, stream, tmp_path / "off", changes={**MOVING, "adapter": "off"})
    assert result["adapter"]["state"] == "rests"
    assert result["adapter"]["start"] == "tuned"
    assert final_bits(tmp_path / "run")[0] == tuned.initial_adapter().tobytes() == final_bits(tmp_path / "off")[0]
    assert result["accuracy_matrix"] == off["accuracy_matrix"]


def test_plan_doctor_report_and_deploy_take_it(
    tuned: Bundle, stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go(tuned, stream, tmp_path / "run", changes={"adapter": "off"})
    assert typed("plan", "--bundle", tuned.folder, "--stream", stream, "--device-profile", "cpu-2gib") == 0
    assert typed("doctor", "--bundle", tuned.folder) == 0
    assert typed("report", tmp_path / "run") == 0
    assert typed("deploy", tmp_path / "run", tmp_path / "out.onnx") == 0
    path = next((stream / "000_task" / "test").rglob("*.png"))
    capsys.readouterr()
    assert typed("predict", tmp_path / "run", path) == 0
    said = capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx")
    image = load_test(path, tuned.manifest.image)[None]
    scores = np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0])
    assert f"class{int(scores.argmax()):02d}" in said
