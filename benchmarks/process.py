"""The one place that starts child processes and reads what they answer.

A child runs a module of this package in this interpreter, in the folder and with the environment of its parent.

    edge_zofc          run ``edge-zofc WORDS --json`` and return its answer
    peak_rss_bytes     run ``edge-zofc WORDS`` and return the most memory that it had
    run                run any command and return how it ended and what it printed
    wait_for           run a command whose output goes to a log, or to where the output of this process goes
    Child              a process that answers one line after another

``python -m edge_zofc.benchmarks.process WORDS`` is ``edge-zofc WORDS`` with its peak memory as the last line on stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_zofc.errors import DoesNotFitError, InputError


@dataclass(frozen=True)
class Ended:
    """How a child ended. ``code`` is its exit code, negative for a signal; ``seconds`` is wall-clock time."""

    code: int
    seconds: float
    output: str
    errors: str

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON object in the last line of its output; {} without one."""
        last = _last_line(self.output)
        found: dict[str, Any] = json.loads(last) if last.startswith("{") else {}
        return found

    @property
    def message(self) -> str:
        """The last line on stderr; "" without one."""
        return _last_line(self.errors)


def command(module: str, *words: object) -> list[str]:
    """The command line of ``module``, a dotted name, with these arguments."""
    return [sys.executable, "-m", module, *map(str, words)]


def run(line: Sequence[str], timeout_seconds: float | None = None) -> Ended:
    """Run a command to its end. It is killed after ``timeout_seconds``."""
    started = time.monotonic()
    with subprocess.Popen(  # noqa: S603 - a list of our own words, no shell
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
    return Ended(process.returncode, time.monotonic() - started, output, errors)


def wait_for(line: Sequence[str], log: Path | None = None, threads: int | None = None) -> int:
    """Run a command and return its exit code. ``threads`` is for the libraries that read OMP_NUM_THREADS."""
    environment = {**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}
    with contextlib.ExitStack() as stack:
        output = None if log is None else stack.enter_context(log.open("w", encoding="utf-8"))
        errors = None if log is None else subprocess.STDOUT
        return subprocess.run(  # noqa: S603 - a list of our own words, no shell
            line, env=environment, stdout=output, stderr=errors, check=False
        ).returncode


def edge_zofc(*words: object) -> dict[str, Any]:
    """The answer of ``edge-zofc WORDS --json``. Raises InputError with its last message if it fails."""
    ended = run(command("edge_zofc", *words, "--json"))
    if ended.code:
        raise InputError(f"edge-zofc {words[0]} ended with exit code {ended.code}: {ended.message or 'no message'}")
    return ended.answer


def peak_rss_bytes(*words: object) -> int:
    """Peak resident memory of ``edge-zofc WORDS``. Raises DoesNotFitError with its last message if it fails.

    The child reads its own VmHWM. ``wait4`` would report the larger one of the process that started it.
    """
    ended = run(command(__name__, *words))
    if ended.code:
        raise DoesNotFitError(f"'edge-zofc {words[0]}' ended with {ended.code}: {ended.errors.strip()}")
    return int(ended.message)


class Child:
    """A process that answers each line on its input with a line of JSON; a context manager.

    ``name`` is for messages. Raises DoesNotFitError, with the last line on stderr, once the process has ended.
    """

    def __init__(self, name: str, line: Sequence[str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by ``close``
        self._process = subprocess.Popen(  # noqa: S603 - a list of our own words, no shell
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, question: str) -> dict[str, Any]:
        """Send a line and wait for the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process and wait for it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()

    def _fail(self) -> None:
        code = self._process.wait()
        self._errors.seek(0)
        said = _last_line(self._errors.read()) or "no message"
        raise DoesNotFitError(f"{self.name} ended with code {code}: {said}")


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def main() -> int:
    """``edge-zofc`` with the arguments of this process; then the peak memory on stderr."""
    from edge_zofc.cli.main import main as command_line
    from edge_zofc.device.system import PeakSampler

    with PeakSampler() as sampler:
        code = command_line()
        sys.stderr.write(f"{sampler.peak().rss_bytes}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
