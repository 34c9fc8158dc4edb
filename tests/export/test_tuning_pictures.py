"""Which pictures a tuning takes: a quarter of the classes is held back, and never more than a bounded number."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from edge_zofc.errors import InputError
from edge_zofc.export import tuning_pictures
from edge_zofc.export.tuning_pictures import TO_TRAIN, TuningPictures, choose_pictures


def write(folder: Path, names: Iterable[str], count: int = 8) -> Path:
    """Class folders with ``count`` files named as pictures; none is opened."""
    for name in names:
        place = folder / name
        place.mkdir(parents=True)
        for index in range(count):
            (place / f"{index:03d}.jpg").write_bytes(b"")
    return folder


def classes(count: int, first: int = 0) -> list[str]:
    return [f"class{number:03d}" for number in range(first, first + count)]


def chosen(*folders: Path, seed: int = 1, tell: list[str] | None = None) -> TuningPictures:
    return choose_pictures(folders, seed, ([] if tell is None else tell).append)


def class_names(found: TuningPictures, held_back: bool) -> set[str]:
    mask = found.held_back[found.labels] == held_back
    return {path.parent.name for path, taken in zip(found.paths, mask, strict=True) if taken}


def test_a_quarter_of_the_classes_and_a_quarter_of_the_others_pictures_train_nothing(tmp_path: Path) -> None:
    """Of 12 classes 3 are held back, with 8 test pictures each; of the 9 others 6 of 8 pictures train."""
    found = chosen(write(tmp_path / "a" / "train", classes(12)).parent)
    assert len(class_names(found, True)) == 3
    assert len(class_names(found, False)) == 9
    held_back = found.held_back[found.labels]
    assert not (found.folds[held_back] == TO_TRAIN).any()
    assert np.bincount(found.folds[held_back]).tolist() == [6, 6, 6, 6]
    trained = [path for path, fold in zip(found.paths, found.folds, strict=True) if fold == TO_TRAIN]
    assert len(trained) == 9 * 6
    assert {path.stem for path in trained} == {f"{index:03d}" for index in range(6)}


def test_folds_are_of_neighbours_so_that_a_burst_is_not_torn_apart(tmp_path: Path) -> None:
    found = chosen(write(tmp_path / "train", classes(8)).parent)
    assert found.folds[found.labels == 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_which_classes_are_held_back_depends_on_the_seed(tmp_path: Path) -> None:
    folder = write(tmp_path / "train", classes(20)).parent
    held_back = {frozenset(class_names(chosen(folder, seed=seed), True)) for seed in (1, 1, 2, 3)}
    assert len(held_back) == 3


def test_at_least_two_classes_are_held_back(tmp_path: Path) -> None:
    assert len(class_names(chosen(write(tmp_path / "train", classes(8)).parent), True)) == 2


@pytest.mark.parametrize("count", [0, 7])
def test_too_few_classes_are_refused_in_a_sentence(tmp_path: Path, count: int) -> None:
    write(tmp_path / "train", ["small"], count=3)
    write(tmp_path / "train", classes(count))
    notes: list[str] = []
    with pytest.raises(InputError, match=rf"at least 8 classes of 4 training pictures.* found {count};"):
        chosen(tmp_path, tell=notes)
    assert notes == ["Not tuned on, for the class has fewer than 4 pictures: small."]


def test_folders_of_every_layout_are_put_together_and_a_class_of_two_is_one(tmp_path: Path) -> None:
    """With train/, bare (every fourth picture is for testing, as for split), and a stream; test/ is left alone."""
    parts = write(tmp_path / "parts" / "train", classes(4)).parent
    write(parts / "test", classes(4), count=20)
    bare = write(tmp_path / "bare", classes(4, first=3))
    stream = write(tmp_path / "stream" / "001_a" / "train", classes(3, first=7)).parent.parent
    write(stream / "002_b" / "train", classes(3, first=10))
    found = chosen(parts, bare, stream, bare)
    counts = dict[str, int]()
    for path in found.paths:
        counts[path.parent.name] = counts.get(path.parent.name, 0) + 1
        assert "test" not in path.parts
    assert counts == {**dict.fromkeys(classes(13), 8), **dict.fromkeys(classes(4, first=3), 6), "class003": 14}


def test_of_large_folders_a_bounded_number_of_pictures_is_taken_evenly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning_pictures, "MOST_PICTURES", 96)
    few = chosen(write(tmp_path / "few" / "train", classes(8), count=60).parent)
    assert np.bincount(few.labels).tolist() == [12] * 8
    assert [path.stem for path in few.paths[:12]] == [f"{5 * index:03d}" for index in range(12)]
    notes: list[str] = []
    many = chosen(write(tmp_path / "many" / "train", classes(30), count=5).parent, tell=notes)
    assert notes == ["Of 30 classes 24 are tuned on, chosen by the seed."]
    assert np.bincount(many.labels).tolist() == [4] * 24
    monkeypatch.setattr(tuning_pictures, "MOST_PICTURES", 9999)
    assert np.bincount(chosen(tmp_path / "few").labels).tolist() == [40] * 8


def test_what_is_left_out_is_told_with_its_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "train", classes(8)).parent
    (folder / "train" / "class000" / "notes.txt").write_text("x")
    notes: list[str] = []
    chosen(folder, tell=notes)
    assert len(notes) == 1
    assert notes[0].startswith(f"{folder}: ")
    assert "train/class000/notes.txt" in notes[0]


def test_no_folder_and_a_folder_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--tune .*nowhere is no folder; name a folder of train/<class>/ or <class>/"):
        chosen(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"There is no picture .* in "):
        chosen(tmp_path)


def test_pictures_that_cannot_be_read_leave_the_others(tmp_path: Path) -> None:
    found = chosen(write(tmp_path / "train", classes(8)).parent)
    left = found.without({0, 5})
    assert left.paths == found.paths[1:5] + found.paths[6:]
    assert left.labels.tolist() == found.labels[[*range(1, 5), *range(6, 64)]].tolist()
    with pytest.raises(InputError, match="--tune can read only 8 of 64 pictures; name other folders"):
        found.without(range(8, 64))
