"""The thread that owns the learner."""

from __future__ import annotations

import threading
import time

import pytest
from fake_learner import FakeLearner
from pictures import blocks

from edge_zofc.errors import DoesNotFitError, ImageError, InputError
from edge_zofc.learner import Answer
from edge_zofc.live import seer as module
from edge_zofc.live.camera import BrowserCamera
from edge_zofc.live.seer import Caption, Limits, Seer
from edge_zofc.live.watch import NoWatch


def picture(seed):
    return blocks(seed)


class Running:
    """A seer at work on a thread of its own, over a fake learner and a camera that the test holds."""

    def __init__(self, folder):
        self.camera, self.ready = BrowserCamera(), threading.Event()
        self.changes = 0
        self._thread = threading.Thread(target=self._run, args=(folder,), daemon=True)

    def _run(self, folder):
        self.learner = FakeLearner(folder)  # on the thread that owns it, as it checks
        self.seer = Seer(self.learner, self.camera, NoWatch(), Limits(256, 512))
        self.seer.changed = self._count
        self.ready.set()
        self.seer.run()

    def _count(self):
        self.changes += 1

    def do(self, gesture):
        return self.seer.ask(gesture).result(5)

    def wait(self, condition, seconds=5.0):
        until = time.monotonic() + seconds
        while not condition(self.seer.state):
            assert time.monotonic() < until, self.seer.state
            time.sleep(0.005)

    def show(self, name, seeds):
        self.do(lambda hand: hand.record(name, True))
        for seed in seeds:
            serial = self.camera.put(picture(seed)).serial
            self.wait(lambda state: state.view.picture == serial)  # noqa: B023 - called at once
        self.do(lambda hand: hand.record(name, False))

    def __enter__(self):
        self._thread.start()
        assert self.ready.wait(5)
        return self

    def __exit__(self, *error):
        self.seer.stop()
        self._thread.join(5)
        assert not self._thread.is_alive()


@pytest.fixture
def running(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PICTURE_SECONDS", 0.01)
    monkeypatch.setattr(module, "REST_SECONDS", 0.002)
    with Running(tmp_path) as found:
        yield found


def test_what_is_shown_is_named_and_what_is_not_is_unknown(running):
    running.show("mug", range(3))
    running.show("cup", range(10, 13))
    assert [one.name for one in running.seer.state.known.classes] == ["mug", "cup"]
    for seed, expected in ((1, "mug"), (11, "cup"), (50, "")):
        for _ in range(module.OF):
            serial = running.camera.put(picture(seed)).serial
            running.wait(lambda state: state.view.picture == serial)  # noqa: B023
        assert running.seer.state.view.caption == expected
    assert running.seer.state.view.guesses[0].likeness == 0.1 and running.changes > 10


def test_the_state_shows_the_press_while_it_lasts(running):
    running.do(lambda hand: hand.record("mug", True))
    running.camera.put(picture(1))
    running.wait(lambda state: state.view.kept == 1)
    assert running.seer.state.view.recording == "mug" and not running.seer.state.view.for_test
    running.do(lambda hand: hand.record("mug", False))
    assert running.seer.state.view.recording is None
    assert running.seer.state.view.note == "1 picture of mug to learn from."


def test_a_picture_that_stays_before_the_camera_is_named_anew_when_it_was_corrected(running):
    running.show("mug", range(2))
    serial = running.camera.put(picture(50)).serial
    running.wait(lambda state: state.view.picture == serial and state.view.caption == "")
    running.do(lambda hand: hand.correct("cup", serial))
    running.wait(lambda state: state.view.caption == "cup")
    assert len(running.seer.state.known.pictures) == 3


def test_a_gesture_that_fails_tells_its_caller_and_nobody_else(running):
    with pytest.raises(InputError, match="no class"):
        running.do(lambda hand: hand.forget("mug"))
    running.show("mug", range(2))
    assert len(running.seer.state.known.pictures) == 2


def test_names_that_change_begin_a_new_caption(running):
    running.show("mug", range(1))
    for _ in range(module.OF):
        serial = running.camera.put(picture(0)).serial
        running.wait(lambda state: state.view.picture == serial)  # noqa: B023
    assert running.seer.state.view.caption == "mug"
    running.do(lambda hand: hand.rename("mug", "cup"))
    assert running.seer.state.view.caption is None
    assert running.seer.state.known.classes[0].name == "cup"


def test_a_picture_that_cannot_be_named_is_told_and_the_next_one_is_named(running, monkeypatch):
    running.show("mug", range(2))

    def refuse(data):
        raise ImageError("The picture has 67.0 megapixels to decode and the limit is 24.")

    monkeypatch.setattr(running.learner, "predict", refuse)
    running.camera.put(picture(9))
    running.wait(lambda state: "67.0 megapixels" in state.view.note)
    monkeypatch.undo()
    running.camera.put(picture(1))
    running.wait(lambda state: state.view.note == "")


def test_what_the_learner_learnt_is_taken_over(running, monkeypatch):
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.01)
    before = running.seer.state.known.revision
    running.learner.newer = True
    running.wait(lambda state: state.known.revision > before)


def test_too_many_waiting_gestures_are_refused(tmp_path):
    seer = Seer(FakeLearner(tmp_path), BrowserCamera(), NoWatch())
    for _ in range(module.MAX_WAITING):
        seer.ask(lambda hand: "")
    with pytest.raises(DoesNotFitError, match="wait already"):
        seer.ask(lambda hand: "")


def test_a_gesture_whose_caller_has_gone_is_not_carried_out(running):
    held = threading.Event()
    running.seer.ask(lambda hand: held.wait(5))
    gone = running.seer.ask(lambda hand: hand.record("mug", True))
    assert gone.cancel()
    held.set()
    running.do(lambda hand: hand.picture)
    assert running.seer.state.view.recording is None


def test_state_is_another_object_only_where_it_changed(running):
    running.show("mug", range(2))
    known = running.seer.state.known
    running.camera.put(picture(30))
    running.wait(lambda state: state.view.picture == 3)
    assert running.seer.state.known is known


def test_the_caption_follows_three_agreeing_answers_of_five():
    caption = Caption()

    def add(name):
        return caption.add(Answer(name, 0.5, 0.35, ()))

    assert [add("a"), add("a"), add("a")] == [None, None, "a"]
    assert [add("b"), add("b")] == ["a", "a"]
    assert [add(None), add("b")] == ["a", "b"]
    assert [add(None), add(None)] == ["b", ""]
    caption.clear()
    assert caption.text is None and add("a") is None
