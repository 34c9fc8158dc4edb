"""lock.py: one process a run folder, and no crash that leaves the lock behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from edge_zofc.errors import DamagedFileError, InputError, RunLockedError
from edge_zofc.storage.lock import RunLock

HOLD = """
import sys, time, pathlib
from edge_zofc.storage.lock import RunLock
with RunLock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_lock_is_refused_and_the_first_ones_release_frees_it(tmp_path):
    with RunLock(tmp_path), pytest.raises(RunLockedError, match=f"in use by process {os.getpid()};"):
        RunLock(tmp_path)
    with RunLock(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_kill_9_of_the_holder_frees_the_lock(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(RunLockedError, match=f"in use by process {holder.pid}; wait until it ends"):
            RunLock(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with RunLock(tmp_path) as lock:
        lock.release()
        lock.release()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"-3", b"9" * 500, b"1; rm -rf"])
def test_whatever_the_lock_file_says_the_refusal_is_one_sentence(tmp_path, content):
    with RunLock(tmp_path):
        (tmp_path / "lock").write_bytes(content)
        with pytest.raises(RunLockedError, match=r"in use by (another process|process \d{1,20}); ") as caught:
            RunLock(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_lock_that_is_a_pipe_or_a_link_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "lock")
    with pytest.raises(DamagedFileError, match="not a plain file"):
        RunLock(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError):
        RunLock(tmp_path / "b")
    assert not (tmp_path / "elsewhere").exists()
