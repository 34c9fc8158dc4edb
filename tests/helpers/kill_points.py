"""Ends a run at its n-th touch of the disk or the graph, as ``kill -9`` would: nothing is cleaned up behind it.

After the kill every further call is refused too, so that no ``finally`` tidies what a dead
process could not have. Only handles are really closed, since this process lives on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_zofc.inference.backbone import Backbone
from edge_zofc.storage.run_folder import EventLog
from edge_zofc.storage.writing import DISK, Files

CALLS = ("create", "open_append", "write", "truncate", "fsync", "rename", "unlink", "make_folder", "fsync_folder")


class Killed(BaseException):
    """The process is dead; nothing may catch this."""


class KillPoints:
    """Counts every change of the disk, every event and every run of the graph; the ``at``-th does not happen.

    ``torn``: a write (or event) that is hit leaves half of its bytes. ``at`` 0 only counts.
    """

    def __init__(self, patch: pytest.MonkeyPatch, at: int = 0, torn: bool = False) -> None:
        self.at, self.torn, self.count = at, torn, 0
        self.names: list[str] = []
        # The next process has another number, so that it does not write over the leftovers of this one.
        patch.setattr("edge_zofc.storage.writing.getpid", lambda: 10**6 + at)
        for name in CALLS:
            patch.setattr(DISK, name, self._disk(name), raising=False)
        patch.setattr(EventLog, "write", self._around("event", EventLog.write))
        patch.setattr(Backbone, "features", self._around("graph", Backbone.features))
        patch.setattr(Backbone, "gradient", self._around("gradient", Backbone.gradient))
        rename_away = Path.unlink
        patch.setattr(Path, "unlink", self._around("path-unlink", rename_away))

    @property
    def dead(self) -> bool:
        """Whether the kill has happened."""
        return bool(self.at) and self.count >= self.at

    def _hit(self, name: str) -> bool:
        """Count one call. Raises Killed if the process is dead already; True if this call kills it."""
        if self.dead:
            raise Killed
        self.count += 1
        self.names.append(name)
        return self.dead

    def _disk(self, name: str) -> Callable[..., Any]:
        real = getattr(Files, name)

        def call(*arguments: Any) -> Any:
            if self._hit(name):
                if name == "write" and self.torn:
                    data = bytes(arguments[1])
                    real(DISK, arguments[0], data[: len(data) // 2])
                raise Killed
            return real(DISK, *arguments)

        return call

    def _around(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if name == "path-unlink":  # already counted where it is Files.unlink
                if self.dead:
                    raise Killed
                return real(*arguments, **named)
            if self._hit(name):
                if name == "event" and self.torn:
                    log = arguments[0]
                    log._file.write(b'{"event": "st')
                raise Killed
            return real(*arguments, **named)

        return call


def killed_and_resumed(
    learn: Callable[[Path], object], folder: Path, places: Iterable[int]
) -> Iterator[tuple[int, Path]]:
    """For each of ``places`` a run in ``folder`` that ``learn`` began, was killed at that touch, and went on with."""
    for at in places:
        run = folder / str(at)
        with pytest.MonkeyPatch.context() as patch:
            KillPoints(patch, at, torn=at % 2 == 0)
            with pytest.raises(Killed):
                learn(run)
        learn(run)
        yield at, run
