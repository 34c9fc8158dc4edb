"""A folder of pictures becomes a stream whole or not at all, in the literature's class order."""

from __future__ import annotations

import errno
import json
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from photographs import PHOTOGRAPHS, REAL
from trees import grow, names_of

from edge_zofc.data.folders import PARTS
from edge_zofc.data.split import SplitSummary, split_image_folder
from edge_zofc.data.stream import list_samples, read_stream
from edge_zofc.errors import DoesNotFitError, InputError


def test_an_image_folder_becomes_a_stream_of_relative_links(tmp_path: Path) -> None:
    classes = "abcdefg"
    source = grow(
        tmp_path / "data", *(f"{part}/{c}/{i}.jpg" for part in ("train", "test") for c in classes for i in range(2))
    )
    summary = split_image_folder(source, tmp_path / "out", 3)
    assert summary == SplitSummary(tasks=3, classes=7, train_images=14, test_images=14)
    # numpy's documentation of RandomState promises these for ever.
    order = [classes[i] for i in np.random.RandomState(1993).permutation(7)]
    record = json.loads((tmp_path / "out" / "class_order.json").read_text())
    assert record["classes"] == order
    assert record["classes_per_task"] == [3, 3, 1]
    assert record["seed"] == 1993
    stream = read_stream(tmp_path / "out")
    assert [task.name for task in stream.tasks] == ["001_task", "002_task", "003_task"]
    assert [sorted(stream.class_names[i] for i in task.class_ids) for task in stream.tasks] == [
        sorted(order[:3]),
        sorted(order[3:6]),
        order[6:],
    ]
    link = next((tmp_path / "out" / "001_task" / "train").glob("*/0.jpg"))
    assert not link.readlink().is_absolute()
    assert link.read_bytes() == b"picture"
    # Both folders move together and the links hold.
    (tmp_path / "moved").mkdir()
    for name in ("data", "out"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    moved = read_stream(tmp_path / "moved" / "out")
    assert len(list_samples(moved, moved.tasks[0], "train")) == 6


def test_a_split_counts_what_it_leaves_out(tmp_path: Path) -> None:
    """FAULTS A1: pictures in a sub-folder, of another suffix or behind a broken link are counted by reason."""
    names = [f"a/{i}.jfif" for i in range(4)] + [f"a/deep/{i}.jpg" for i in range(5)] + ["a/1.heic", "b/1.jpg", "x.jpg"]
    source = grow(tmp_path / "data", *names)
    (source / "b" / "2.jpg").symlink_to("nowhere")
    (source / "c").symlink_to("nowhere")
    summary = split_image_folder(source, tmp_path / "out", 2)
    assert (summary.classes, summary.train_images, summary.test_images) == (2, 4, 1)
    text = " ".join(summary.notes)
    for words in ("a/deep (5 pictures)", "(1 .heic): a/1.heic", "x.jpg", "broken link: c, b/2.jpg."):
        assert words in text, text


@pytest.mark.parametrize("can_link", [True, False])
def test_a_copied_split_stands_on_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_link: bool) -> None:
    """FAULTS A2: hard links where the file system has them, copies elsewhere."""
    source = grow(tmp_path / "data", "train/a/1.jpg", "train/a/3.jpg", "test/a/2.jpg")
    (source / "train" / "a" / "3.jpg").unlink()
    (source / "train" / "a" / "3.jpg").symlink_to("1.jpg")

    def refused(old: Path, new: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    if not can_link:
        monkeypatch.setattr(os, "link", refused)
    split_image_folder(source, tmp_path / "out", 1, copy=True)
    shutil.rmtree(source)
    stream = read_stream(tmp_path / "out")
    samples = [sample for part in PARTS for sample in list_samples(stream, stream.tasks[0], part)]
    assert names_of(samples) == ["1.jpg", "3.jpg", "2.jpg"]
    assert all(s.path.read_bytes() == b"picture" and not s.path.is_symlink() for s in samples)


def test_two_folders_of_one_class_are_joined_and_no_picture_is_lost(tmp_path: Path) -> None:
    """FAULTS A3: NFC and NFD folders of one name, side by side, with pictures of the same name."""
    nfc, nfd = (unicodedata.normalize(form, "Caf\u00e9") for form in ("NFC", "NFD"))
    source = grow(tmp_path / "data", f"train/{nfc}/1.jpg", f"train/{nfd}/1.jpg", f"test/{nfd}/1.jpg")
    summary = split_image_folder(source, tmp_path / "out", 1)
    assert (summary.classes, summary.train_images, summary.test_images) == (1, 2, 1)
    stream = read_stream(tmp_path / "out")
    assert names_of(list_samples(stream, stream.tasks[0], "train")) == ["1-2.jpg", "1.jpg"]
    assert all(s.path.read_bytes() == b"picture" for s in list_samples(stream, stream.tasks[0], "train"))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("JPEGImages/1.jpg", "Annotations/1.xml"), "not sorted by class"),
        (("train2017/1.jpg", "val2017/1.jpg"), "not sorted by class"),
        (("1.jpg", "2.jpg"), "pictures without classes"),
        (("train/1.jpg",), "pictures without classes"),
        (("Train/a/1.jpg", "Test/a/1.jpg"), "must be named train"),
        (("a/1.heic",), "1 .heic"),
    ],
)
def test_a_folder_that_cannot_be_split_gets_the_way_out(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    """FAULTS A9: detection layouts, and folders without classes."""
    with pytest.raises(InputError, match=words):
        split_image_folder(grow(tmp_path / "data", *names), tmp_path / "out", 1)


def test_the_class_order_of_seed_1993_is_the_literatures() -> None:
    """iCaRL's descendants, PILOT among them, learn CIFAR-100 in this order."""
    assert np.random.RandomState(1993).permutation(100)[:8].tolist() == [68, 56, 78, 8, 23, 84, 90, 65]


def test_a_list_gives_each_task_its_number_of_classes(tmp_path: Path) -> None:
    source = grow(tmp_path / "data", *(f"train/{c}/1.jpg" for c in "abcde"))
    split_image_folder(source, tmp_path / "out", [1, 3, 1])
    assert [len(task.class_ids) for task in read_stream(tmp_path / "out").tasks] == [1, 3, 1]


def test_every_fourth_picture_of_a_bare_image_folder_is_for_testing(tmp_path: Path) -> None:
    source = grow(tmp_path / "data", *(f"a/{i}.jpg" for i in range(9)), "b/0.jpg")
    summary = split_image_folder(source, tmp_path / "out", 2)
    assert (summary.train_images, summary.test_images) == (8, 2)
    stream = read_stream(tmp_path / "out")
    assert names_of(list_samples(stream, stream.tasks[0], "test")) == ["3.jpg", "7.jpg"]


def test_links_are_right_when_source_and_target_are_reached_through_links(tmp_path: Path) -> None:
    grow(tmp_path / "deep" / "down" / "data", "train/a/1.jpg")
    (tmp_path / "data").symlink_to("deep/down/data")
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "near").symlink_to("far/away")
    split_image_folder(tmp_path / "data", tmp_path / "near" / "out", 1)
    stream = read_stream(tmp_path / "near" / "out")
    assert list_samples(stream, stream.tasks[0], "train")[0].path.read_bytes() == b"picture"


def test_a_class_without_train_pictures_is_left_out_of_a_split_and_noted(tmp_path: Path) -> None:
    source = grow(tmp_path / "data", "train/a/1.jpg", "train/empty/", "test/unseen/1.jpg", "val/a/1.jpg")
    summary = split_image_folder(source, tmp_path / "out", 5)
    assert (summary.classes, summary.test_images) == (1, 0)
    assert summary.notes[0] == "Not used, for the class has no train picture: empty, unseen."
    assert "val" in summary.notes[1]


@pytest.mark.parametrize("counts", [0, -1, [1, 1], [2, 2], [3, 0], [], [4, -1]])
def test_counts_that_do_not_cover_the_classes_are_refused(tmp_path: Path, counts: int | list[int]) -> None:
    source = grow(tmp_path / "data", *(f"train/{c}/1.jpg" for c in "abc"))
    with pytest.raises(InputError, match="at least 1"):
        split_image_folder(source, tmp_path / "out", counts)
    assert not (tmp_path / "out").exists()


def test_a_split_never_overwrites_and_never_leaves_a_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = grow(tmp_path / "data", *(f"train/{c}/1.jpg" for c in "abc"))
    grow(tmp_path, "taken/")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("taken", "dangling", "data"):
        with pytest.raises(InputError, match="exists already"):
            split_image_folder(source, tmp_path / name, 1)
    with pytest.raises(InputError, match="cannot be written"):
        split_image_folder(source, tmp_path / "no" / "parent", 1)
    with pytest.raises(InputError, match="seed"):
        split_image_folder(source, tmp_path / "out", 1, seed=-1)
    with pytest.raises(InputError, match="There is no folder"):
        split_image_folder(tmp_path / "nowhere", tmp_path / "out", 1)
    with pytest.raises(InputError, match="There is no picture"):
        split_image_folder(tmp_path / "taken", tmp_path / "out", 1)
    made = []

    def fails_at_the_third(self: Path, target: Path) -> None:
        made.append(target)
        if len(made) == 3:
            raise OSError(28, "No space left on device")

    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.setattr(Path, "symlink_to", fails_at_the_third)
    with pytest.raises(DoesNotFitError, match="No space left"):
        split_image_folder(source, tmp_path / "out", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(("source", "per_task"), [(PHOTOGRAPHS, 2), (REAL, 9)])
def test_real_pictures_split_into_tasks_without_loss(source: Path, per_task: int, tmp_path: Path) -> None:
    """81 classes in 9 tasks where the grocery pictures are; the package's 8 in any case."""
    classes = len(list((source / "train").iterdir()))
    assert classes in (8, 81)
    summary = split_image_folder(source, tmp_path / "out", per_task)
    stream = read_stream(tmp_path / "out")
    assert (summary.tasks, summary.classes, len(stream.class_names)) == (-(-classes // per_task), classes, classes)
    counts = [sum(len(list_samples(stream, task, part)) for task in stream.tasks) for part in ("train", "test")]
    assert counts == [summary.train_images, summary.test_images]
