"""Which pictures an int8 file is calibrated on and compared on, and what is told of those that are missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from small import picture, write_small_stream

from edge_zofc.cli.main import main
from edge_zofc.data.stream import Sample
from edge_zofc.engine.predict import open_run
from edge_zofc.errors import InputError
from edge_zofc.export import calibration
from edge_zofc.export.calibration import UNKNOWN, Labelled, Pictures, choose, evenly
from edge_zofc.export.deploy import Learnt
from edge_zofc.storage.bundle import Bundle

FAST = ["--epochs", "1", "--batch-size", "8", "--queries", "1", "--micro-batch", "4", "--device-profile", "cpu-2gib"]


@pytest.fixture(scope="module")
def made(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stream and a run over it; read them, do not change them."""
    folder = tmp_path_factory.mktemp("calibration")
    write_small_stream(folder / "stream")
    words = ["learn", "--bundle", small_bundle.folder, "--stream", folder / "stream", "--run", folder / "run", *FAST]
    assert main([str(word) for word in words]) == 0
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy of both that may be changed."""
    shutil.copytree(made, tmp_path / "home")
    return tmp_path / "home"


def chosen(home: Path, bundle: Bundle, folder: Path | None = None) -> tuple[Pictures, Pictures, list[str]]:
    run, told = open_run(home / "run", bundle.folder), list[str]()
    learnt = Learnt(run.head, run.adapter, run.class_names, run.bundle, run.normalise)
    return *choose(home / "run", learnt, folder, told.append), told


def classes(pictures: Pictures) -> list[int]:
    return [each.class_id for each in pictures.read()]


def test_the_runs_own_pictures_are_taken_evenly(
    home: Path, small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "CALIBRATED_ON", 15)
    calibrated, compared, told = chosen(home, small_bundle)
    assert (calibrated.source, compared.source) == (
        "training pictures of the run's stream",
        "test pictures of the run's stream",
    )
    assert np.bincount(classes(calibrated)).tolist() == [3, 3, 3, 2, 2, 2]
    assert classes(calibrated) == classes(calibrated)
    assert np.bincount(classes(compared)).tolist() == [4] * 6
    assert told == []
    first: Labelled = next(compared.read())
    assert (first.image.shape, first.image.dtype) == ((1, 3, 32, 32), np.float32)


def test_of_each_class_the_files_are_spread() -> None:
    samples = [Sample(Path(f"{number}"), 0) for number in range(10)] + [Sample(Path("z"), 1)]
    assert [sample.path.name for sample in evenly(samples, 4)[:5]] == ["0", "z", "5", "1", "2"]
    assert len(evenly(samples, 4)) == 11
    assert evenly([], 4) == []


def test_a_stream_that_is_gone_leaves_the_probe_and_is_told(home: Path, small_bundle: Bundle) -> None:
    shutil.rmtree(home / "stream")
    calibrated, compared, (told,) = chosen(home, small_bundle)
    assert calibrated is compared
    assert calibrated.source == "the bundle's probe"
    assert classes(calibrated) == [UNKNOWN] * 2
    np.testing.assert_array_equal(
        np.concatenate([each.image for each in calibrated.read()]), small_bundle.probe().images
    )
    assert told.endswith("name pictures like the camera's with --calibrate FOLDER.")


def test_a_run_on_raw_pixels_gets_the_probe_in_raw_pixels(home: Path, small_bundle: Bundle) -> None:
    run = open_run(home / "run", small_bundle.folder)
    raw = calibration.probe(Learnt(run.head, run.adapter, run.class_names, small_bundle, normalise=False))
    spec, image = small_bundle.manifest.image, next(raw.read()).image[0]
    np.testing.assert_allclose(image[0], small_bundle.probe().images[0, 0] * spec.std[0] + spec.mean[0], rtol=1e-6)


def test_pictures_that_cannot_be_read_are_told_once(home: Path, small_bundle: Bundle) -> None:
    for path in list((home / "stream").rglob("train/class00/*.png"))[:3]:
        path.write_bytes(b"no picture")
    calibrated, _, (told,) = chosen(home, small_bundle)
    assert np.bincount(classes(calibrated)).tolist() == [5, 8, 8, 8, 8, 8]
    assert told.startswith("Left out of the training pictures of the run's stream, for they cannot be read: 3. The fir")


def test_a_named_folder_is_calibrated_on_and_the_test_pictures_are_compared(
    home: Path, small_bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "camera" / "deep").mkdir(parents=True)
    picture(1, 1).save(tmp_path / "camera" / "deep" / "a.png")
    (tmp_path / "camera" / "notes.txt").write_text("no picture")
    calibrated, compared, (told,) = chosen(home, small_bundle, tmp_path / "camera")
    assert (classes(calibrated), calibrated.source) == ([UNKNOWN], "pictures of --calibrate")
    assert len(classes(compared)) == 24
    assert "notes.txt" in told


def test_a_named_folder_without_pictures_is_refused(home: Path, small_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    for name, sentence in (("none", "is no folder"), ("bad", "is a folder without a picture")):
        with pytest.raises(InputError, match=sentence):
            chosen(home, small_bundle, tmp_path / name)
    (tmp_path / "bad" / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"No picture in --calibrate .* can be read"):
        chosen(home, small_bundle, tmp_path / "bad")
