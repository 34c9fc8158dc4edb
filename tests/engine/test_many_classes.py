"""A plan counts the classes that there are, and what each of them takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small
from PIL import Image
from runs import go

from edge_zofc.cli.main import main
from edge_zofc.engine.plans import SPARE_CLASSES, UNKNOWN_CLASSES
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.manifest import ActivationBytes, write_manifest

MIB = 1 << 20


def write_many_classes(folder: Path, tasks: int, classes: int, pictures: int = 2) -> Path:
    """Tasks of ``classes`` classes each, of blurred noise."""
    draw = np.random.default_rng(0)
    for number in range(tasks * classes):
        place = folder / f"{number // classes:03d}_task/train/class{number:04d}"
        place.mkdir(parents=True)
        look = np.kron(draw.integers(0, 230, (4, 4, 3)), np.ones((8, 8, 1)))
        for index in range(pictures):
            noise = draw.integers(0, 25, look.shape)
            Image.fromarray((look + noise).astype(np.uint8)).save(place / f"{index}.png")
    return folder


def predicted(capsys: pytest.CaptureFixture[str], *words: object) -> float:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return sum(i["anonymous_bytes"] for i in found["items"] if i["name"] == "head") / (100 * small.WIDTH)


def test_plan_counts_the_classes_of_the_stream(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FAULTS B8."""
    words = ["plan", "--bundle", small_bundle.folder]
    assert predicted(capsys, *words) == UNKNOWN_CLASSES
    stream = write_many_classes(tmp_path / "stream", 2, 70, 1)
    assert predicted(capsys, *words, "--stream", stream) == 140 + SPARE_CLASSES


def test_a_later_learn_counts_the_classes_of_the_run_and_of_the_stream(small_bundle: Bundle, tmp_path: Path) -> None:
    """FAULTS B8: the same prediction for the whole stream at once, and for its second half after the first."""
    stream = write_many_classes(tmp_path / "stream", 2, 30, 1)
    options = {"epochs": 1, "batch_size": 30, "queries": 1}
    whole = go(small_bundle, stream, tmp_path / "whole", changes=options, max_steps=1)
    later = (stream / "001_task").rename(tmp_path / "001_task")
    first = go(small_bundle, stream, tmp_path / "run", changes=options)
    later.rename(stream / "001_task")
    (stream / "000_task").rename(tmp_path / "000_task")
    both = go(small_bundle, stream, tmp_path / "run", changes=options, max_steps=2)
    assert both["predicted_peak_mib"] == whole["predicted_peak_mib"]
    assert both["predicted_peak_mib"] - first["predicted_peak_mib"] == pytest.approx(30 * 32 * 100 / MIB, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "backend", "budget"),
    [
        ("lda", "numpy", "300MiB"),
        ("cosine", "numpy", "300MiB"),
        pytest.param("cosine", "torch", "2GiB", marks=pytest.mark.slow),
    ],
)
def test_the_peak_of_a_thousand_classes_is_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str, backend: str, budget: str
) -> None:
    """FAULTS B8: D 768, ten tasks of a hundred classes; within a tenth."""
    if backend == "torch":
        pytest.importorskip("torch")
    monkeypatch.setattr(small, "WIDTH", 768)
    monkeypatch.setattr(small, "DEPTH", 1)
    model = small.small_model
    monkeypatch.setattr(small, "small_model", lambda: model((0,)))
    bundle = small.write_small_bundle(tmp_path / "bundle")
    # Measured by export; of this backbone they are next to nothing.
    activations = ActivationBytes(fixed=32768, per_image=159744, per_image_and_adapter=0)
    write_manifest(bundle.folder, bundle.manifest.model_copy(update={"activation_bytes": activations}))
    stream = write_many_classes(tmp_path / "stream", 10, 100)
    words = ["learn", "--bundle", bundle.folder, "--stream", stream, "--run", tmp_path / "run", "--head", head]
    words += ["--epochs", 1, "--head-epochs", 1, "--queries", 1, "--memory-budget", budget, "--json"]
    command = [sys.executable, "-m", "edge_zofc", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["class_names"]) == 1000
    assert result["head_backend"] == backend
    assert result["predicted_peak_mib"] == pytest.approx(result["peak_rss_mib"], rel=0.1)
