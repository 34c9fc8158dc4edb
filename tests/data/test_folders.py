"""What lies in a folder: names are one in every Unicode form, and what is no stream is told for what it is."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from trees import grow

from edge_zofc.data.split import split_image_folder
from edge_zofc.data.stream import fingerprint, list_samples, numbered_tasks, read_stream
from edge_zofc.errors import InputError

NFC, NFD = (unicodedata.normalize(form, "001_Caf\u00e9") for form in ("NFC", "NFD"))


def test_a_tasks_name_is_one_in_both_unicode_forms(tmp_path: Path) -> None:
    """FAULTS A3: a stream that was copied through a file system that changes the form."""
    grow(tmp_path, f"{NFD}/train/e\u0301cu/1.jpg", f"{NFD}/train/zoo/1.jpg")
    stream = read_stream(tmp_path, ["\u00e9cu"], only={NFC}, learnt={NFC: [0]})
    assert [task.name for task in stream.tasks] == [NFC]
    assert stream.tasks[0].class_ids == (0,)
    assert list(numbered_tasks(tmp_path)) == [NFC]


def test_two_folders_of_one_task_are_refused(tmp_path: Path) -> None:
    """FAULTS A3: one would shadow the other."""
    grow(tmp_path, f"{NFC}/train/ball/1.jpg", f"{NFD}/train/cup/1.jpg")
    with pytest.raises(InputError, match=r"two folders for the task 001_Caf\u00e9, .*; put them together"):
        read_stream(tmp_path)


def test_order_and_fingerprint_do_not_depend_on_the_unicode_form(tmp_path: Path) -> None:
    """FAULTS A3: in NFD an accented letter sorts before z, in NFC behind it; a half learnt task must go on."""
    found = []
    for form in ("NFC", "NFD"):
        names = ("\u00e9cu/\u00fc.png", "\u00e9cu/z.png", "zoo/1.png")
        root = grow(tmp_path / form, *(f"001_a/train/{unicodedata.normalize(form, name)}" for name in names))
        stream = read_stream(root)
        paths = [sample.path.relative_to(root) for sample in list_samples(stream, stream.tasks[0], "train")]
        listed = [unicodedata.normalize("NFC", str(path)) for path in paths]
        found.append((stream.class_names, listed, fingerprint(stream, stream.tasks[0])))
    assert found[0] == found[1]


def test_a_file_where_a_folder_belongs_is_named_with_the_way_out(tmp_path: Path) -> None:
    """FAULTS A9: "cannot be listed (Not a directory)" said neither what is wrong nor what to do."""
    grow(tmp_path, "001_a/train/ball/1.jpg", "001_a/test")
    with pytest.raises(InputError, match=r"001_a/test is a file where a folder belongs; rename it or take it away"):
        read_stream(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("JPEGImages/1.jpg", "Annotations/1.xml", "ImageSets/Main/train.txt"),
        ("train2017/1.jpg", "val2017/2.jpg", "annotations/instances.json"),
        ("images/train/1.jpg", "images/val/1.jpg", "labels/train/1.txt", "data.yaml"),
    ],
)
def test_a_detection_data_set_is_told_as_one_by_learn_and_by_split(tmp_path: Path, names: tuple[str, ...]) -> None:
    """FAULTS A9: learn sent a person to split, which refused; VOC, COCO and YOLO."""
    grow(tmp_path / "set", *names)
    with pytest.raises(InputError, match="detection data set") as found:
        read_stream(tmp_path / "set")
    assert "edge-zofc split" not in str(found.value)
    with pytest.raises(InputError, match="detection data set"):
        split_image_folder(tmp_path / "set", tmp_path / "out", 1)
