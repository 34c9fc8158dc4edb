"""``edge_zofc.Learner`` as a notebook or a loop over frames uses it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small import picture

import edge_zofc
from edge_zofc.errors import DoesNotFitError, ImageError, InputError
from edge_zofc.learner import Answer, KeptBack, Learner, Progress
from edge_zofc.storage.bundle import Bundle

MUG, PEN, CAP = 0, 3, 5


def frame(number: int, index: int) -> np.ndarray:
    """As a camera gives it: RGB pixels uint8 [H, W, 3]."""
    return np.asarray(picture(number, index, side=96).convert("RGB"))


def frames(number: int, count: int, first: int = 0) -> list[np.ndarray]:
    return [frame(number, first + index) for index in range(count)]


@pytest.fixture
def learner(small_bundle: Bundle, tmp_path: Path) -> Iterator[Learner]:
    """A new run that knows a mug and a pen."""
    made = Learner.create(small_bundle.folder, tmp_path / "run", profile="cpu-2gib", steps=2, batch_size=8)
    made.teach(frames(MUG, 5), "mug")
    made.teach(frames(PEN, 5), "pen")
    yield made
    made.close()


def test_it_stands_at_the_top_of_the_package() -> None:
    assert edge_zofc.Learner is Learner
    with pytest.raises(AttributeError, match="no attribute 'Teacher'"):
        _ = edge_zofc.Teacher


def test_importing_the_package_alone_brings_neither_numpy_nor_onnxruntime() -> None:
    code = "import edge_zofc, sys; print([n for n in ('numpy', 'onnxruntime', 'pydantic') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_a_frame_is_named_in_every_form_a_person_may_have_it(learner: Learner, tmp_path: Path) -> None:
    pixels, file = frame(MUG, 20), io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    path = tmp_path / "mug.png"
    path.write_bytes(file.getvalue())
    forms = [pixels, Image.fromarray(pixels), file.getvalue(), path, str(path)]
    answers = learner.predict(forms)
    assert {answer.name for answer in answers} == {"mug"}
    assert len({answer.likeness for answer in answers}) == 1
    one = learner.predict(pixels)
    assert isinstance(one, Answer)
    assert str(one) == f"mug {one.likeness:.2f}"
    assert [guess.class_name for guess in one.guesses] == ["mug", "pen"]
    assert isinstance(learner.predict(np.stack([pixels, pixels])), list)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), b"no picture", "gone.jpg"]
)
def test_what_is_no_picture_is_one_sentence(learner: Learner, wrong: object) -> None:
    with pytest.raises(ImageError) as caught:
        learner.predict(wrong)  # type: ignore[call-overload]
    assert str(caught.value).endswith(".")


def test_a_new_thing_is_known_at_once_and_no_certainty_is_shown_for_one_that_was_never(learner: Learner) -> None:
    learner.teach(frame(CAP, 0), "cap")
    learner.teach(frames(CAP, 4, first=1), "cap")
    answer = learner.predict(frame(CAP, 30))
    assert answer.name == "cap"
    unlike = learner.predict(np.full((96, 96, 3), 128, np.uint8))
    assert unlike.likeness < answer.likeness
    assert (unlike.name is None) == (unlike.likeness < unlike.limit)


def test_pictures_that_are_kept_back_are_never_learnt_from(learner: Learner) -> None:
    before = learner.predict(frame(MUG, 20))
    learner.teach(frames(MUG, 3, first=10), "mug", test=True)
    learner.teach(frames(MUG, 1, first=14), "pen", test=True)  # a wrong label, seen in the numbers
    after = learner.predict(frame(MUG, 20))
    assert (before.guesses, before.likeness) == (after.guesses, after.likeness)
    assert learner.kept_back == KeptBack(right=3, total=4)
    mug, pen = learner.classes
    assert (mug.name, mug.taught, mug.kept_back, mug.kept_back_right) == ("mug", 5, 3, 3)
    assert (pen.kept_back, pen.kept_back_right) == (1, 0)


def test_what_a_person_did_can_be_taken_back_with_a_sentence(learner: Learner) -> None:
    learner.rename("mug", "cup")
    assert learner.undo() == "cup is called mug again"
    learner.forget("pen")
    assert [each.name for each in learner.classes] == ["mug"]
    assert learner.undo() == "pen is known again"
    assert learner.undo() == "5 pictures of pen taken back"
    assert [each.name for each in learner.classes] == ["mug"]


def test_pictures_of_a_lesson_are_listed_moved_and_removed_by_number(learner: Learner) -> None:
    first, second = learner.pictures[:2]
    assert (first.serial, first.name, first.part, first.burst) == (1, "mug", "train", 1)
    assert learner.picture_bytes(1).startswith(b"\xff\xd8")
    learner.move([second.serial], "pen")
    learner.remove([first.serial])
    assert {each.name: each.taught for each in learner.classes} == {"mug": 3, "pen": 6}
    with pytest.raises(InputError, match="There is no picture 1"):
        learner.picture_bytes(1)


def test_another_process_is_refused_while_one_teaches(learner: Learner) -> None:
    with Learner.open(learner.run) as other, pytest.raises(InputError, match="is in use by process"):
        other.teach(frame(CAP, 0), "cap")
    learner.close()
    with Learner.open(learner.run) as other:
        other.teach(frame(CAP, 0), "cap")


def test_what_another_process_taught_is_taken_over_by_a_refresh(learner: Learner) -> None:
    with Learner.open(learner.run) as asked:
        assert asked.refresh() is False
        learner.teach(frames(CAP, 5), "cap")
        assert asked.predict(frame(CAP, 30)).guesses[0].class_name != "cap"
        assert asked.refresh() is True
        assert asked.predict(frame(CAP, 30)).name == "cap"
        assert asked.refresh() is False
        learner.close_lesson()  # a new log
        assert asked.refresh() is True
        assert asked.predict(frame(CAP, 30)).name == "cap"
        assert learner.refresh() is False  # its own changes are known


def test_learn_takes_the_lesson_in_a_process_of_its_own_and_tells_of_each_step(learner: Learner) -> None:
    for number, name in ((CAP, "cap"), (4, "key")):
        learner.teach(frames(number, 5), name)
        learner.teach(frames(number, 2, first=10), name, test=True)
    told: list[Progress] = []
    result = learner.learn(on_progress=told.append)
    assert [task.name for task in result.tasks] == ["001_lesson"]
    assert [progress.step for progress in told] == [1, 2]
    assert learner.pictures == ()
    assert sorted((each.name, each.learnt, each.taught) for each in learner.classes) == [
        (name, 5, 0) for name in ("cap", "key", "mug", "pen")
    ]
    assert learner.predict(frame(CAP, 30)).guesses[0].class_name == "cap"
    assert learner.report().exists()
    with pytest.raises(InputError, match="nothing to take back"):
        learner.undo()


def test_an_error_of_learn_is_its_error_here(learner: Learner, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        learner.learn(tmp_path / "nowhere")
    with pytest.raises(DoesNotFitError, match="budget"):
        learner.learn(memory_budget="70MiB")
    with pytest.raises(InputError, match="learn takes profile and memory_budget"):
        learner.learn(threads="2")


def test_what_cannot_begin_is_one_sentence(small_bundle: Bundle, learner: Learner, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is a run in"):
        Learner.create(small_bundle.folder, learner.run)
    with pytest.raises(InputError, match="There is no run in"):
        Learner.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match="knows no class yet"):
        Learner.create(small_bundle.folder, tmp_path / "new", profile="cpu-2gib").predict(frame(MUG, 0))
    with pytest.raises(InputError, match="colour"):
        Learner.create(small_bundle.folder, tmp_path / "newer", colour="red")


KILLED = """
import sys
from pathlib import Path
from edge_zofc import Learner
pictures = sorted(Path(sys.argv[2]).iterdir())
with Learner.open(sys.argv[1]) as learner:
    for number in range(1000):
        found = learner.teach(pictures[number % len(pictures)], f"thing {number % 3}")
        print(found.serials[0], flush=True)
"""


def test_a_kill_in_the_middle_of_a_lesson_loses_no_picture_that_was_acknowledged(
    learner: Learner, tmp_path: Path
) -> None:
    learner.close()
    place = tmp_path / "pictures"
    place.mkdir()
    for index in range(6):
        picture(MUG, index).save(place / f"{index}.png")
    for delay in (0.15, 0.4, 0.7):
        with Learner.open(learner.run) as again:
            before = {each.serial for each in again.pictures}
        words = [sys.executable, "-c", KILLED, str(learner.run), str(place)]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        told = [child.stdout.readline()]  # it has begun
        time.sleep(delay)
        os.kill(child.pid, signal.SIGKILL)
        told += child.stdout.read().splitlines()
        child.stdout.close()
        child.wait()
        acknowledged = {int(line) for line in told if line.strip().isdecimal()}
        with Learner.open(learner.run) as again:
            there = {each.serial for each in again.pictures}
            assert acknowledged <= there
            assert len(there - before - acknowledged) <= 1  # cut off as it was told
            again.teach(frame(MUG, 0), "mug")
            learner_knows = {each.name for each in again.classes}
        assert {"thing 0", "mug", "pen"} <= learner_knows
        with Learner.open(learner.run) as again:
            again.remove([serial for serial in there if serial > 10])
