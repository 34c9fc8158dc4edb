"""The attacks that have a name, each on a world of its own: ``bundle/``, ``stream/``, ``run/`` (its first task learnt),
``fleet/`` of the one share ``d7.share``, and ``outside/``, which nobody may touch.

An entry is a function that spoils the world and, in ``@named``, what is then typed and how that must end. 0: the attack
must do no harm at all. Commands: see ``typed``. The entries stand in ``named_*.py``, a subject each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Spoil = Callable[[Path], None]


@dataclass(frozen=True)
class Named:
    """``typed``: the command's name; ``codes``: the exit codes it may end with."""

    name: str
    spoil: Spoil
    typed: str
    codes: frozenset[int]
    is_slow: bool = False

    def __str__(self) -> str:
        return f"{self.name}-{self.typed}"


NAMED: list[Named] = []
FLEET = ("fleet-merge", "fleet-predict", "fleet-report", "fleet-revoke")
"""Commands on the fleet."""


def named(typed: str, *codes: int, is_slow: bool = False) -> Callable[[Spoil], Spoil]:
    """Register an attack for each of the commands in ``typed``."""

    def register(spoil: Spoil) -> Spoil:
        NAMED.extend(Named(spoil.__name__, spoil, word, frozenset(codes), is_slow) for word in typed.split())
        return spoil

    return register


def arguments(world: Path, typed: str) -> list[str]:
    """The command line behind a name: on the run that is there, or (``new``, ``plan``) without one."""
    run, stream, folder = str(world / "run"), str(world / "stream"), str(world / "bundle")
    fleet = str(world / "fleet")
    small = ["--epochs", "1", "--batch-size", "8", "--queries", "1"]
    device = ["--device-profile", "cpu-512mib"]
    pictures = sorted(str(path) for path in (world / "stream/000_task/test/class00").iterdir())
    return {
        "learn": ["learn", "--bundle", folder, "--stream", stream, "--run", run, *device],
        "new": ["learn", "--bundle", folder, "--stream", stream, "--run", f"{run}/new", *device, *small],
        "history": ["history", run],
        "rollback": ["rollback", run, "--to-task", "0"],
        "predict": ["predict", run, *pictures],
        "eval": ["eval", run, "--stream", stream],
        "report": ["report", run],
        "replay": ["replay", folder, f"{run}/journal.bin", "-o", f"{run}/adapter.safetensors"],
        "plan": ["plan", "--bundle", folder, "--device-profile", f"{world}/board.toml"],
        "fleet-merge": ["fleet", "merge", folder, f"{world}/d7.share", "-o", fleet],
        "fleet-revoke": ["fleet", "revoke", fleet, "d7"],
        "fleet-predict": ["predict", fleet, *pictures],
        "fleet-report": ["report", fleet],
    }[typed]
