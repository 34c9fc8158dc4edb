"""The newest picture of a camera, whatever its child does."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jpegs import PLAIN, child, is_running, showing, with_thumbnail

from edge_zofc.errors import ImageError, InputError
from edge_zofc.live.addresses import Source
from edge_zofc.live.camera import BrowserCamera, Camera, CameraState, Pace, open_camera
from edge_zofc.live.jpegs import MAX_PICTURE_BYTES

WAIT_SECONDS = 20


def source(*commands: tuple[str, ...]) -> Source:
    return Source("child", "mine", commands)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.jpg"
    path.write_bytes(PLAIN)
    return path


def wait_until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)


class NoPauses(threading.Event):
    """In place of a camera's clock: pauses are noted and take no time; the camera closes after ``most``."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.pauses, self._most = list[float](), most

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout or 0.0)
        if len(self.pauses) >= self._most:
            self.set()
        return self.is_set()


def pauses(camera: Camera, most: int) -> list[float]:
    """The camera's first ``most`` pauses between two children."""
    clock = camera._closed = NoPauses(most)
    with camera:
        wait_until(clock.is_set)
    return clock.pauses


def test_the_newest_picture_is_kept_with_its_number_and_time(tmp_path: Path) -> None:
    pictures = [with_thumbnail(number) for number in range(3)]
    (tmp_path / "burst").write_bytes(b"".join(pictures))
    before = time.monotonic()
    with Camera(source(showing(tmp_path / "burst"))) as camera:
        wait_until(lambda: (newest := camera.newest()) is not None and newest.jpeg == pictures[-1])
        newest = camera.newest()
        assert newest is not None
        assert before < newest.seconds < time.monotonic()
        assert camera.state == CameraState(True, "mine: pictures arrive.", newest.serial, 0)
        assert camera.wait_newer(newest.serial, 0.01) is None
        assert camera.wait_newer(newest.serial - 1, 0) == newest


def test_pictures_come_ten_times_a_second_at_most(picture: Path) -> None:
    body = "data = open(sys.argv[1], 'rb').read()\nwhile True: write(data); time.sleep(0.002)"
    with Camera(source(child(body, picture))) as camera:
        assert camera.wait_newer(0, WAIT_SECONDS)
        started, first = time.monotonic(), camera.state.pictures
        while camera.state.pictures < first + 5:
            time.sleep(0.002)
        assert time.monotonic() - started > 0.39


def test_a_child_that_ends_after_each_picture_is_a_camera_too(picture: Path) -> None:
    camera = Camera(source(showing(picture, "")))
    assert pauses(camera, 4) == [1, 1, 1, 1]
    assert camera.state.pictures == 4


def test_the_last_picture_of_a_child_is_shown_though_it_came_soon_after_another(tmp_path: Path) -> None:
    (tmp_path / "first").write_bytes(with_thumbnail(1))
    (tmp_path / "last").write_bytes(with_thumbnail(2))
    body = "write(open(sys.argv[1], 'rb').read()); time.sleep(0.02); write(open(sys.argv[2], 'rb').read())"
    camera = Camera(source(child(body, tmp_path / "first", tmp_path / "last")))
    pauses(camera, 1)
    newest = camera.newest()
    assert newest is not None
    assert newest.jpeg == with_thumbnail(2)


def test_a_child_that_gives_nothing_is_started_again_after_longer_and_longer_pauses() -> None:
    assert pauses(Camera(source(("false",))), 7) == [1, 2, 4, 8, 16, 30, 30]


def test_a_picture_lets_the_pauses_begin_anew() -> None:
    pace = Pace()
    given = (False, False, False, True, False, False, True, True)
    assert [pace.pause_seconds(gave_pictures=one) for one in given] == [1, 2, 4, 1, 2, 4, 1, 1]


def test_the_reason_is_told_and_the_camera_comes_back(picture: Path, tmp_path: Path) -> None:
    body = (
        "if not os.path.exists(sys.argv[2]):\n"
        "    open(sys.argv[2], 'w'); print('mine: rtsp://me:secret@host/s?key=k: No route to host', file=sys.stderr)\n"
        "    sys.exit(1)\n"
        "write(open(sys.argv[1], 'rb').read()); time.sleep(60)"
    )
    with Camera(source(child(body, picture, tmp_path / "was here"))) as camera:
        assert camera.state == CameraState(False, "mine: waiting for the first picture.")
        wait_until(lambda: "again" in camera.state.sentence)
        told = "mine: rtsp://…@host/s?… No route to host; it is started again in 1 s."
        assert camera.state == CameraState(False, told)
        assert camera.wait_newer(0, WAIT_SECONDS)
        assert camera.state == CameraState(True, "mine: pictures arrive.", 1, 1)


def test_a_silent_child_is_ended_with_its_group_and_started_again(picture: Path, tmp_path: Path) -> None:
    body = (
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "open(sys.argv[2], 'a').write(f'{os.getpid()}\\n'); write(open(sys.argv[1], 'rb').read()); time.sleep(600)"
    )
    pids = tmp_path / "pids"
    with Camera(source(child(body, picture, pids)), silent_seconds=0.2) as camera:
        wait_until(lambda: "again" in camera.state.sentence)
        assert camera.state.sentence == "mine: no picture for 0.2 s; it is started again in 1 s."
        assert not is_running(int(pids.read_text().split()[0]))
        assert camera.wait_newer(1, WAIT_SECONDS)
    assert not any(is_running(int(pid)) for pid in pids.read_text().split())


def test_a_child_that_never_gave_a_picture_has_longer_but_not_for_ever() -> None:
    body = "write(b'starting'); time.sleep(600)"
    with Camera(source(child(body)), silent_seconds=0.05, start_seconds=0.6) as camera:
        time.sleep(0.3)
        assert camera.state.sentence == "mine: waiting for the first picture."
        wait_until(lambda: "no picture for 0.6 s" in camera.state.sentence)


def test_text_without_end_is_silence_too(picture: Path) -> None:
    body = "write(open(sys.argv[1], 'rb').read())\nwhile True: write(b'waiting\\n'); time.sleep(0.01)"
    with Camera(source(child(body, picture)), silent_seconds=0.3) as camera:
        wait_until(lambda: "no picture for 0.3 s" in camera.state.sentence)


def test_text_before_the_pictures_does_no_harm(picture: Path) -> None:
    body = "write(b'GST_ARGUS: Creating output stream\\nCONSUMER: Producer has connected\\n')\n"
    with Camera(source(child(body + "write(open(sys.argv[1], 'rb').read()); time.sleep(60)", picture))) as camera:
        frame = camera.wait_newer(0, WAIT_SECONDS)
        assert frame is not None
        assert frame.jpeg == PLAIN


def test_rubbish_ends_the_child_with_a_sentence() -> None:
    with Camera(source(child("while True: write(bytes(1 << 20))"))) as camera:
        wait_until(lambda: "8 MiB came without a JPEG picture in them; it is" in camera.state.sentence)


def test_another_way_to_read_the_camera_is_tried_at_once(picture: Path) -> None:
    camera = Camera(source(("false",), ("false",), showing(picture, "")))
    assert pauses(camera, 4) == [0, 0, 1, 1]  # and the way that gave a picture is kept
    assert camera.state.pictures == 2
    assert pauses(Camera(source(("false",), ("false",))), 6) == [0, 1, 0, 2, 0, 4]


def test_a_program_that_cannot_be_started_is_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(command: tuple[str, ...]) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("edge_zofc.live.camera.Child", refuse)
    with Camera(source(("true",))) as camera:
        wait_until(lambda: "Resource temporarily unavailable" in camera.state.sentence)


def test_closing_ends_the_child_and_those_who_wait(picture: Path) -> None:
    camera = Camera(source(showing(picture))).start().start()
    assert camera.wait_newer(0, WAIT_SECONDS)
    answers: list[object] = []
    waiting = threading.Thread(target=lambda: answers.append(camera.wait_newer(1, 60)))
    waiting.start()
    started = time.monotonic()
    camera.close()
    camera.close()
    waiting.join(WAIT_SECONDS)
    assert answers == [None]
    assert time.monotonic() - started < 5
    assert camera.state.sentence == "mine: closed."
    assert [thread for thread in threading.enumerate() if thread.name == "camera"] == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three JPEGs, and things that are none."""
    folder = tmp_path / "pictures"
    (folder / "b").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for number, name in enumerate(("a.jpg", "b/c.jpeg", "d.JPG")):
        (folder / name).write_bytes(with_thumbnail(number))
    for name in (".e.jpg", ".hidden/f.jpg"):
        (folder / name).write_bytes(PLAIN)
    (folder / "cut.jpg").write_bytes(PLAIN[:-9])
    (folder / "notes.txt").write_text("notes")
    (folder / "huge.jpg").write_bytes(PLAIN + bytes(MAX_PICTURE_BYTES))
    os.mkfifo(folder / "pipe.jpg")
    return folder


def test_a_folder_shows_its_jpegs_by_name_again_and_again(folder: Path) -> None:
    order, serial = list[bytes](), 0
    sentences = set()
    with Camera(f"folder://{folder}", folder_seconds=0.02) as camera:
        while len(order) < 7:
            frame = camera.wait_newer(serial, WAIT_SECONDS)
            assert frame is not None
            serial = frame.serial
            order.append(frame.jpeg)
            sentences.add(camera.state.sentence)
    assert [with_thumbnail(number) for number in (0, 1, 2)] * 2 == order[:6]
    assert f"folder://{folder}: file 1 of 7, a.jpg, 4 other files left out." in sentences


def test_a_folder_without_a_picture_waits_for_one(tmp_path: Path) -> None:
    with Camera(f"folder://{tmp_path}") as camera:
        wait_until(lambda: "no JPEG of at most 4 MiB lies in it" in camera.state.sentence)
        assert not camera.state.ok
        (tmp_path / "a.jpg").write_bytes(PLAIN)
        assert camera.wait_newer(0, WAIT_SECONDS)


def test_a_browser_hands_its_pictures_over() -> None:
    camera = open_camera("browser")
    assert isinstance(camera, BrowserCamera)
    with camera:
        assert camera.state == CameraState(False, "browser: waiting for the first picture.")
        frame = camera.put(PLAIN)
        assert camera.newest() == frame
        assert (frame.serial, frame.jpeg) == (1, PLAIN)
        assert camera.state == CameraState(True, "browser: pictures arrive.", 1)
        for wrong in (b"", b"GIF89a", PLAIN[:-1], PLAIN + bytes(MAX_PICTURE_BYTES)):
            with pytest.raises(ImageError, match=rf"The picture.* {len(wrong)} bytes"):
                camera.put(wrong)
        assert camera.newest() == frame


def test_a_browser_that_went_away_is_told() -> None:
    with BrowserCamera(silent_seconds=0.05) as camera:
        camera.put(PLAIN)
        time.sleep(0.1)
        told = "browser: no picture for 0.05 s; open the page and start its camera."
        assert camera.state == CameraState(False, told, 1)
        camera.put(PLAIN)
        assert camera.state.ok


def test_one_camera_is_given_and_no_more(folder: Path) -> None:
    assert open_camera(None, "false now").source.commands == (("false", "now"),)
    assert open_camera(f"folder://{folder}").source.folder == folder
    for address, command in ((None, None), ("browser", "false"), (f"folder://{folder}", "false")):
        with pytest.raises(InputError, match="Give one camera"):
            open_camera(address, command)
