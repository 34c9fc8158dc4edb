"""The loop of ``predict --camera``: which pictures are answered, what a line says, what is told of the camera."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from jpegs import PLAIN
from shown import camera_of_three

from edge_zofc.errors import DamagedFileError, ImageError
from edge_zofc.learner import Answer, Guess
from edge_zofc.live import answering
from edge_zofc.live.addresses import Source
from edge_zofc.live.answering import Pace, Stable, answer_pictures
from edge_zofc.live.camera import BrowserCamera, Camera

QUICK = Pace(every_seconds=0.01, count=3)


class Knowing:
    """Answers with the names in its list, one after the other; an error in it is raised."""

    def __init__(self, *names: str | Exception | None) -> None:
        self.names, self.seen, self.refreshes = list(names), list[bytes](), 0

    def predict(self, picture: bytes) -> Answer:
        self.seen.append(picture)
        name = self.names.pop(0) if self.names else "mug"
        if isinstance(name, Exception):
            raise name
        guesses = tuple(Guess(each, 0.25, 0.512345) for each in (name or "mug", "pen", "cap", "key"))
        return Answer(name, 0.512345, 0.7 if name is None else 0.4, guesses)

    def refresh(self) -> bool:
        self.refreshes += 1
        return False


class EnoughError(Exception):
    """Ends the loop."""


class Listening:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.camera: list[tuple[bool, str]] = []

    def answered(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    def camera_is(self, there: bool, sentence: str) -> None:
        self.camera.append((there, sentence))


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[Camera]:
    """Shows three pictures again and again, 100 a second."""
    with camera_of_three(tmp_path, 0.01) as camera:
        yield camera


def answered(camera: Camera, learner: Knowing, pace: Pace = QUICK) -> list[dict[str, Any]]:
    listener = Listening()
    answer_pictures(learner, camera, pace, [listener])  # type: ignore[arg-type]
    return listener.lines


def test_a_line_says_what_when_and_how_alike(camera: Camera) -> None:
    before = datetime.now(timezone.utc)
    (line,) = answered(camera, Knowing("mug"), Pace(count=1))
    taken = datetime.fromisoformat(line.pop("time"))
    assert before - timedelta(seconds=5) < taken < datetime.now(timezone.utc)
    assert taken.utcoffset() == timedelta(0)
    assert line.pop("picture") >= 1
    assert 0 <= line.pop("milliseconds") < 10_000
    assert line == {
        "name": "mug", "unknown": False, "stable": None, "likeness": 0.5123, "limit": 0.4,
        "classes": [{"class_name": name, "probability": 0.25, "likeness": 0.5123} for name in ("mug", "pen", "cap")],
    }  # fmt: skip


def test_what_is_like_no_class_has_no_name(camera: Camera) -> None:
    lines = answered(camera, Knowing(None, None, None))
    assert [(line["name"], line["unknown"], line["stable"]) for line in lines] == [(None, True, None)] * 3
    assert lines[0]["classes"][0]["class_name"] == "mug"


def test_the_stable_name_is_that_of_three_of_the_last_five() -> None:
    stable = Stable()
    names = ["a", "a", "b", "a", "b", "b", None, None, None, "b", "b"]
    assert [stable.add(name) for name in names] == [None, None, None, "a", "a", "b", "b", None, None, None, None]
    stable.clear()
    assert stable.name is None
    assert [stable.add("b") for _ in range(3)] == [None, None, "b"]


def test_each_picture_is_answered_once_and_the_newest_at_its_moment(camera: Camera) -> None:
    lines = answered(camera, Knowing(), Pace(every_seconds=0.1, count=4))
    numbers = [line["picture"] for line in lines]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - numbers[0] >= 9  # three tenths of a second, 100 pictures a second, half of that on a bad day


def test_a_camera_that_stands_still_is_not_answered_twice() -> None:
    with BrowserCamera() as still:
        still.put(PLAIN)
        thread = threading.Timer(0.4, still.put, (PLAIN,))
        thread.start()
        assert [line["picture"] for line in answered(still, Knowing(), Pace(0.01, 2))] == [1, 2]
        thread.join()


def test_a_picture_that_cannot_be_read_is_told_and_the_next_one_answered(camera: Camera) -> None:
    lines = answered(camera, Knowing("mug", "mug", "mug", ImageError('Picture "1"\n is none.'), "mug"), Pace(0.01, 5))
    assert set(lines[3]) == {"time", "picture", "name", "stable", "error"}
    assert (lines[3]["name"], lines[3]["stable"]) == (None, "mug")
    assert lines[4]["stable"] == "mug"
    assert "\n" not in json.dumps(lines[3])


def test_what_others_taught_is_taken_over_every_few_seconds(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Knowing()
    answered(camera, learner)
    assert learner.refreshes == 0
    monkeypatch.setattr(answering, "REFRESH_SECONDS", 0.1)
    began = time.monotonic()
    answered(camera, learner, Pace(0.01, 30))
    assert 2 <= learner.refreshes <= (time.monotonic() - began) / 0.1


def test_a_damaged_run_ends_the_loop(camera: Camera) -> None:
    with pytest.raises(DamagedFileError):
        answered(camera, Knowing(DamagedFileError("It is damaged.")))


def test_a_camera_that_goes_and_comes_is_told_once_each_and_the_agreement_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "LOST_SECONDS", 0.2)
    monkeypatch.setattr("edge_zofc.live.camera.PAUSE_SECONDS", 0.05)
    folder = tmp_path / "shown"
    folder.mkdir()
    (folder / "note.txt").touch()

    class Moving(Listening):
        """Takes the picture away after each fourth answer, and puts it back when the camera is lost."""

        def answered(self, line: dict[str, Any]) -> None:
            super().answered(line)
            if len(self.lines) % 4 == 0:
                (folder / "a.jpg").unlink()

        def camera_is(self, there: bool, sentence: str) -> None:
            super().camera_is(there, sentence)
            if not there:
                (folder / "a.jpg").write_bytes(PLAIN)

    listener = Moving()
    with Camera(f"folder://{folder}", folder_seconds=0.3) as camera:
        answer_pictures(Knowing(), camera, Pace(0.01, 8), [listener])  # type: ignore[arg-type]
    assert [there for there, _ in listener.camera] == [False, True, False, True]
    assert listener.camera[0][1] == f"folder://{folder}: no JPEG of at most 4 MiB lies in it; put some there."
    assert "file 1 of" in listener.camera[1][1]
    assert [line["stable"] for line in listener.lines] == 2 * [None, None, "mug", "mug"]


def test_a_camera_that_ends_after_each_picture_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a program that takes one photograph: between two of them its state says that it ended."""
    monkeypatch.setattr("edge_zofc.live.camera.PAUSE_SECONDS", 0.05)
    (tmp_path / "a.jpg").write_bytes(PLAIN)
    listener = Listening()
    with Camera(Source("child", "mine", (("cat", str(tmp_path / "a.jpg")),))) as camera:
        answer_pictures(Knowing(), camera, Pace(0.01, 4), [listener])  # type: ignore[arg-type]
        assert camera.state.restarts >= 3
    assert listener.camera == []


def test_a_camera_that_never_gave_a_picture_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "LOST_SECONDS", 0.1)

    class Ending(Listening):
        def camera_is(self, there: bool, sentence: str) -> None:
            assert not there
            assert re.fullmatch(r"mine: .*exit code 1; it is started again in \d+ s\.", sentence)
            raise EnoughError

    with Camera(Source("child", "mine", (("false",),))) as dead, pytest.raises(EnoughError):
        answer_pictures(Knowing(), dead, QUICK, [Ending()])  # type: ignore[arg-type]


def test_a_camera_that_is_still_starting_is_not_called_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "LOST_SECONDS", 0.05)
    listener = Listening()
    with BrowserCamera() as slow:
        thread = threading.Timer(0.6, slow.put, (PLAIN,))
        thread.start()
        answer_pictures(Knowing(), slow, Pace(0.01, 1), [listener])  # type: ignore[arg-type]
        thread.join()
    assert listener.camera == []
