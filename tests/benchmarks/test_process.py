"""Children run in the folder and with the environment of their parent, and say how they ended."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from edge_zofc.benchmarks.process import Child, command, edge_zofc, peak_rss_bytes, run, wait_for
from edge_zofc.errors import DoesNotFitError, InputError

ECHO = "import sys, json\nfor line in sys.stdin: print(json.dumps({'heard': line.strip()}), flush=True)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_command_answers_in_json_and_takes_paths_of_the_present_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "cpu-2gib" in [profile["name"] for profile in edge_zofc("profiles")["profiles"]]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"edge-zofc report ended with exit code 2: .*here"):
        edge_zofc("report", Path("here"))


def test_how_a_child_ended_is_its_code_its_answer_and_its_last_message() -> None:
    ended = run(python("import sys; print('first'); print('{\"a\": 1}'); sys.exit('one\\ntwo')"))
    assert (ended.code, ended.answer, ended.message) == (1, {"a": 1}, "two")
    assert 0 < ended.seconds < 60
    silent = run(python(""))
    assert (silent.code, silent.answer, silent.message) == (0, {}, "")


def test_a_child_that_takes_too_long_is_killed() -> None:
    assert run(python("import time; time.sleep(60)"), 0.2).code == -signal.SIGKILL


def test_a_log_holds_both_outputs_and_threads_are_for_the_child_alone(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['OMP_NUM_THREADS'], flush=True); sys.exit('bad')"
    assert wait_for(python(code), tmp_path / "log", threads=7) == 1
    assert (tmp_path / "log").read_text() == "7\nbad\n"


def test_a_child_answers_line_after_line() -> None:
    with Child("The echo", python(ECHO)) as child:
        assert [child.ask(word) for word in ("one", "two")] == [{"heard": "one"}, {"heard": "two"}]


def test_a_child_that_has_ended_is_told_with_its_code_and_last_line() -> None:
    with (
        pytest.raises(DoesNotFitError, match=r"^The echo ended with code 3: broken$"),
        Child("The echo", python("import sys; sys.stderr.write('so\\nbroken\\n'); sys.exit(3)")) as child,
    ):
        child.ask("one")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_of_a_command_is_that_of_its_own_process() -> None:
    held = bytearray(300 << 20)
    assert 5 << 20 < peak_rss_bytes("profiles") < len(held)
    with pytest.raises(DoesNotFitError, match="'edge-zofc report' ended with 2"):
        peak_rss_bytes("report", "nothing-here")


def test_a_command_is_a_module_in_this_interpreter() -> None:
    assert command("edge_zofc", "plan", Path("a"), 3) == [sys.executable, "-m", "edge_zofc", "plan", "a", "3"]
