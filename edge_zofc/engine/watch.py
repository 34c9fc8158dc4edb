"""``learn --watch``: wait for new task folders, learn each as soon as it is complete, for as long as the device runs.

A task folder is complete when a file ``READY`` lies in it, or when nothing in it has changed for a minute.

What may surprise: that minute is measured by looking again and again, not by the files' own times, because a
board without a clock battery starts in 1970 and a copy may keep old times. A restart looks for another minute.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge_zofc.data.stream import numbered_tasks, read_stream
from edge_zofc.device.profiles import DeviceProfile, load_profile
from edge_zofc.engine.run import learn_locked, run_folder
from edge_zofc.engine.setup import Request
from edge_zofc.engine.state import progress_of
from edge_zofc.engine.trainer import Session
from edge_zofc.errors import InputError, Stopped, TaskRefusedError
from edge_zofc.storage import checkpoint
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.run_folder import STATE

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


def watch_run(
    request: Request, on_step: Callable[[Session, float], None], clock: Clock | None = None
) -> dict[str, Any]:
    """Learn each task of ``request.stream`` once it is complete, until a signal comes; then as ``learn_run``.

    A folder that is complete but no task (no train picture, say, or most of them damaged) is told and left alone until
    it changes: the device is alone, and the next task must not wait for a hand. The run is locked all the time. Raises
    what ``learn_run`` raises.
    """
    bundle, profile = read_bundle(request.bundle), load_profile(request.profile)
    clock = clock or Clock()
    watcher, refused = Watcher(request.stream, clock), dict[str, str]()
    result: dict[str, Any] = {}
    with _raising_on_signals() as asked, suppress(Stopped), run_folder(request):
        finished, unfinished = _tasks_of(request.run)
        log.info("Waiting for task folders in %s.", request.stream)
        # Not "while True": what is raised inside of a destructor, say, Python prints and forgets.
        while not asked:
            found = watcher.complete(finished)
            new = {n for n, look in found.items() if refused.get(n) != look and _is_task(request, n)}
            refused |= {name: look for name, look in found.items() if name not in new}
            # A half learnt task goes first, and one whose folder is gone is an error that learn tells.
            gone = unfinished - set(numbered_tasks(request.stream))
            if (new or gone) and unfinished <= new | gone:
                names = frozenset(new | {name for name in finished if _is_task(request, name)})
                learnt = _learn(replace(request, tasks=names, resume=False), bundle, profile, on_step)
                if isinstance(learnt, TaskRefusedError):
                    log.warning("%s", learnt)
                    refused[learnt.task] = found[learnt.task]
                else:
                    result = learnt
                if "stopped" in result:
                    return result
                finished, unfinished = _tasks_of(request.run)
                log.info("Waiting for task folders in %s.", request.stream)
            clock.sleep(POLL_SECONDS)
    return {**result, "stopped": asked[0]}


def _learn(
    request: Request, bundle: Bundle, profile: DeviceProfile, on_step: Callable[[Session, float], None]
) -> dict[str, Any] | TaskRefusedError:
    """The result, or why a task was not even begun. One that had begun is half learnt, and its error goes on."""
    try:
        stream = read_stream(request.stream, only=request.tasks)
        return learn_locked(request, bundle, profile, stream, on_step)
    except TaskRefusedError as error:
        if _tasks_of(request.run)[1]:
            raise
        return error


def _tasks_of(run: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the tasks that a run has finished, and of the one that it is in the middle of."""
    found = checkpoint.load_latest(run / STATE)
    if found is None:
        return frozenset(), frozenset()
    progress = progress_of(found.snapshot)
    names = [task.name for task in progress.tasks]
    half = names[-1:] if progress.phase != "idle" else []
    return frozenset(names) - frozenset(half), frozenset(half)


def _is_task(request: Request, name: str) -> bool:
    try:
        read_stream(request.stream, only={name})
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


@contextmanager
def _raising_on_signals() -> Iterator[list[str]]:
    """SIGINT and SIGTERM raise Stopped wherever the process is; their name goes into the list that is given.

    Nothing is lost by that, since the disk holds a good state at every instant. Inside ``learn_locked`` its own,
    gentler handlers stand.
    """
    asked: list[str] = []

    def stop(number: int, frame: object) -> None:
        asked.append(signal.Signals(number).name)
        if len(asked) == 1:  # a second one, of an impatient hand, finds the process on its way out
            raise Stopped(asked[0])

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
