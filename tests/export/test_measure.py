"""The measured memory of a run: a fit that is never too small, and processes that do not outlive their need."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_zofc.errors import DoesNotFitError
from edge_zofc.export import measure
from edge_zofc.export.measure import fit


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_memory_fit_lies_on_or_above_every_point(noise: float) -> None:
    random = np.random.default_rng(2)
    truth = [(b, k, 2**20 * (3 + b * (1 + 2 * k))) for b in (1, 2, 4) for k in (1, 3)]
    points = [(b, k, int(value * (1 + noise * random.uniform(-1, 1)))) for b, k, value in truth]
    fitted = fit(points)
    for images, adapters, measured in points:
        predicted = fitted.predict(images, adapters)
        assert measured <= predicted <= measured * (1.01 + 4 * noise) + 64 * 4096


def test_a_measuring_process_that_fails_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFitError, match="Measuring the memory of 1 pictures x 1 adapters failed"):
        measure.measure_activation_bytes(tmp_path / "none.onnx")


def test_a_measurement_that_takes_too_long_is_ended_and_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "_TIMEOUT_SECONDS", 0.01)
    with pytest.raises(DoesNotFitError, match=r"1 pictures x 1 adapters failed .*timed out"):
        measure.measure_activation_bytes(tmp_path / "none.onnx")


def test_a_measuring_process_ends_with_what_waits_for_it() -> None:
    sleeping = [sys.executable, "-c", "import time; time.sleep(100)"]
    with pytest.raises(KeyboardInterrupt), measure._started(sleeping) as child:
        raise KeyboardInterrupt
    assert child.returncode == -signal.SIGKILL


def test_a_process_that_a_signal_finds_half_started_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    children = []

    class Interrupted(subprocess.Popen[str]):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)
            children.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt), measure._started([sys.executable, "-c", "input()"]):
        pass
    assert children[0].returncode == -signal.SIGKILL
