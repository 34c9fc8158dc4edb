"""The commands of a fleet as a user meets them, and the others on a fleet's folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnxruntime as ort
import pytest
from runs import go
from small import picture, write_small_stream
from typed import run

from edge_zofc.storage.bundle import Bundle


@pytest.fixture(scope="module")
def home(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stream of two tasks, and two runs that have learnt one each; the second has a class of 3 pictures, too."""
    home = tmp_path_factory.mktemp("fleet")
    stream = write_small_stream(home / "stream", tasks=2)
    for number in range(2):
        own = home / f"stream{number}"
        shutil.copytree(stream / f"{number:03d}_task", own / "000_task")
        if number:
            rare = own / "000_task/train/rare"
            rare.mkdir()
            for index in range(3):
                picture(7, index).save(rare / f"{index}.png")
        go(small_bundle, own, home / f"run{number}", changes={"adapter": "off"})
    return home


def test_a_fleet_from_its_shares_to_its_model(
    home: Path, small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, fleet = [tmp_path / f"d{number}.share" for number in range(2)], tmp_path / "fleet"
    for number, path in enumerate(paths):
        assert run("fleet", "share", home / f"run{number}", "-o", path) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "Left out, with fewer than 8 pictures: rare (3)."
    assert "never a picture." in told[-2] and "class names" in told[-2]
    assert [line.split() for line in told[-5:-2]] == [["pictures", "class"], ["8", "class02"], ["8", "class03"]]
    assert run("fleet", "merge", small_bundle.folder, *paths, "-o", fleet) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{fleet}: 2 devices, 4 classes, 32 pictures"

    assert run("eval", fleet, "--stream", home / "stream", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["unknown_classes"] == [] and found["accuracy"] is not None
    images = sorted((home / "stream/001_task/test/class03").iterdir())
    assert run("predict", fleet, *images, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 4
    assert run("report", fleet) == 0
    assert "2 devices, 4 classes, 32 pictures" in capsys.readouterr().out
    assert (fleet / "report.html").stat().st_size > 1000
    assert run("deploy", fleet, tmp_path / "out.onnx") == 0
    session = ort.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
    assert labels == ["class00", "class01", "class02", "class03"]

    assert run("fleet", "revoke", fleet, "d1") == 0
    assert run("fleet", "merge", small_bundle.folder, *paths, "-o", fleet, "--json") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(one["device"], one["fate"]) for one in found["given"]] == [
        ("d0", "the same"),
        ("d1", "revoked, not taken"),
    ]
    assert [one["name"] for one in found["classes"]] == ["class00", "class01"]
    assert run("fleet", "revoke", fleet, "d1", "--undo") == 0


def test_the_name_of_a_device_is_that_of_its_file_unless_it_is_given(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    for words, name in (((), "yard"), (("--name", "gate-2"), "gate-2")):
        assert run("fleet", "share", home / "run0", "-o", tmp_path / "yard.share", "--json", *words) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["device"], found["classes"], found["left_out"]) == (name, {"class00": 8, "class01": 8}, {})
        assert found["bytes"] == (tmp_path / "yard.share").stat().st_size
    assert run("fleet", "share", home / "run0", "-o", tmp_path / "a b.share") == 2
    assert "cannot be the name of a device" in capsys.readouterr().err


def test_what_is_no_fleet_is_told_in_one_sentence(
    home: Path, small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no.share").write_bytes(b"no share")
    assert run("fleet", "merge", small_bundle.folder, tmp_path / "no.share", "-o", tmp_path / "fleet") == 5
    assert run("fleet", "merge", small_bundle.folder, tmp_path / "none.share", "-o", tmp_path / "fleet") == 2
    assert run("fleet", "revoke", home / "run0", "d1") == 2
    assert run("fleet", "share", tmp_path, "-o", tmp_path / "d.share") == 2
    assert run("fleet", "share", home / "run0", "-o", home / "run0/journal.bin") == 2
    assert len(capsys.readouterr().err.splitlines()) == 5
    assert run("fleet") == 2
