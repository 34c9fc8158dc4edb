"""What may join a lesson."""

from __future__ import annotations

import io
import random
from collections import namedtuple

import numpy as np
import pytest
from photographs import PHOTOGRAPHS
from pictures import blocks, encoded
from PIL import Image, ImageFilter

from edge_zofc.errors import DoesNotFitError, ImageError, InputError
from edge_zofc.learner import ClassInfo, ShownPicture
from edge_zofc.live import lesson as module
from edge_zofc.live.lesson import LIKENESS_MOST, SHARP_LEAST, Lesson, look_at


def shown(serial, name="mug", part="train", burst=None):
    return ShownPicture(serial, name, part, serial if burst is None else burst)


def known(*names):
    return [ClassInfo(name, 0, 1, 0, 0, None) for name in names]


@pytest.fixture
def lesson(tmp_path):
    return Lesson(tmp_path, lambda serial: blocks(serial))


def photographs(count):
    return [path.read_bytes() for path in sorted(PHOTOGRAPHS.glob("train/*/*.jpg"))[:: 160 // count]]


def hand_held(data, by, seed):
    """The same photograph, moved by up to ``by`` of its size, a little brighter and with noise."""
    generator = random.Random(seed)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    moved = image.rotate(0, translate=(generator.uniform(-by, by) * width, generator.uniform(-by, by) * height))
    inner = moved.crop((width // 10, height // 10, width - width // 10, height - height // 10))
    rough = np.asarray(inner, np.float32) * 1.03 + np.random.RandomState(seed).normal(0, 4, (*inner.size[::-1], 3))
    return encoded(Image.fromarray(rough.clip(0, 255).astype(np.uint8)), "JPEG", quality=85)


def test_a_photograph_is_sharp_enough_and_a_blurred_one_is_not():
    for data in photographs(8):
        assert look_at(data).sharpness > SHARP_LEAST
        image = Image.open(io.BytesIO(data)).convert("RGB").filter(ImageFilter.GaussianBlur(12))
        assert look_at(encoded(image, "JPEG")).sharpness < SHARP_LEAST


def test_the_sharpness_of_a_grey_area_is_nothing_and_that_of_one_dot_is_known():
    assert look_at(encoded(Image.new("RGB", (96, 96), "grey"), "PNG")).sharpness == 0
    image = Image.new("L", (96, 96))
    image.putpixel((40, 40), 100)
    n = 94 * 94
    # The Laplacian is -400 at the dot, 100 at its four neighbours; their sum is 0.
    assert look_at(encoded(image, "PNG")).sharpness == pytest.approx((400**2 + 4 * 100**2) / n)


def test_a_still_camera_gives_near_copies_and_a_hand_does_not():
    still, hand = [], []
    for seed, data in enumerate(photographs(20)):
        first = look_at(hand_held(data, 0, 0)).thumbnail
        still.append(first @ look_at(hand_held(data, 0, seed)).thumbnail)
        hand.append(first @ look_at(hand_held(data, 0.06, seed + 100)).thumbnail)
    assert min(still) > LIKENESS_MOST > np.quantile(hand, 0.8)


def test_a_near_copy_joins_another_class_but_not_its_own(lesson):
    look = look_at(blocks())
    lesson.joined(1, look)
    assert "same picture" in lesson.why_not(look, "mug", [shown(1)])
    assert lesson.why_not(look, "cup", [shown(1)]) is None
    assert lesson.why_not(look, "mug", []) is None  # it was removed since
    assert lesson.why_not(look_at(blocks(5)), "mug", [shown(1)]) is None


def test_near_copies_of_pictures_from_before_a_restart_are_seen(lesson):
    pictures = [shown(7)]
    lesson.begin("mug", known("mug"), pictures)
    assert lesson.why_not(look_at(blocks(7)), "mug", pictures) is not None


def test_a_damaged_picture_of_before_does_not_stop_a_press(tmp_path):
    lesson = Lesson(tmp_path, lambda serial: b"\xff\xd8\xffno")
    assert lesson.begin("mug", known("mug"), [shown(1)]).name == "mug"


def test_every_fourth_press_of_a_class_is_kept_back_whole(lesson):
    pictures, parts = [], []
    for press in range(9):
        burst = lesson.begin("mug", known("mug"), pictures)
        parts.append(burst.test)
        first = 3 * press + 1
        part = "test" if burst.test else "train"
        pictures += [shown(serial, part=part, burst=first) for serial in range(first, first + 3)]
        # A press of another thing, and one that kept nothing, count for nothing.
        lesson.begin("cup", known("mug"), pictures)
        lesson.begin("mug", known("mug"), pictures)
    assert parts == [False, False, False, True, False, False, False, True, False]


def test_corrections_and_what_was_taken_back_count_for_nothing_and_closed_lessons_count_on(lesson):
    pictures = [shown(serial) for serial in (1, 2, 3)]
    assert lesson.begin("mug", known("mug"), pictures).test
    assert not lesson.begin("mug", known("mug"), pictures[:2]).test
    lesson.corrected(3, look_at(blocks(3)))
    assert not lesson.begin("mug", known("mug"), pictures).test
    pictures.append(shown(4))
    lesson.closed(pictures)
    assert lesson.begin("mug", known("mug"), []).test


def test_there_are_limits_of_classes_pictures_and_disk(lesson, monkeypatch):
    many = known(*(str(number) for number in range(200)))
    assert lesson.begin("7", many, []).name == "7"
    with pytest.raises(InputError, match="class 201 and the limit is 200"):
        lesson.begin("mug", many, [])
    full = [shown(serial) for serial in range(1, 2001)]
    with pytest.raises(InputError, match=r"2,000 pictures and the limit is 2,000"):
        lesson.begin("mug", [], full)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(1 << 40, 0, 1 << 20))
    with pytest.raises(DoesNotFitError, match="Only 1 MiB are free"):
        lesson.begin("mug", [], [])


def test_a_hostile_picture_is_an_image_error():
    huge = bytearray(blocks())
    at = huge.index(b"\xff\xc0") + 5
    huge[at : at + 4] = b"\xff\xdc\xff\xdc"
    for data in (bytes(huge), b"", b"\xff\xd8\xff", blocks()[:300]):
        with pytest.raises(ImageError):
            look_at(data)
