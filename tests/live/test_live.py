"""``edge-zofc live`` as a process: from the address it prints to the signal that ends it."""

from __future__ import annotations

import json
import re
import signal
import time

import pytest
from live_process import Process, started
from pictures import blocks

from edge_zofc.cli.main import main
from edge_zofc.device.teaching_plan import teaching_plan
from edge_zofc.engine import begin
from edge_zofc.live import live
from edge_zofc.live.guard import Guard, Listen
from edge_zofc.live.live import address_of
from edge_zofc.storage.run_folder import RunFolder


def test_a_lesson_is_kept_over_a_kill_and_learnt_by_the_child(small_bundle, tmp_path):
    words = ("--camera", "browser", "--run", tmp_path / "run", "--bundle", small_bundle.folder)
    with started(*words) as process:
        page = Process(process)
        page.show("mug", range(3), 3)
        page.show("cup", range(10, 13), 6)
        process.kill()
        process.wait()
    with started(*words) as process:
        page = Process(process)
        assert [name for _, name, _, _ in page.pictures()] == ["mug"] * 3 + ["cup"] * 3
        assert page.post("/api/done") == {"task": "001_lesson"}
        until = time.monotonic() + 120
        run = RunFolder(tmp_path / "run")
        while not (tmp_path / "run" / "result.json").exists():
            assert time.monotonic() < until
            time.sleep(0.2)
        learner = json.loads((tmp_path / "run" / "result.json").read_text())
        assert sorted(learner["class_names"]) == ["cup", "mug"] and run.latest() is not None
        assert page.end(signal.SIGTERM) == 143
        assert "Traceback" not in process.stderr.read()
    assert main(["predict", str(tmp_path / "run"), str(next((tmp_path / "run/lesson/tasks").rglob("*.jpg")))]) == 0


def test_the_memory_is_planned_once_with_the_page_and_held(small_bundle, tmp_path, monkeypatch):
    planned, held = [], []
    monkeypatch.setattr(begin, "teaching_plan", lambda *words: planned.append(words) or teaching_plan(*words))
    monkeypatch.setattr(live, "enforce", held.append)
    request = live.LiveRequest("browser", None, tmp_path / "run", small_bundle.folder, "127.0.0.1:0")
    learner, limits = live.open_learner(request)
    learner.close()
    assert [words[-1] for words in planned] == [True]
    assert [plan.budget_bytes >> 20 for plan in held] == [limits.here_mib]


def test_ctrl_c_ends_it_in_order_and_pictures_of_a_folder_come(small_bundle, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(blocks())
    words = ("--camera", f"folder://{tmp_path}/pictures", "--run", tmp_path / "run", "--bundle", small_bundle.folder)
    with started(*words, "--no-learn") as process:
        page = Process(process)
        page.post("/api/record", name="a", on=True)
        until = time.monotonic() + 20
        while not page.pictures():
            assert time.monotonic() < until
            time.sleep(0.05)
        assert page.end(signal.SIGINT) == 0
        assert process.stderr.read().count("Traceback") == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--camera", "nowhere"), "is no address of a camera"),
        ((), "Give one camera"),
        (("--camera", "browser", "--listen", "8750"), "give HOST:PORT"),
        (("--camera", "browser", "--listen", "192.0.2.1:1"), "cannot be used"),
        (("--camera", "browser", "--listen", "127.0.0.1:0"), "There is no run in"),
        (("--camera", "browser", "--listen", "127.0.0.1:0", "--bundle", "none"), "no bundle in none"),
    ],
)
def test_what_cannot_be_started_is_one_sentence(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["live", *words]) == 2
    found = capsys.readouterr().err
    assert sentence in found and found.count("\n") == 1


def test_a_missing_extra_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr("edge_zofc.cli.answer.importlib.util.find_spec", lambda name: None)
    assert main(["live", "--camera", "browser"]) == 2
    assert "pip install 'edge-zofc[live]'" in capsys.readouterr().err


def test_the_address_holds_the_token_and_warns_where_others_can_listen():
    here = address_of(Guard(Listen("127.0.0.1", 8750), "secret"))
    assert here.url == "http://127.0.0.1:8750/?token=secret" and here.warning is None
    assert address_of(Guard(Listen("::1", 8750), "secret")).url == "http://[::1]:8750/?token=secret"
    everywhere = address_of(Guard(Listen("0.0.0.0", 8750), "secret"))
    assert re.fullmatch(r"http://\d+\.\d+\.\d+\.\d+:8750/\?token=secret", everywhere.url)
    assert "overheard" in everywhere.warning and "ssh -L 8750:127.0.0.1:8750" in everywhere.warning
