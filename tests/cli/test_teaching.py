"""``teach``, ``forget``, ``rename``, ``undo``, ``lesson`` and ``predict --unknown`` as a user meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from small import picture
from typed import run

from edge_zofc.storage.bundle import Bundle


@pytest.fixture
def things(tmp_path: Path) -> Path:
    """A folder of pictures for each of three things."""
    for number, name in ((0, "mug"), (3, "pen"), (5, "cap")):
        (tmp_path / name).mkdir()
        for index in range(5):
            picture(number, index, side=64).save(tmp_path / name / f"{index}.png")
    return tmp_path


@pytest.fixture
def taught(small_bundle: Bundle, things: Path) -> Path:
    """A run that was shown two of them."""
    place = things / "run"
    for name in ("mug", "pen"):
        assert run("teach", place, name, things / name, "--bundle", small_bundle.folder) == 0
    return place


def test_a_new_run_is_begun_by_showing_pictures(capsys: pytest.CaptureFixture[str], taught: Path, things: Path) -> None:
    assert capsys.readouterr().out == (
        "5 pictures of mug learnt; known: mug\n5 pictures of pen learnt; known: mug, pen\n"
    )
    assert run("predict", taught, things / "mug" / "0.png") == 0
    assert capsys.readouterr().out.startswith(f"{things}/mug/0.png: mug ")
    assert run("teach", taught, "cap", things / "cap" / "0.png", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "cap", "serials": [11], "skipped": [], "classes": ["mug", "pen", "cap"],
    }  # fmt: skip


def test_predict_may_answer_unknown(taught: Path, things: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("predict", taught, things / "mug" / "0.png", "--unknown", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert found["unknown"] is False
    assert found["classes"][0]["class_name"] == "mug"
    assert found["likeness"] == pytest.approx(found["classes"][0]["likeness"])
    assert run("predict", taught, things / "mug" / "0.png", "--unknown") == 0
    assert f": mug, likeness {found['likeness']:.2f}\n" in capsys.readouterr().out


def test_what_is_like_nothing_is_unknown(
    taught: Path, things: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_zofc.algorithm.likeness.WITHOUT", 1.5)
    capsys.readouterr()
    assert run("predict", taught, things / "mug" / "0.png", "--unknown") == 0
    assert re.search(r": unknown \(likeness 0\.\d\d, below 1\.50; nearest mug\)\n", capsys.readouterr().out)


def test_a_class_is_renamed_forgotten_and_brought_back(taught: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("rename", taught, "mug", "cup") == 0
    assert run("forget", taught, "pen") == 0
    assert run("undo", taught) == 0
    assert run("undo", taught) == 0
    assert capsys.readouterr().out == (
        "mug is called cup; the classes are: 'cup', 'pen'\n"
        "pen is forgotten; the classes are: 'cup'\n"
        "pen is known again; the classes are: 'cup', 'pen'\n"
        "cup is called mug again; the classes are: 'mug', 'pen'\n"
    )


def test_a_lesson_is_listed_and_closed(taught: Path, things: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("teach", taught, "mug", things / "mug" / "0.png", "--test") == 0
    capsys.readouterr()
    assert run("lesson", taught) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split() for line in table[1:]] == [["mug", "0", "5", "1", "of", "1", "right"], ["pen", "0", "5"]]
    assert run("lesson", taught, "--close") == 0
    assert f"--stream {taught}/lesson/tasks" in capsys.readouterr().out
    assert sorted(path.name for path in (taught / "lesson" / "tasks" / "001_lesson").rglob("*.png")) == [
        f"{number:06d}.png" for number in range(1, 12)
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("teach", "{run}", "a/b", "{things}/mug/0.png"), "cannot be the name of a class"),
        (("teach", "{run}", "mug", "{things}/nowhere.png"), "nowhere.png cannot be read"),
        (("teach", "{run}", "mug", "{things}/empty"), "There is no picture in"),
        (("teach", "{things}/other", "mug", "{things}/mug", "--bundle", "{things}"), "There is no bundle in"),
        (("forget", "{run}", "nothing"), "There is no class 'nothing'"),
        (("forget", "{things}/nowhere", "mug"), "There is no run in"),
        (("rename", "{run}", "mug", "mug"), "is called that already"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    taught: Path, things: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    (things / "empty").mkdir()
    capsys.readouterr()
    assert run(*(word.format(run=taught, things=things) for word in words)) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1
    assert "Traceback" not in error
