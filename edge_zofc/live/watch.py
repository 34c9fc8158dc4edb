"""The child that learns what was kept: ``edge-zofc learn --watch`` on the lesson's tasks, for as long as the page runs.

It is a process of its own: it has its own memory limit and its own lock, and the page answers while it trains. It is
started with the first kept lesson, and its own last line says what it is doing.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from edge_zofc.errors import RunLockedError, printable

END_SECONDS = 30.0
"""A learner that has saved its state by then needs no SIGKILL."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 2.0, 60.0
# A keeper in the child's group waits for the end of a pipe that only we hold: however this process ends, so does the
# learner. And the learner sets its own memory limit, so the soft one that it inherits is lifted.
_START = """
exec 3<&0 </dev/null
ulimit -S -d "$1"
shift
(trap '' TERM; read -r _ <&3; kill -TERM 0) >/dev/null 2>&1 &
exec "$@" 3<&-
"""


def learn_command(run: Path, tasks: Path) -> list[str]:
    """What the child is started with."""
    words = ("-m", "edge_zofc", "learn", "--watch", "--stream", str(tasks), "--run", str(run))
    return [sys.executable, *words]


_WAITING = "Waiting for task folders"  # engine/watch.py says so


class NoWatch:
    """Nothing learns: the page names and collects alone."""

    def tend(self) -> None:
        """Nothing to start."""

    def sentence(self) -> str:
        """For the page."""
        return "Nothing learns here (--no-learn); kept lessons wait for 'edge-zofc learn'."

    def memory_mib(self) -> int | None:
        """Nothing."""
        return None

    def stop(self) -> None:
        """Nothing to end."""


class Watch:
    """Starts the child when ``tasks`` holds something, and again where it was killed or another process had the run."""

    def __init__(self, command: Sequence[str], tasks: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._command, self._tasks, self._clock = list(command), tasks, clock
        self._child: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._line, self._why = "", ""
        self._again, self._wait = 0.0, FIRST_WAIT_SECONDS
        self._refused_tasks: frozenset[str] | None = None
        """The tasks that were there when the child ended by itself with an error: others are tried anew."""

    def tend(self) -> None:
        """Start the child where it should run and does not; called every few seconds."""
        if self._child is not None and self._child.poll() is not None:
            self._ended(self._child.returncode)
        if self._child is None and self._clock() >= self._again:
            tasks = self._found()
            if tasks and tasks != self._refused_tasks:
                self._start()

    def _found(self) -> frozenset[str]:
        try:
            return frozenset(entry.name for entry in os.scandir(self._tasks) if not entry.name.startswith("."))
        except FileNotFoundError:
            return frozenset()

    def _start(self) -> None:
        self._line, self._why, self._refused_tasks = "starting", "", None
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = "unlimited" if hard == resource.RLIM_INFINITY else str(hard >> 10)
        self._child = subprocess.Popen(  # noqa: S603 - a list of words; the script is ours
            ("/bin/sh", "-c", _START, "learner", limit, *self._command),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._child,), name="learner", daemon=True)
        self._reader.start()

    def _read(self, child: subprocess.Popen[bytes]) -> None:
        pipe = child.stderr
        for line in iter(lambda: pipe.readline(4096) if pipe else b"", b""):
            text = printable(line.decode("utf-8", "replace").strip())
            if text:
                self._line = text

    def _ended(self, code: int) -> None:
        self._close()
        locked = code == RunLockedError.exit_code and "is in use by" in self._line
        if code < 0 or locked:
            self._again = self._clock() + self._wait
            self._wait = min(2 * self._wait, LONGEST_WAIT_SECONDS)
            self._why = self._line if locked else f"The learner was killed by signal {-code}; it starts again."
        else:
            self._refused_tasks = self._found()
            self._why = f"The learner ended: {self._line or 'it said nothing'}"

    def _close(self) -> None:
        child, self._child = self._child, None
        if child is None or self._reader is None:
            return
        if child.stdin is not None:
            child.stdin.close()  # what the child left behind ends now, and lets go of the pipe that is read
        self._reader.join(END_SECONDS)
        if child.stderr is not None:
            child.stderr.close()

    def sentence(self) -> str:
        """What the child is doing, for the page."""
        if self._child is not None:
            return "Waiting for the next lesson." if self._line.startswith(_WAITING) else self._line
        return self._why or "Nothing to learn yet: keep a lesson, and it is learnt thoroughly."

    def memory_mib(self) -> int | None:
        """What the child has resident, None while it does not run."""
        if self._child is None:
            return None
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(self._child.pid).memory_info().rss) >> 20
        return None

    def stop(self) -> None:
        """End the child: SIGTERM, so that it saves its state, and SIGKILL where that takes too long."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._close()
