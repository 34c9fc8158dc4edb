"""A fleet's server and devices as processes of their own, which write what they tell into files."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Start = Callable[..., subprocess.Popen[str]]
"""Starts ``edge-zofc WORDS``, which writes NAME.out."""


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "edge_zofc", *map(str, words)]


def starts(home: Path) -> Iterator[Start]:
    """For a fixture: starts commands in ``home`` that write NAME.out, and ends those that are left."""
    started: list[subprocess.Popen[str]] = []

    def begin(name: str, *words: object) -> subprocess.Popen[str]:
        with (home / f"{name}.out").open("w") as out:
            process = subprocess.Popen(
                command(*words), cwd=home, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def edge_zofc(home: Path, *words: object, code: int = 0) -> str:
    """What a command printed, which ended with this code."""
    done = subprocess.run(command(*words), cwd=home, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def serve(home: Path, start: Start, *more: object) -> tuple[subprocess.Popen[str], str]:
    """The server and its address."""
    server = start("serve", "fleet", "serve", "fleet", "--bundle", "bundle", "--listen", "127.0.0.1:0", *more)
    line = wait_for(home / "serve.out", "listening on ")
    return server, line.removeprefix("listening on ")


def wait_for(path: Path, words: str, seconds: float = 280) -> str:
    """The first line of a growing file that has these words."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = [line for line in path.read_text().splitlines() if words in line]
        if found:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"{words!r} is not in {path}: {path.read_text()}")


def join(start: Start, address: str, number: int, *more: object) -> subprocess.Popen[str]:
    words = ("--run", f"run{number}", "--keys", f"d{number}", "--yes")
    return start(f"join{number}", "fleet", "join", address, *words, *more)
