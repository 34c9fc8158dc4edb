"""The commands that come before and after ``learn``, and their --json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from small import picture, write_small_stream
from typed import FAST, answer, run

from edge_zofc.engine import gate
from edge_zofc.inference.transforms import load_test
from edge_zofc.storage.bundle import Bundle


def test_learning_and_what_follows_it(
    learned: Path, small_bundle: Bundle, small_stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads((learned / "result.json").read_text())
    evaluation = answer(capsys, "eval", learned, "--stream", small_stream)
    assert evaluation["accuracy"] == result["last_accuracy"]
    history = answer(capsys, "history", learned)
    assert [task["stage_accuracy"] for task in history["tasks"]] == result["stage_accuracy"]
    own = [row[-1] for row in result["accuracy_matrix"]]
    assert [task["own_accuracy"] for task in history["tasks"]] == own
    assert run("history", learned) == 0
    assert "its own  all seen  adapter  name" in capsys.readouterr().out
    report = answer(capsys, "report", learned, "--out", tmp_path / "page.html")
    assert Path(str(report["report"])).stat().st_size > 10_000
    replayed = answer(capsys, "replay", small_bundle.folder, learned / "journal.bin", "-o", tmp_path / "a.safetensors")
    assert replayed["steps"] == result["steps"]


def test_predict_names_pictures_and_tells_of_the_ones_it_cannot_read(
    learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(0, 5).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    found = answer(capsys, "predict", learned, tmp_path / "good.png", "--top", "3")
    (prediction,) = found["predictions"]
    probabilities = [entry["probability"] for entry in prediction["classes"]]
    assert len(probabilities) == 3
    assert probabilities == sorted(probabilities, reverse=True)
    assert run("predict", learned, tmp_path / "good.png", tmp_path / "bad.jpg") == 2
    shown = capsys.readouterr().out
    assert "good.png: class0" in shown
    assert "bad.jpg" in shown


def test_deploy_gives_predicts_probabilities(
    learned: Path, small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(3, 5).save(tmp_path / "a.png")
    expected = answer(capsys, "predict", learned, tmp_path / "a.png", "--top", "6")
    assert run("deploy", learned, tmp_path / "out.onnx") == 0
    session = ort.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
    image = load_test(tmp_path / "a.png", small_bundle.manifest.image)
    (found,) = session.run(["probabilities"], {"image": image[None]})
    by_name = dict(zip(labels, np.asarray(found)[0], strict=True))
    (prediction,) = expected["predictions"]
    for entry in prediction["classes"]:
        assert by_name[entry["class_name"]] == pytest.approx(entry["probability"], abs=1e-5)


def test_deploy_int8_tells_how_many_answers_changed(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream, folder = write_small_stream(tmp_path / "stream"), tmp_path / "run"
    assert run("learn", "--bundle", small_bundle.folder, "--stream", stream, "--run", folder, *FAST) == 0
    found = answer(capsys, "deploy", folder, tmp_path / "out.onnx", "--int8")["int8"]["comparison"]
    assert (found["calibrated"], found["compared"], found["labelled"]) == (48, 24, 24)
    assert run("deploy", folder, tmp_path / "out.onnx", "--int8", "--calibrate", stream / "000_task") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "int8, calibrated on pictures of --calibrate (24)"
    assert lines[2].endswith(" of 24, on test pictures of the run's stream")
    assert lines[3].startswith("right: ")
    assert run("deploy", folder, tmp_path / "out2.onnx", "--calibrate", stream) == 2
    assert "--calibrate belongs to --int8" in capsys.readouterr().err
    assert not (tmp_path / "out2.onnx").exists()


def test_rollback_and_learning_again_end_with_the_same_result(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["learn", "--bundle", small_bundle.folder, "--stream", small_stream, "--run", tmp_path / "run"]
    assert run(*words, *FAST) == 0
    before = answer(capsys, "replay", small_bundle.folder, tmp_path / "run/journal.bin", "-o", tmp_path / "a")
    assert answer(capsys, "rollback", tmp_path / "run", "--to-task", "0")["steps"] == 2
    history = answer(capsys, "history", tmp_path / "run")
    assert (len(history["tasks"]), history["rollbacks_to"]) == (1, [0])
    assert run(*words) == 0
    after = answer(capsys, "replay", small_bundle.folder, tmp_path / "run/journal.bin", "-o", tmp_path / "b")
    assert before == after
    assert run("rollback", tmp_path / "run", "--to-task", "9") == 2


def test_the_history_tells_at_each_tasks_end_what_the_adapter_won_until_it_rests(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = iter((False, True))
    monkeypatch.setattr(gate, "is_worse", lambda first, second: next(ends))
    stream = write_small_stream(tmp_path / "stream", tasks=3, classes=4, alike=True)
    words = ["--steps", "6", "--batch-size", "8", "--queries", "2", "--adapter-lr", "0.05"]
    folders = ["--bundle", small_bundle.folder, "--stream", stream, "--run", tmp_path / "run"]
    assert run("learn", *folders, *words, "--device-profile", "cpu-2gib") == 0
    gates = [task["adapter"] for task in answer(capsys, "history", tmp_path / "run")["tasks"]]
    won = 100 * (gates[0]["right_moved"] - gates[0]["right_frozen"]) / gates[0]["held_out"]
    assert run("history", tmp_path / "run") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:4]]
    assert [row[8:-1] for row in rows] == [[f"{won:+.1f}"], ["rests"], []]


def test_history_and_summary_say_that_the_adapter_was_not_to_move(
    small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "crowding", lambda sums, counts: 0.5)
    stream = write_small_stream(tmp_path / "stream", tasks=1, classes=4, alike=True)
    words = ["--steps", "6", "--batch-size", "8", "--queries", "2", "--device-profile", "cpu-2gib"]
    assert run("learn", "--bundle", small_bundle.folder, "--stream", stream, "--run", tmp_path / "run", *words) == 0
    assert "Adapter: It stayed at its start: " in " ".join(capsys.readouterr().out.split())
    assert run("history", tmp_path / "run") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-2:] == ["stays", "000_task"]


def test_split_profiles_and_doctor(small_stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        place = tmp_path / "pictures" / f"class{number}"
        place.mkdir(parents=True)
        for index in range(4):
            picture(number, index).save(place / f"{index}.png")
    words = ["split", tmp_path / "pictures", tmp_path / "stream", "--classes-per-task"]
    assert answer(capsys, *words, "2")["tasks"] == 2
    assert run(*words, "2") == 2
    assert run("split", tmp_path / "pictures", tmp_path / "other", "--classes-per-task", "two") == 2
    assert len(answer(capsys, "profiles")["profiles"]) >= 15
    assert run("profiles", "orin-nano-8gb") == 0
    assert "verified_on_hardware = False" in capsys.readouterr().out
    assert run("profiles", "no-such-board") == 2
    capsys.readouterr()
    assert run("profiles") == 0
    listed = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert listed["name"][3] == "verified" and listed["orin-nano-8gb"][5] == "no"
    run("doctor")
    assert "CPUExecutionProvider" in capsys.readouterr().out


def test_predict_takes_folders_and_the_default_run(
    learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS C9: what is no picture is counted, and a link back to the folder is not followed for ever."""
    deep = tmp_path / "photos" / "deep"
    deep.mkdir(parents=True)
    picture(0, 0).save(deep / "a.png")
    picture(1, 0).save(tmp_path / "photos" / "b.png")
    (deep / "notes.txt").write_text("")
    (deep / "back").symlink_to(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    Path("run").symlink_to(learned)
    named = answer(capsys, "predict", learned, "photos")["predictions"]
    assert [Path(entry["image"]).name for entry in named] == ["b.png", "a.png"]
    assert answer(capsys, "predict", "photos")["predictions"] == named
    assert run("predict", "photos") == 0
    assert "notes.txt" in capsys.readouterr().err
    Path("empty").mkdir()
    assert run("predict", "empty") == 2
    assert "empty is a folder without a picture" in capsys.readouterr().err
    assert run("predict", "run") == 2
    assert "No picture is named" in capsys.readouterr().err
