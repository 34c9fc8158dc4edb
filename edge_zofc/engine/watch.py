"""``learn --watch``: wait for new task folders, learn each as soon as it is complete, for as long as the device runs.

A task folder is complete when a file ``READY`` lies in it, or when nothing in it has changed for a minute.

That minute is measured by looking again and again, not by the files' own times, because a board without a clock battery
starts in 1970 and a copy may keep old times. A restart looks for another minute.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_zofc.data.stream import numbered_tasks, read_stream
from edge_zofc.engine.opening import Ground
from edge_zofc.engine.progress import tasks_of
from edge_zofc.engine.run import OnForwards, OnStep, learn_locked, locked_run, silent
from edge_zofc.engine.setup import LearnRequest
from edge_zofc.errors import InputError, Stopped, TaskRefusedError
from edge_zofc.signals import StopSignals, stop_signals
from edge_zofc.storage.result import RunResult

log = logging.getLogger("edge_zofc")

READY = "READY"
QUIET_SECONDS = 60.0
"""How long nothing in a folder without READY may change before it counts as complete."""
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Clock:
    """Monotonic seconds, and how to wait; tests pass their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass
class Watcher:
    """Which task folders below ``root`` are complete, as far as looking at them since its making tells."""

    root: Path
    clock: Clock
    seen: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Name -> what the folder looked like, and since when it does."""
    refused: dict[str, str] = field(default_factory=dict)
    """Name -> what a folder looked like that is complete but cannot be learnt."""

    def complete(self, known: frozenset[str]) -> dict[str, str]:
        """Name -> look of each complete folder that is not ``known``. Raises InputError without ``root``."""
        found = {}
        for name, folder in numbered_tasks(self.root).items():
            if name in known:
                continue
            look, now = _look(folder), self.clock.now()
            if self.seen.get(name, ("", 0.0))[0] != look:
                self.seen[name] = look, now
            if os.path.lexists(folder / READY) or now - self.seen[name][1] >= QUIET_SECONDS:
                found[name] = look
        return found

    def wait(
        self, request: LearnRequest, signals: StopSignals, finished: frozenset[str], unfinished: frozenset[str]
    ) -> tuple[frozenset[str], dict[str, str]]:
        """Wait for something to learn: the names of the tasks to look at, and how the complete folders look."""
        # Not "while True": what is raised inside of a destructor, say, Python prints and forgets.
        while signals.name is None:
            found = self.complete(finished)
            new = {n for n, look in found.items() if self.refused.get(n) != look and _is_task(request, n)}
            self.refused |= {name: look for name, look in found.items() if name not in new}
            # A half learnt task goes first, and one whose folder is gone is an error that learn tells.
            gone = unfinished - set(numbered_tasks(self.root))
            if (new or gone) and unfinished <= new | gone:
                return frozenset(new | {name for name in finished if _is_task(request, name, False)}), found
            self.clock.sleep(POLL_SECONDS)
        raise Stopped(signals.name)


def watch_run(
    request: LearnRequest, on_step: OnStep, clock: Clock | None = None, on_forwards: OnForwards = silent
) -> tuple[RunResult | None, str]:
    """Learn each task of ``request.stream`` once it is complete, until a signal comes.

    Returns what ``result.json`` holds, None where nothing was learnt, and the signal's name. A folder that is complete
    but no task (no train picture, say, or most of them damaged) is told and left alone until it changes, because the
    next task must not wait for a person. The run is locked all the time. Raises what ``learn_run`` raises.
    """
    watcher, result = Watcher(request.stream, clock or Clock()), None
    with stop_signals() as signals, locked_run(request) as ground, suppress(Stopped):
        while signals.name is None:
            log.info("Waiting for task folders in %s.", request.stream)
            with signals.raising():
                names, looks = watcher.wait(request, signals, *tasks_of(ground.run))
            learnt = _learn(
                replace(ground, request=replace(ground.request, tasks=names, resume=False)),
                signals,
                on_step,
                on_forwards,
            )
            if isinstance(learnt, TaskRefusedError):
                log.warning("%s", learnt)
                watcher.refused[learnt.task] = looks[learnt.task]
            else:
                result = learnt
    return result, signals.name or ""


def _learn(
    ground: Ground, signals: StopSignals, on_step: OnStep, on_forwards: OnForwards
) -> RunResult | TaskRefusedError:
    """The result, or why a task was not even begun. One that had begun is half learnt, and its error goes on."""
    try:
        return learn_locked(ground, signals, on_step, on_forwards)
    except TaskRefusedError as error:
        if tasks_of(ground.run)[1]:
            raise
        return error


def _is_task(request: LearnRequest, name: str, needs_train: bool = True) -> bool:
    try:
        read_stream(request.stream, only={name}, needs_train=needs_train)
    except InputError as error:
        log.warning("%s", error)
        return False
    return True


def _look(folder: Path) -> str:
    """A digest of the names, sizes and times below a folder; what cannot be listed looks new each time."""
    digest = hashlib.sha256()
    try:
        for place, folders, names in os.walk(folder, onerror=_raise):
            folders.sort()
            for name in sorted(names):
                with suppress(FileNotFoundError):
                    status = os.lstat(os.path.join(place, name))  # noqa: PTH118 - names need not be UTF-8
                    text = f"{place}/{name} {status.st_size} {status.st_mtime_ns}\n"
                    digest.update(text.encode("utf-8", "surrogateescape"))
    except OSError:
        return f"unreadable {time.monotonic_ns()}"
    return digest.hexdigest()


def _raise(error: OSError) -> None:
    raise error
