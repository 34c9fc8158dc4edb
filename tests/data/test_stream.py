"""Streams: small trees one can see through, orders that never change, and folders nobody checked."""

from __future__ import annotations

import json
import os
import time
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
    assert len(stream.notes) == 5


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "no task in"),
        (("a/1.jpg",), "no task in"),
        (("test/a/1.jpg",), "no task in"),
        (("001_a/test/a/1.jpg",), "001_a has no picture"),
        (("001_a/train/a/", "002_b/train/a/1.jpg"), "001_a has no picture"),
        (("001_a/train/a/1.gif",), "001_a has no picture"),
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


def test_pipes_devices_and_links_to_nowhere_are_no_pictures(tmp_path: Path) -> None:
    folder = grow(tmp_path, "001_a/train/a/good.jpg") / "001_a" / "train" / "a"
    os.mkfifo(folder / "pipe.jpg")
    for name, target in {"zero": "/dev/zero", "loop": "loop.jpg", "gone": "nowhere", "up": ".."}.items():
        (folder / f"{name}.jpg").symlink_to(target)
    (folder / "linked.jpg").symlink_to("good.jpg")
    stream = read_stream(tmp_path)
    assert names_of(list_samples(stream, stream.tasks[0], "train")) == ["good.jpg", "linked.jpg"]
    assert "and 2 more" in stream.notes[0]


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
