"""``learn`` in a process of its own, whose memory limit holds for it alone."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_zofc import errors
from edge_zofc.errors import EdgeZofcError

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Progress:
    """How far ``learn`` is: the task's number, the run's steps so far, and the last step's loss."""

    task: int
    step: int
    loss: float


def learn_in_child(words: list[str], events: Path, on_progress: Callable[[Progress], None] | None) -> None:
    """Run a ``learn --json``, telling of each step that ``events`` tells. Raises the error of its exit code."""
    at = events.stat().st_size if events.exists() else 0
    with tempfile.TemporaryFile() as output:  # a pipe would fill and stop it
        child = subprocess.Popen(words, stdout=output, stderr=subprocess.DEVNULL)  # noqa: S603 - our own command
        try:
            while child.poll() is None:
                time.sleep(POLL_SECONDS)
                at = _tell_steps(events, at, on_progress)
            _tell_steps(events, at, on_progress)
        except BaseException:
            child.terminate()
            child.wait()
            raise
        output.seek(0)
        if child.returncode:
            raise _error(child.returncode, output.read())


def _tell_steps(events: Path, at: int, on_progress: Callable[[Progress], None] | None) -> int:
    """Tell of the steps behind byte ``at`` of a log; returns where the next look begins."""
    if on_progress is None or not events.exists():
        return at
    at = at if at <= events.stat().st_size else 0  # it was rotated
    with events.open("rb") as file:
        file.seek(at)
        whole, _, _ = file.read().rpartition(b"\n")
    for line in whole.splitlines():
        try:
            event = json.loads(line)
            if event["event"] == "step":
                on_progress(Progress(int(event["task"]), int(event["step"]), float(event["loss"])))
        except (ValueError, KeyError, TypeError):  # a torn line of an earlier process
            continue
    return at + len(whole) + (1 if whole else 0)


def _error(code: int, output: bytes) -> EdgeZofcError:
    """The error of a ``learn`` that ended with ``code``, from what it printed."""
    try:
        sentence = str(json.loads(output.splitlines()[-1])["error"])
    except (ValueError, KeyError, IndexError, TypeError):
        sentence = f"edge-zofc learn ended with exit code {code}; run it in a terminal to see why."
    kinds = (errors.InputError, errors.DoesNotFitError, errors.DivergedError, errors.DamagedFileError)
    return next((kind for kind in kinds if kind.exit_code == code), EdgeZofcError)(sentence)
