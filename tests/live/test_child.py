"""The child process: what it inherits, how it ends, and that it never stays behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jpegs import child, is_running

from edge_zofc.live.child import Child

LIMIT_SECONDS = 20


def all_of(running: Child) -> bytes:
    """What the child writes until its end."""
    found, limit = b"", time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < limit:
        data = running.read(0.2)
        if data == b"":
            return found
        found += data or b""
    raise AssertionError("the child does not end")


def line_of(running: Child) -> bytes:
    """What it has written when the first line is whole."""
    found = b""
    while not found.endswith(b"\n"):
        found += running.read(LIMIT_SECONDS) or b""
    return found


def wait_until(true: Callable[[], bool], seconds: float = LIMIT_SECONDS) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_its_words_never_meet_a_shell(tmp_path: Path) -> None:
    words = ("$(touch x)", "`touch x`", "a;touch x", "a\nb", "*", "$1", "")
    with Child(child("write(repr(sys.argv[1:]).encode())", *words)) as running:
        assert all_of(running) == repr(list(words)).encode()


def test_it_gets_the_memory_that_its_parent_may_not_use() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    body = "import resource; write(repr(resource.getrlimit(resource.RLIMIT_DATA)).encode())"
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, hard))
    with Child(child(body)) as running:
        assert all_of(running) == repr((hard, hard)).encode()


def test_it_reads_nothing_and_hears_no_interrupt_of_the_terminal() -> None:
    with Child(child("write(repr((sys.stdin.read(), os.getsid(0) == os.getpid())).encode())")) as running:
        assert all_of(running) == b"('', True)"


def test_a_child_that_ends_says_why() -> None:
    with Child(child("print('first', file=sys.stderr); print('\\x1b[31mno camera  ', file=sys.stderr)")) as running:
        assert all_of(running) == b""
    assert running.reason() == "\ufffd[31mno camera"
    with Child(child("sys.exit(3)")) as running:
        all_of(running)
    assert running.reason() == "it ended with exit code 3"
    with Child(child("os.kill(os.getpid(), signal.SIGSEGV)")) as running:
        all_of(running)
    assert running.reason() == "it was ended by signal 11"


def test_of_gstreamers_many_lines_the_one_with_the_error_is_told() -> None:
    said = "ERROR: from element /GstPipeline:p/GstV4l2Src:s: Cannot identify device.\nFreeing pipeline ...\n"
    with Child(child("sys.stderr.write(sys.argv[1])", said)) as running:
        all_of(running)
    assert running.reason() == "ERROR: from element /GstPipeline:p/GstV4l2Src:s: Cannot identify device."


def test_a_program_that_cannot_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("")
    with Child((str(tmp_path / "program"),)) as running:
        all_of(running)
    assert "denied" in running.reason().lower()


def test_a_long_complaint_is_kept_short_and_does_not_stop_the_pictures() -> None:
    body = "sys.stderr.write('x' * 300_000 + '\\nlast'); write(b'picture')"
    with Child(child(body)) as running:
        assert all_of(running) == b"picture"
    assert running.reason() == "last"


def test_it_may_end_in_order_before_it_is_killed(tmp_path: Path) -> None:
    body = (
        "def leave(*a):\n    open(sys.argv[1], 'w').close(); sys.exit()\n"
        "signal.signal(signal.SIGINT, leave); write(b'\\n'); time.sleep(60)"
    )
    with Child(child(body, tmp_path / "in order")) as running:
        line_of(running)
    assert (tmp_path / "in order").exists()


STUBBORN = "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
FAMILY = STUBBORN + (
    "import subprocess\n"
    "other = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600)'])\n"
    "write(b'%d %d\\n' % (os.getpid(), other.pid)); time.sleep(600)\n"
)


def test_a_child_that_hangs_is_ended_with_its_children() -> None:
    started = time.monotonic()
    with Child(child(FAMILY)) as running:
        pids = [int(word) for word in line_of(running).split()]
        assert running.pid == pids[0]
        os.kill(pids[0], signal.SIGSTOP)
    wait_until(lambda: not any(map(is_running, pids)))
    assert time.monotonic() - started < LIMIT_SECONDS
    with pytest.raises(ChildProcessError):
        os.waitpid(running.pid, os.WNOHANG)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_child_outlives_a_parent_that_is_killed(number: signal.Signals) -> None:
    body = (
        "import sys, threading, time\nfrom edge_zofc.live.child import Child\n"
        "def run():\n    running = Child(sys.argv[1:])\n    while True: print((running.read(9) or b'').decode())\n"
        "threading.Thread(target=run, daemon=True).start(); time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-u", "-c", body, *child(FAMILY)], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(is_running, pids))
        parent.send_signal(number)
    wait_until(lambda: not any(map(is_running, pids)), 5)


def test_nothing_is_left_open() -> None:
    def opened() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = opened()
    for _ in range(3):
        with Child(child("write(b'a')")) as running:
            all_of(running)
        running.end()
    assert opened() == before


def test_process_one_of_a_container_keeps_no_zombies() -> None:
    """Orphans become children of such a process, here made a subreaper."""
    body = (
        "import ctypes, os, sys\nfrom edge_zofc.live.child import Child\n"
        "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
        "for _ in range(3):\n    with Child(('true',)) as one:\n        one.read(9)\n"
        "try:\n    print(os.waitpid(-1, os.WNOHANG))\nexcept ChildProcessError:\n    print('none')\n"
    )
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=True)
    assert done.stdout == "none\n"
