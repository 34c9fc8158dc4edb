"""Bursts from a camera into a task folder."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jpegs import PLAIN, with_thumbnail
from shown import camera_of_three

from edge_zofc.errors import DoesNotFitError, InputError, RunLockedError
from edge_zofc.live import capture as taking
from edge_zofc.live.addresses import Source
from edge_zofc.live.camera import BrowserCamera, Camera
from edge_zofc.live.capture import Burst, Limits, capture, class_folder
from edge_zofc.storage import writing

QUICK = Limits(count=3, every_seconds=0.01)


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[Camera]:
    """Shows three pictures again and again, 50 a second."""
    with camera_of_three(tmp_path, 0.02) as camera:
        yield camera


def test_a_burst_lies_in_the_classs_folder_as_the_camera_sent_it(camera: Camera, tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "001_fruit", "apple", test=False)
    assert folder == tmp_path / "001_fruit" / "train" / "apple"
    burst = capture(camera, folder, QUICK)
    assert burst == Burst(folder, 1, ["0001-0001.jpg", "0001-0002.jpg", "0001-0003.jpg"])
    assert sorted(path.name for path in folder.iterdir()) == burst.names
    pictures = {(folder / name).read_bytes() for name in burst.names}
    assert pictures <= {with_thumbnail(number) for number in range(3)}
    assert len(pictures) > 1


def test_each_call_is_another_burst_and_nothing_is_replaced(camera: Camera, tmp_path: Path) -> None:
    folder = class_folder(tmp_path, "apple", test=True)
    assert folder == tmp_path / "test" / "apple"
    folder.mkdir(parents=True)
    for name in ("0007-0002.jpg", "photo.jpg", "9999.jpg", "x-0009-0001.jpg"):
        (folder / name).write_bytes(b"mine")
    assert capture(camera, folder, QUICK).names[0] == "0008-0001.jpg"
    assert capture(camera, folder, QUICK).names[0] == "0009-0001.jpg"
    kept = sorted(path.name for path in folder.iterdir() if path.read_bytes() == b"mine")
    assert kept == ["0007-0002.jpg", "9999.jpg", "photo.jpg", "x-0009-0001.jpg"]


def test_pictures_lie_apart_and_a_burst_ends_in_time(camera: Camera, tmp_path: Path) -> None:
    started = time.monotonic()
    burst = capture(camera, tmp_path / "a", Limits(count=4, every_seconds=0.1))
    assert len(burst.names) == 4
    assert time.monotonic() - started > 0.29
    burst = capture(camera, tmp_path / "b", Limits(count=10**6, every_seconds=0.1, seconds=0.35))
    assert 2 <= len(burst.names) <= 4


def test_one_process_writes_into_a_class_at_a_time(camera: Camera, tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(RunLockedError, match="wait until it ends"):
        capture(camera, tmp_path, QUICK)
    os.close(handle)
    capture(camera, tmp_path, QUICK)


def test_a_finished_task_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "READY").touch()
    with pytest.raises(InputError, match="READY lies in it; capture into the folder of a new task"):
        class_folder(tmp_path, "apple", test=False)


@pytest.mark.parametrize("name", ["", "../apple", ".apple", "-apple", "a\nb", "a" * 65, "lost+found"])
def test_a_name_that_cannot_be_a_class_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be the name of a class"):
        class_folder(tmp_path, name, test=False)


def test_a_camera_without_a_picture_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with BrowserCamera() as silent, pytest.raises(InputError, match="browser: waiting for the first picture"):
        capture(silent, tmp_path / "a", Limits(patience_seconds=0.05))
    assert not (tmp_path / "a").exists()


def test_a_camera_that_cannot_even_start_is_given_up_before_the_patience_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_zofc.live.camera.PAUSE_SECONDS", 0.01)
    with Camera(Source("child", "mine", (("false",),))) as dead, pytest.raises(InputError, match="exit code 1"):
        capture(dead, tmp_path, Limits(patience_seconds=600))


def test_a_picture_counts_when_it_is_on_the_disk(
    camera: Camera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, count = writing.write_atomic, 0

    def fill(path: Path, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise DoesNotFitError("The disk is full.")
        real(path, data)

    monkeypatch.setattr(taking, "write_atomic", fill)
    with pytest.raises(DoesNotFitError), caplog.at_level(logging.WARNING):
        capture(camera, tmp_path / "a", QUICK)
    assert len(list((tmp_path / "a").iterdir())) == 2
    assert "2 pictures were written before that" in caplog.text


def test_an_interrupt_ends_a_burst_in_order(camera: Camera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Burst.add

    def interrupted(burst: Burst, jpeg: bytes) -> None:
        real(burst, jpeg)
        raise KeyboardInterrupt

    monkeypatch.setattr(Burst, "add", interrupted)
    burst = capture(camera, tmp_path, QUICK)
    assert (burst.names, burst.interrupted) == (["0001-0001.jpg"], True)


def test_pictures_from_before_their_moment_do_not_count(tmp_path: Path) -> None:
    """A camera that stood still gives no second picture, however long the burst waits."""
    with BrowserCamera() as camera:
        camera.put(PLAIN)
        with pytest.raises(InputError, match="No picture came"):
            capture(camera, tmp_path, Limits(count=2, every_seconds=0.01, patience_seconds=0.05))
    assert len(list(tmp_path.iterdir())) == 1
