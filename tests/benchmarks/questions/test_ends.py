"""Where runs ended: forgetting of the first task, and the loss around the adapter as the runtime computes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small import write_small_stream

from edge_zofc.benchmarks.questions import ends
from edge_zofc.benchmarks.questions.flatness import RHO
from edge_zofc.cli.main import main
from edge_zofc.engine.predict import open_run
from edge_zofc.storage.bundle import Bundle


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_stream(tmp_path_factory.mktemp("ends") / "stream", tasks=2, classes=8)


@pytest.fixture(scope="module")
def run(exact_bundle: Bundle, stream: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ends") / "run"
    words = ["learn", "--bundle", exact_bundle.folder, "--stream", stream, "--run", folder, "--adapter", "on"]
    few = ["--estimator", "exact", "--batch-size", "8", "--steps", "3", "--device-profile", "cpu-2gib"]
    assert main([*map(str, words), *few]) == 0
    return folder


def test_a_row_says_what_the_run_did_and_how_the_loss_rises_there(run: Path, stream: Path) -> None:
    found = ends.measure(run, stream, pictures=4, directions=3)
    assert (found["estimator"], found["steps"]) == ("exact", 3)
    assert found["forgot"] == pytest.approx(found["first"] - found["last"])
    assert found["moved"] > 0
    assert found["max_rise"] >= found["mean_rise"]


def test_the_rise_along_the_gradient_is_rho_times_its_length_where_the_loss_is_nearly_a_plane(
    run: Path, stream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ends._Place(open_run(run), stream, 4)
    gradient, small = place.gradient(place.trained.adapter), RHO / 100
    monkeypatch.setattr(ends, "RHO", small)
    rise = place.rises(directions=1)["gradient_rise"]
    assert rise == pytest.approx(small * float(np.linalg.norm(gradient)), rel=0.05)


def test_pictures_are_normalised_as_the_run_learnt_them(run: Path, stream: Path) -> None:
    """``--preset paper`` learns from pixels in [0, 1]."""
    trained = open_run(run)
    plain = replace(trained.settings.options, normalise=False)
    learnt_plain = replace(trained, settings=trained.settings.model_copy(update={"options": plain}))
    lows = [min(float(one.min()) for one in ends._Place(each, stream, 4).images) for each in (trained, learnt_plain)]
    assert lows[0] < 0 <= lows[1]


def test_a_bundle_without_exact_gradients_ends_in_a_sentence(
    small_bundle: Bundle, stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["learn", "--bundle", small_bundle.folder, "--stream", stream, "--run", tmp_path / "run"]
    assert main([*map(str, words), "--adapter", "off", "--device-profile", "cpu-2gib"]) == 0
    assert ends.main(["--stream", str(stream), str(tmp_path / "run")]) == 2
    assert "exact gradients" in capsys.readouterr().err
