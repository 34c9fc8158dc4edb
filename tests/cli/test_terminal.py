"""Terminals of other encodings, closed and full streams, a reader that left. FAULTS C3."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = f"{sys.executable} -m edge_zofc"
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full and /proc")


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of sh."""
    return subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, env={**os.environ, **environment})


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_name_that_the_terminal_cannot_show_is_escaped(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "a" / "1.jpg").write_bytes(b"")
    done = shell(f"{COMMAND} split photos 虫 --classes-per-task 1", tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"\\u866b: 1 task")


@linux
@pytest.mark.parametrize("words", ["profiles", "profiles --json", "history nowhere --json"])
def test_a_full_standard_output_is_one_sentence(tmp_path: Path, words: str) -> None:
    done = shell(f"{COMMAND} {words} >/dev/full", tmp_path)
    assert done.returncode == (2 if "nowhere" in words else 3)
    if done.returncode == 3:
        assert done.stderr.startswith(b"edge-zofc: The disk is full: Standard output could not be written")
    assert len(done.stderr.splitlines()) <= 1


@pytest.mark.parametrize(("closed", "code"), [("2>&-", 2), ("1>&-", 2), ("0<&- 1>&- 2>&-", 2)])
def test_closed_streams_change_no_exit_code(tmp_path: Path, closed: str, code: int) -> None:
    assert shell(f"{COMMAND} history nowhere --json {closed}", tmp_path).returncode == code
    assert shell(f"{COMMAND} profiles {closed}", tmp_path).returncode == 0
    assert not list(tmp_path.iterdir())


@linux
def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import os, sys; from edge_zofc.cli.terminal import open_streams; open_streams(); file = open('mine', 'w')\n"
        "print('to nobody', file=sys.stderr, flush=True); os.write(2, b'from C')\n"
        "print(os.readlink('/proc/self/fd/2'), file.fileno())"
    )
    done = shell(f'{sys.executable} -c "{code}" 2>&-', tmp_path)
    assert done.stdout.split()[0] == b"/dev/null"
    assert int(done.stdout.split()[1]) > 2
    assert (tmp_path / "mine").read_bytes() == b""


def test_a_reader_that_left_is_no_error(tmp_path: Path) -> None:
    done = shell(f"{{ {COMMAND} profiles --json; echo $? >code; }} | true", tmp_path)
    assert done.stderr == b""
    assert (tmp_path / "code").read_text() == "0\n"
