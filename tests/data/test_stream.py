"""Streams: small trees one can see through, orders that never change, and folders nobody checked."""

from __future__ import annotations

import json
import os
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import grow, names_of

from edge_zofc.algorithm.directions import batches
from edge_zofc.data import stream
from edge_zofc.data.split import split_image_folder
from edge_zofc.data.stream import Sample, fingerprint, list_samples, read_stream
from edge_zofc.errors import InputError

# --- trees one can see through


def test_ids_are_given_in_order_of_first_appearance_and_a_returning_class_keeps_its_own(tmp_path: Path) -> None:
    grow(
        tmp_path,
        "002_later/train/bee/1.jpg",
        "002_later/train/ant/2.jpg",
        "001_first/train/cat/1.jpg",
        "001_first/train/ant/1.PNG",
        "001_first/test/cat/9.webp",
        "010_last/train/cat/3.JpEg",
    )
    stream = read_stream(tmp_path)
    assert stream.class_names == ("ant", "cat", "bee")
    assert [task.name for task in stream.tasks] == ["001_first", "002_later", "010_last"]
    assert [task.index for task in stream.tasks] == [0, 1, 2]
    assert [task.class_ids for task in stream.tasks] == [(0, 1), (0, 2), (1,)]
    assert stream.notes == ()


def test_tasks_are_ordered_by_number_and_then_by_name(tmp_path: Path) -> None:
    order = ["2_b", "09_a", "9_b", "10_a", "0100_x"]
    grow(tmp_path, *(f"{name}/train/a/1.jpg" for name in order))
    assert [task.name for task in read_stream(tmp_path).tasks] == order


def test_known_classes_keep_their_ids_even_when_they_are_gone(tmp_path: Path) -> None:
    grow(tmp_path, "001_a/train/new/1.jpg", "001_a/train/old/1.jpg")
    stream = read_stream(tmp_path, ["gone", "old"])
    assert stream.class_names == ("gone", "old", "new")
    assert stream.tasks[0].class_ids == (1, 2)
    with pytest.raises(ValueError, match="twice"):
        read_stream(tmp_path, ["old", "old"])


def test_a_bare_tree_is_one_task_named_after_its_folder(tmp_path: Path) -> None:
    root = grow(tmp_path / "fruit", "train/a/1.jpg", "test/a/2.jpg", "val/a/3.jpg")
    stream = read_stream(root)
    (task,) = stream.tasks
    assert (task.index, task.name, task.folder) == (0, "fruit", root)
    assert names_of(list_samples(stream, task, "test")) == ["2.jpg"]
    assert stream.notes == ("fruit: not used, for only train and test are: val.",)


def test_samples_come_by_class_and_name_and_a_missing_test_folder_is_no_sample(tmp_path: Path) -> None:
    grow(tmp_path, "001_a/train/b/2.jpg", "001_a/train/b/10.jpg", "001_a/train/a/7.jpg", "001_a/train/a/.x.jpg")
    stream = read_stream(tmp_path, ["b"])
    folder = tmp_path / "001_a" / "train"
    assert list_samples(stream, stream.tasks[0], "train") == [
        Sample(folder / "a" / "7.jpg", 1),
        Sample(folder / "b" / "10.jpg", 0),
        Sample(folder / "b" / "2.jpg", 0),
    ]
    assert list_samples(stream, stream.tasks[0], "test") == []


def test_everything_left_out_is_named(tmp_path: Path) -> None:
    grow(
        tmp_path,
        ".hidden/",
        "extra/",
        "class_order.json",
        "001_a/train/a/1.jpg",
        "001_a/train/a/labels.txt",
        "001_a/train/a/deeper/2.jpg",
        "001_a/train/loose.jpg",
        "001_a/train/empty/",
        "001_a/test/unseen/1.jpg",
        "001_a/val/a/1.jpg",
    )
    stream = read_stream(tmp_path)
    assert stream.class_names == ("a", "unseen")
    text = " ".join(sorted(stream.notes))
    assert stream.notes[0] == "Not used, for the name is not NNN_name: extra."
    for words in (
        "train/loose.jpg",
        "train/a/labels.txt",
        "train/a/deeper",
        "holds no picture: empty.",
        "class with test pictures only: unseen.",
        "only train and test are: val.",
    ):
        assert words in text
    assert len(stream.notes) == 7


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "no task in"),
        (("a/1.jpg",), "no task in"),
        (("test/a/1.jpg",), "no task in"),
        (("001_a/test/a/1.jpg",), "001_a has no picture"),
        (("001_a/train/a/", "002_b/train/a/1.jpg"), "001_a has no picture"),
        (("001_a/train/a/1.heic",), "001_a has no picture"),
        (("train/a/notes.txt",), "has no picture"),
    ],
)
def test_a_folder_that_is_no_stream_gets_a_sentence(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_stream(grow(tmp_path, *names))


def test_a_missing_stream_says_what_a_stream_looks_like(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"NNN_name/train/<class>/\*\.jpg"):
        read_stream(tmp_path / "nowhere")
    with pytest.raises(InputError, match="There is no stream"):
        read_stream(grow(tmp_path, "file") / "file")


def test_what_is_left_out_of_a_class_is_counted_by_suffix_and_sub_folder(tmp_path: Path) -> None:
    """FAULTS A1: nothing that a person put into a folder disappears without a word."""
    taken = [f"001_a/train/a/1.{s}" for s in ("jpg", "JFIF", "bmp", "gif", "tif", "tiff", "avif", "webp", "png")]
    left = ["001_a/train/a/1.heic", "001_a/train/a/2.HEIC", "001_a/train/a/x.txt"]
    deep = [f"001_a/train/a/deep/er/{i}.jpg" for i in range(7)]
    grow(tmp_path, *taken, *left, *deep, "photo.jpg")
    (tmp_path / "002_gone").symlink_to("nowhere")
    stream = read_stream(tmp_path)
    assert len(list_samples(stream, stream.tasks[0], "train")) == len(taken)
    text = " ".join(stream.notes)
    for words in ("(2 .heic, 1 .txt)", "HEIC pictures to JPEG", "train/a/deep (7 pictures)", "photo.jpg", "002_gone"):
        assert words in text, words


# --- batches


@given(st.integers(0, 300), st.integers(1, 70), st.integers(-(2**64), 2**64), st.integers(0, 99))
def test_an_epoch_is_a_permutation_in_full_batches_but_the_last(
    count: int, batch_size: int, seed: int, epoch: int
) -> None:
    found = batches(count, batch_size, seed, 3, epoch)
    assert sorted(np.concatenate([*found, np.array([], np.int64)]).tolist()) == list(range(count))
    assert all(len(batch) == batch_size for batch in found[:-1])
    assert all(1 <= len(batch) <= batch_size and batch.dtype == np.int64 for batch in found)


def test_the_order_of_a_known_epoch_never_changes() -> None:
    """Golden values: a run resumed with another numpy must go on in the same order."""
    assert [batch.tolist() for batch in batches(10, 4, 1993, 2, 5)] == [[9, 4, 6, 5], [8, 2, 1, 7], [0, 3]]
    assert batches(10, 4, 1993, 2, 5)[0].tolist() == batches(10, 4, 1993 + 2**64, 2, 5)[0].tolist()


def test_seed_task_and_epoch_each_change_the_order() -> None:
    orders = {tuple(batches(50, 50, *key)[0]) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(orders) == 4


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="batch size is 0"):
        batches(10, 0, 0, 0, 0)


def test_every_place_is_equally_likely() -> None:
    """The mean place of picture 0 over 400 epochs of 9 lies within four standard errors of 4."""
    places = [int(np.argmin(batches(9, 9, 7, 0, epoch)[0])) for epoch in range(400)]
    assert abs(np.mean(places) - 4) < 4 * np.sqrt(80 / 12 / 400)


# --- fingerprint


def test_a_fingerprint_changes_with_names_and_sizes_and_with_nothing_else(tmp_path: Path) -> None:
    grow(tmp_path, "001_a/train/a/1.jpg", "001_a/test/a/2.jpg", "002_b/train/a/1.jpg")

    def now() -> str:
        stream = read_stream(tmp_path)
        return fingerprint(stream, stream.tasks[0])

    first = now()
    grow(tmp_path, "001_a/train/a/notes.txt", "002_b/train/a/5.jpg")
    assert now() == first
    (tmp_path / "001_a/train/a/1.jpg").write_bytes(b"larger picture")
    second = now()
    (tmp_path / "001_a/test/a/2.jpg").rename(tmp_path / "001_a/test/a/3.jpg")
    third = now()
    assert len({first, second, third}) == 3
    (tmp_path / "001_a").rename(tmp_path / "001_b")
    assert now() == third


# --- folders nobody checked


def test_pipes_and_devices_are_no_pictures_and_links_to_nowhere_are_unreadable_ones(tmp_path: Path) -> None:
    """FAULTS A2: a broken link is a picture that cannot be read, and it is named."""
    folder = grow(tmp_path, "001_a/train/a/good.jpg") / "001_a" / "train" / "a"
    os.mkfifo(folder / "pipe.jpg")
    for name, target in {"zero": "/dev/zero", "loop": "loop.jpg", "gone": "nowhere", "up": ".."}.items():
        (folder / f"{name}.jpg").symlink_to(target)
    (folder / "linked.jpg").symlink_to("good.jpg")
    stream = read_stream(tmp_path)
    names = names_of(list_samples(stream, stream.tasks[0], "train"))
    assert names == ["gone.jpg", "good.jpg", "linked.jpg", "loop.jpg"]
    broken, foreign, deeper = stream.notes
    assert "broken link: train/a/gone.jpg, train/a/loop.jpg." in broken
    assert "cp -rL" in broken and "--copy" in broken
    assert "(2 .jpg): train/a/" in foreign and "pipe.jpg" in foreign and "zero.jpg" in foreign
    assert "train/a/up.jpg" in deeper


def test_a_link_cycle_of_folders_ends(tmp_path: Path) -> None:
    grow(tmp_path, "001_a/train/a/1.jpg")
    (tmp_path / "001_a" / "train" / "again").symlink_to("..")
    (tmp_path / "002_again").symlink_to("001_a")
    stream = read_stream(tmp_path)
    assert stream.class_names == ("a",)
    assert len(stream.tasks) == 2


def test_names_that_are_not_utf8_are_shown_with_backslashes_and_can_be_read(tmp_path: Path) -> None:
    grow(tmp_path, os.fsdecode(b"001_\xff\n/train/caf\xe9/\xfe.jpg"))
    stream = read_stream(tmp_path)
    assert stream.class_names == ("caf\\xe9",)
    assert stream.tasks[0].name == "001_\\xff\\n"
    json.dumps(stream.class_names).encode("utf-8")
    (sample,) = list_samples(stream, stream.tasks[0], "train")
    assert sample.path.read_bytes() == b"picture"
    assert len(fingerprint(stream, stream.tasks[0])) == 64
    split_image_folder(stream.tasks[0].folder, tmp_path / "out", 1)
    assert read_stream(tmp_path / "out").class_names == stream.class_names


def test_names_keep_their_characters_and_just_control_characters_are_escaped(tmp_path: Path) -> None:
    """FAULTS A3: joiners, U+3000 and emoji are parts of names; a terminal must survive the others."""
    real = ["\u3042\u3000\u3044", "\u0645\u06cc\u200c\u062e", "\U0001f469\u200d\U0001f680"]
    hostile = {"a\x1bb": "a\\x1bb", "c\u202ed": "c\\u202ed", "e\u2028f": "e\\u2028f"}
    grow(tmp_path, *(f"001_a/train/{name}/1.jpg" for name in (*real, *hostile)))
    stream = read_stream(tmp_path)
    assert set(stream.class_names) == {*real, *hostile.values()}
    assert len(list_samples(stream, stream.tasks[0], "train")) == 6


def test_classes_of_a_run_that_kept_other_spellings_keep_their_ids(tmp_path: Path) -> None:
    """FAULTS A3: states of earlier versions hold NFD names, and joiners as escapes."""
    nfc, nfd = (unicodedata.normalize(form, "Caf\u00e9") for form in ("NFC", "NFD"))
    grow(tmp_path, f"001_a/train/{nfc}/1.jpg", "001_a/train/a\u200db/1.jpg", "001_a/train/new/1.jpg")
    stream = read_stream(tmp_path, [nfd, "a\\u200db"])
    assert stream.class_names == (nfd, "a\\u200db", "new")
    assert stream.tasks[0].class_ids == (0, 1, 2)
    # Two ids that were given to one class stay as they are.
    grow(tmp_path, f"001_a/train/{nfd}/1.jpg")
    stream = read_stream(tmp_path, [nfc, nfd])
    assert [s.class_id for s in list_samples(stream, stream.tasks[0], "train")].count(1) == 1


def test_names_that_differ_in_letter_case_only_are_told(tmp_path: Path) -> None:
    """FAULTS A3."""
    grow(tmp_path, "001_a/train/Apple/1.jpg", "001_a/train/pear/1.jpg", "002_b/train/apple/1.jpg")
    assert read_stream(tmp_path).notes == (
        "Different classes, although their names differ in letter case only: Apple and apple.",
    )


def test_a_test_only_stream_is_read_for_evaluation(tmp_path: Path) -> None:
    """FAULTS A7: a bare tree and tasks, with just test pictures."""
    for root in (grow(tmp_path / "bare", "test/a/1.jpg"), grow(tmp_path / "tasks", "001_x/test/a/1.jpg")):
        stream = read_stream(root, ["a"], needs_train=False)
        assert names_of(list_samples(stream, stream.tasks[0], "test")) == ["1.jpg"]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_is_the_test_where_test_is_missing_or_empty(tmp_path: Path, name: str) -> None:
    """FAULTS A9: jetson-inference writes train, val, test (empty) and labels.txt."""
    grow(tmp_path, "train/a/1.jpg", f"{name}/a/2.jpg", "test/a/", "labels.txt")
    stream = read_stream(tmp_path)
    assert names_of(list_samples(stream, stream.tasks[0], "test")) == ["2.jpg"]
    assert any(f"{name} is used as test" in note for note in stream.notes)
    assert any("labels.txt" in note for note in stream.notes)
    split_image_folder(tmp_path, tmp_path / "out", 1)
    split = read_stream(tmp_path / "out")
    assert names_of(list_samples(split, split.tasks[0], "test")) == ["2.jpg"]


def test_the_folders_that_systems_make_are_no_classes(tmp_path: Path) -> None:
    """FAULTS A9."""
    grow(tmp_path, "001_a/train/a/1.jpg", "001_a/train/$RECYCLE.BIN/2.jpg", "001_a/train/__MACOSX/3.jpg")
    stream = read_stream(tmp_path)
    assert stream.class_names == ("a",)
    assert "$RECYCLE.BIN" in stream.notes[0] and "__MACOSX" in stream.notes[0]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a/1.jpg", "b/1.jpg"), "split .* tasks'"),
        (("1.jpg",), "pictures without classes"),
        (("001_x/train/1.jpg",), "pictures without classes"),
        (("001_x/apple/1.jpg",), "split .* tasks'"),
        (("001_x/Train/apple/1.jpg",), "must be named train"),
        (("inner/train/a/1.jpg",), "Perhaps .*inner is meant"),
        (("train/images/1.jpg", "train/labels/1.txt"), "not sorted by class"),
        (("001_voc/train/JPEGImages/1.jpg",), "not sorted by class"),
    ],
)
def test_other_layouts_get_a_sentence_with_the_way_out(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    """FAULTS A9."""
    with pytest.raises(InputError, match=words):
        read_stream(grow(tmp_path, *names))


@pytest.mark.parametrize("count", [2_000, pytest.param(50_000, marks=pytest.mark.slow)])
def test_100_000_empty_files_are_listed_in_seconds(tmp_path: Path, count: int) -> None:
    folder = grow(tmp_path, "001_a/train/a/") / "001_a" / "train" / "a"
    for number in range(count):
        os.close(os.open(folder / f"{number}.jpg", os.O_CREAT | os.O_WRONLY))
        os.close(os.open(folder / f"{number}.txt", os.O_CREAT | os.O_WRONLY))
    started = time.perf_counter()
    stream = read_stream(tmp_path)
    assert len(list_samples(stream, stream.tasks[0], "train")) == count
    assert time.perf_counter() - started < 10
    assert len(stream.notes) == 1
    assert f"and {count - 3} more" in stream.notes[0]
    assert len(stream.notes[0]) < 300


def test_a_folder_that_cannot_be_listed_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tmp_path, "001_a/train/a/1.jpg")

    def refused(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(stream.os, "scandir", refused)
    with pytest.raises(InputError, match=r"cannot be listed \(Permission denied\)"):
        read_stream(tmp_path)
