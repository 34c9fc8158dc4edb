"""A child process that writes pictures: in a group of its own, ended as a group, and never left behind.

A few lines of ``sh`` start it. They put a keeper into its group, which waits for the end of a pipe that only we hold.
If this process ends, however it does, the kernel closes the pipe and the keeper ends the group, a silent child too.
Then they lift the soft limit of memory (RLIMIT_DATA), which a capped parent would hand down, and become the command.
Its words are their arguments and are not read by the shell. ``preexec_fn`` could do this, but Python forbids it beside
threads, and PR_SET_PDEATHSIG reaches the first process of a group alone.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Sequence

from edge_zofc.errors import printable

READ_BYTES = 1 << 18
GRACE_SECONDS = 1.0
"""How long a child may take to end by itself. A Jetson's camera service stays busy after one that was killed."""

_TAIL_BYTES = 4096
_START = """
exec 3<&0 </dev/null
ulimit -S -d "$1"
shift
(trap '' INT; read -r _ <&3; kill -INT 0; sleep 1; kill -KILL 0) >/dev/null 2>&1 &
exec "$@" 3<&-
"""


class Child:
    """One running command. Raises OSError where none can be started."""

    def __init__(self, command: Sequence[str]) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = "unlimited" if hard == resource.RLIM_INFINITY else str(hard >> 10)
        self._process = subprocess.Popen(  # noqa: S603 - a list of words; the script is ours
            ("/bin/sh", "-c", _START, "camera", limit, *command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self.pid = self._process.pid
        """Of the command, and the number of its group."""
        self._tail, self._has_ended, self._errors_open = b"", False, True
        self._lifeline, self._output, self._errors = self._pipes()
        os.set_blocking(self._errors, False)

    def _pipes(self) -> tuple[int, int, int]:
        pipes = self._process.stdin, self._process.stdout, self._process.stderr
        numbers = [pipe.fileno() for pipe in pipes if pipe is not None]
        return numbers[0], numbers[1], numbers[2]

    def read(self, timeout: float) -> bytes | None:
        """What the child has written, at most ``READ_BYTES``; b"" at its end, None if nothing comes in time."""
        waiting = [self._output, *([self._errors] if self._errors_open else [])]
        poll = select.poll()  # select() refuses numbers from 1024 on
        for handle in waiting:
            poll.register(handle, select.POLLIN)
        ready = {handle for handle, _ in poll.poll(max(timeout, 0) * 1000)}
        if self._errors in ready:
            self._read_errors()
        if self._output not in ready:
            return None
        data = os.read(self._output, READ_BYTES)
        self._has_ended |= not data
        return data

    def _read_errors(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._errors, _TAIL_BYTES):
                self._tail = (self._tail + data)[-_TAIL_BYTES:]
            self._errors_open = False

    def end(self) -> None:
        """End the whole group and take back what it used. Ending twice is nothing."""
        if self._process.returncode is not None or not self._process.stdin:
            return
        # What ended by itself says why. For others a broken pipe is the first reason to end, an interrupt the second.
        if not (self._has_ended and self._ends_within(GRACE_SECONDS / 2)):
            self._process.stdout.close()  # type: ignore[union-attr]
            self._signal(signal.SIGINT)
            self._ends_within(GRACE_SECONDS)
        # The first process is not waited for yet, so that no other group can have got its number.
        self._signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in a driver: the kernel ends it when it can
            self._process.wait(GRACE_SECONDS)
        self._read_errors()
        self._reap_others()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _ends_within(self, seconds: float) -> bool:
        limit = time.monotonic() + seconds
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        with contextlib.suppress(ChildProcessError):  # somebody ignores SIGCHLD: it is waited for already
            while os.waitid(os.P_PID, self.pid, flags) is None:
                if time.monotonic() > limit:
                    return False
                time.sleep(0.01)
        return True

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _reap_others(self) -> None:
        """Where this is process 1, as in a container, orphans of the group become our children and wait for us."""
        limit = time.monotonic() + GRACE_SECONDS
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < limit:
                if os.waitpid(-self.pid, os.WNOHANG) == (0, 0):
                    time.sleep(0.01)

    def last_words(self) -> str:
        """The line of its errors that says most, on one short line, or nothing."""
        lines = [line.strip() for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        telling = [line for line in lines if line.startswith("ERROR: from element")]  # gst-launch says more after it
        return printable((telling or lines or [""])[-1], 200)

    def reason(self) -> str:
        """Why it ended, once it has: its last words, else its exit code."""
        code = self._process.returncode
        if words := self.last_words():
            return words
        if code is None:
            return "it does not end"
        return f"it ended with exit code {code}" if code >= 0 else f"it was ended by signal {-code}"

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()
