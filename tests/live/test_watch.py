"""The child that learns what was kept."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest

from edge_zofc.live import watch as module
from edge_zofc.live.watch import NoWatch, Watch, learn_command


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def made(tmp_path, clock):
    """Makes watches of a shell script, and ends them."""
    found = []

    def make(script):
        watch = Watch(("/bin/sh", "-c", script), tmp_path / "tasks", clock)
        found.append(watch)
        return watch

    yield make
    for watch in found:
        watch.stop()


@pytest.fixture
def lesson(tmp_path):
    (tmp_path / "tasks" / "001_lesson").mkdir(parents=True)


def until(condition, watch, seconds=10.0):
    limit = time.monotonic() + seconds
    while not condition(watch):
        assert time.monotonic() < limit, watch.sentence()
        watch.tend()
        time.sleep(0.01)


def test_nothing_is_started_before_a_lesson_was_kept(tmp_path, made):
    watch = made("echo >&2 hello; sleep 60")
    watch.tend()
    assert "keep a lesson" in watch.sentence() and watch.memory_mib() is None
    (tmp_path / "tasks" / ".001_lesson").mkdir(parents=True)  # half made
    watch.tend()
    assert "keep a lesson" in watch.sentence()
    (tmp_path / "tasks" / "001_lesson").mkdir()
    until(lambda w: w.sentence() == "hello", watch)
    assert watch.memory_mib() >= 0


def test_the_sentence_of_a_learner_that_waits_names_no_folder(made, lesson):
    watch = made("echo >&2 Waiting for task folders in /home/me/run/lesson/tasks.; sleep 60")
    until(lambda w: w.sentence() == "Waiting for the next lesson.", watch)


def test_the_last_line_is_told_as_text(made, lesson):
    watch = made(r"printf 'a\nlearning \033[31mtask\nb\n' >&2; sleep 60")
    until(lambda w: w.sentence() == "b", watch)
    watch = made(r"printf 'learning \033[31mtask\n' >&2; sleep 60")
    until(lambda w: "task" in w.sentence(), watch)
    assert watch.sentence().isprintable()


def test_stop_lets_the_child_end_in_order(tmp_path, made, lesson):
    watch = made(f"trap 'echo saved > {tmp_path}/saved; exit 143' TERM; echo >&2 ready; while :; do sleep 0.05; done")
    until(lambda w: w.sentence() == "ready", watch)
    watch.stop()
    assert (tmp_path / "saved").read_text() == "saved\n"
    assert watch.memory_mib() is None
    watch.stop()


def test_a_child_that_does_not_end_is_killed(made, lesson, monkeypatch):
    monkeypatch.setattr(module, "END_SECONDS", 0.3)
    watch = made("trap '' TERM; echo >&2 ready; while :; do sleep 0.05; done")
    until(lambda w: w.sentence() == "ready", watch)
    pid = watch._child.pid
    watch.stop()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_killed_child_is_started_again_after_growing_pauses(made, lesson, clock, tmp_path):
    watch = made(f"echo x >> {tmp_path}/starts; echo >&2 ready; kill -9 $$")
    for start, pause in enumerate((2, 4, 8), 1):
        until(lambda w: "killed by signal 9" in w.sentence(), watch)
        clock.now += pause - 1
        watch.tend()
        assert (tmp_path / "starts").read_text() == "x\n" * start
        clock.now += 1
        watch.tend()


def test_a_child_that_refuses_is_tried_again_with_the_next_lesson_alone(made, lesson, clock, tmp_path):
    watch = made(f"echo x >> {tmp_path}/starts; echo >&2 'It does not fit.'; exit 3")
    until(lambda w: w.sentence() == "The learner ended: It does not fit.", watch)
    clock.now += 1000
    watch.tend()
    assert (tmp_path / "starts").read_text() == "x\n"
    (tmp_path / "tasks" / "002_lesson").mkdir()
    watch.tend()
    until(lambda w: w.sentence() == "The learner ended: It does not fit.", watch)
    assert (tmp_path / "starts").read_text() == "x\nx\n"


def test_a_run_that_another_process_learns_is_waited_for(made, lesson, clock, tmp_path):
    watch = made(f"echo x >> {tmp_path}/starts; echo >&2 'run is in use by process 7; wait until it ends.'; exit 2")
    until(lambda w: "in use by process 7" in w.sentence() and w.memory_mib() is None, watch)
    clock.now += 2
    watch.tend()
    until(lambda w: "in use by process 7" in w.sentence() and w.memory_mib() is None, watch)
    assert (tmp_path / "starts").read_text() == "x\nx\n"


def test_the_child_does_not_inherit_the_soft_limit_of_memory(made, lesson, tmp_path):
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, hard))
    watch = made(f"ulimit -S -d > {tmp_path}/limit; echo >&2 ready; sleep 60")
    until(lambda w: w.sentence() == "ready", watch)
    assert (tmp_path / "limit").read_text().strip() == "unlimited"


def test_the_child_ends_when_this_process_is_killed(tmp_path, lesson):
    script = (
        "import sys, time; from pathlib import Path; from edge_zofc.live.watch import Watch\n"
        f"watch = Watch(('/bin/sh', '-c', 'echo $$ > {tmp_path}/pid; sleep 60'), Path('{tmp_path}/tasks'))\n"
        "watch.tend(); time.sleep(60)"
    )
    parent = subprocess.Popen((sys.executable, "-c", script))
    limit = time.monotonic() + 20
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < limit
        time.sleep(0.02)
    pid = int((tmp_path / "pid").read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_the_command_is_learn_watch_on_the_lessons_tasks(tmp_path):
    words = learn_command(tmp_path, tmp_path / "lesson" / "tasks")
    assert words[1:5] == ["-m", "edge_zofc", "learn", "--watch"]
    assert words[5:] == ["--stream", str(tmp_path / "lesson" / "tasks"), "--run", str(tmp_path)]


def test_without_a_learner_that_is_said():
    watch = NoWatch()
    watch.tend()
    watch.stop()
    assert "--no-learn" in watch.sentence() and watch.memory_mib() is None
