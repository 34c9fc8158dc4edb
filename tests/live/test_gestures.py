"""What a person does on the page, and how it is taken back."""

from __future__ import annotations

import pytest
from fake_learner import FakeLearner
from pictures import blocks, encoded, noise

from edge_zofc.errors import InputError
from edge_zofc.live import gestures as module
from edge_zofc.live.gestures import PRESS_SECONDS, Gestures


class Hand:
    """Gestures over a fake learner, with a clock that a test moves and a camera that it holds."""

    def __init__(self, folder):
        self.now, self.number = 100.0, 0
        self.learner = FakeLearner(folder)
        self.gestures = Gestures(self.learner, lambda: self.now)

    def see(self, count=1):
        for _ in range(count):
            self.number += 1
            self.gestures.saw(self.number, blocks(self.number))

    def show(self, name, count=3):
        self.gestures.record(name, True)
        self.see(count)
        self.gestures.record(name, False)

    @property
    def names(self):
        return [one.name for one in self.learner.pictures]


@pytest.fixture
def hand(tmp_path):
    return Hand(tmp_path)


def test_pictures_join_while_the_button_is_down_and_no_longer(hand):
    hand.see(2)
    hand.show("mug", 3)
    hand.see(2)
    assert hand.names == ["mug"] * 3
    assert hand.gestures.note == "3 pictures of mug to learn from."


def test_a_press_that_nobody_renews_ends_by_itself(hand):
    hand.gestures.record("mug", True)
    hand.see()
    hand.now += PRESS_SECONDS - 1
    hand.gestures.record("mug", True)
    hand.now += PRESS_SECONDS - 1
    hand.see()
    assert hand.names == ["mug"] * 2
    hand.now += PRESS_SECONDS + 1
    hand.see(3)
    assert hand.names == ["mug"] * 2 and hand.gestures.press is None


def test_a_renewal_is_no_new_burst_and_another_name_ends_the_first(hand):
    hand.gestures.record("mug", True)
    first = hand.gestures.press.burst
    hand.gestures.record("mug", True)
    assert hand.gestures.press.burst is first
    hand.see()
    hand.gestures.record("cup", True)
    hand.gestures.record("mug", False)  # a late message of the first button
    hand.see()
    assert hand.names == ["mug", "cup"] and hand.gestures.press.burst.name == "cup"


def test_every_fourth_showing_is_kept_back_and_said_so(hand):
    for _ in range(4):
        hand.show("mug", 2)
    assert [one.part for one in hand.learner.pictures] == ["train"] * 6 + ["test"] * 2
    assert "kept back as a test" in hand.gestures.note


def test_blurred_and_equal_pictures_are_left_out_with_the_reason(hand):
    same = blocks()
    hand.gestures.record("mug", True)
    hand.gestures.saw(1, same)
    hand.gestures.saw(2, same)
    assert "same picture" in hand.gestures.note
    hand.gestures.saw(3, encoded(noise(64, 48), "JPEG"))
    assert "blurred" in hand.gestures.note
    assert len(hand.learner.pictures) == 1


def test_a_lesson_that_is_full_ends_the_press_once_and_says_why(hand, monkeypatch):
    monkeypatch.setattr("edge_zofc.live.lesson.MAX_PICTURES", 2)
    hand.gestures.record("mug", True)
    hand.see(2)
    with pytest.raises(InputError, match="the limit is 2"):
        hand.see()
    assert hand.gestures.press is None
    hand.see()
    assert hand.names == ["mug"] * 2


def test_a_correction_teaches_the_picture_that_was_shown_and_not_a_newer_one(hand):
    hand.see(3)
    hand.gestures.correct("mug", 2)
    assert hand.learner.files[1] == blocks(2)
    assert [one.part for one in hand.learner.pictures] == ["train"]
    with pytest.raises(InputError, match="no longer there"):
        hand.gestures.correct("mug", 99)


def test_corrections_are_no_bursts(hand):
    hand.see(8)
    for number in range(1, 6):
        hand.gestures.correct("mug", number)
    assert {one.part for one in hand.learner.pictures} == {"train"}


def test_few_bytes_of_recent_pictures_are_kept(hand, monkeypatch):
    monkeypatch.setattr(module, "RECENT_BYTES", 4000)
    hand.see(30)
    kept = hand.gestures._recent
    assert sum(len(data) for _, data in kept) <= 4000 and kept[-1][0] == 30


def test_a_showing_is_one_burst_of_the_learner(hand):
    hand.show("mug", 3)
    hand.show("mug", 2)
    hand.gestures.correct("mug", 5)
    assert [one.burst for one in hand.learner.pictures] == [1, 1, 1, 4, 4, 6]


def test_every_gesture_can_be_taken_back_in_turn(hand):
    states = [hand.learner.pictures]
    for gesture in (
        lambda: hand.show("mug", 30),
        lambda: hand.show("cup", 2),
        lambda: hand.gestures.correct("mug", 31),
        lambda: hand.gestures.remove([1]),
        lambda: hand.gestures.move([2], "cup"),
        lambda: hand.gestures.rename("cup", "bowl"),
        lambda: hand.gestures.forget("mug"),
    ):
        gesture()
        states.append(hand.learner.pictures)
    for before in reversed(states[:-1]):
        hand.gestures.undo()
        assert hand.learner.pictures == before
    with pytest.raises(InputError, match="nothing to take back"):
        hand.gestures.undo()


def test_closing_a_lesson_ends_the_press_and_needs_a_picture(hand):
    with pytest.raises(InputError, match="no picture yet"):
        hand.gestures.close_lesson()
    hand.gestures.record("mug", True)
    hand.see(2)
    assert hand.gestures.close_lesson() == "001_lesson"
    assert hand.gestures.press is None and hand.names == []
    with pytest.raises(InputError):
        hand.gestures.undo()


@pytest.mark.parametrize("name", ["", "../mug", "-mug", ".mug", "a/b", "a\\b", "x" * 65, "a\nb", "\u202emug"])
def test_a_name_that_cannot_be_one_is_refused_when_the_button_goes_down(hand, name):
    with pytest.raises(InputError, match="cannot be the name of a class"):
        hand.gestures.record(name, True)
    assert hand.gestures.press is None


def test_a_name_is_the_same_in_each_of_its_forms(hand):
    hand.show("cafe\u0301", 1)
    hand.gestures.record("caf\u00e9", True)
    hand.see()
    hand.gestures.record("cafe\u0301 ", False)
    assert hand.names == ["caf\u00e9"] * 2 and hand.gestures.press is None
