"""Kinds of arguments of commands, as small functions that add one to a parser: for lists of what each command takes,
and the few that many commands share.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Add = Callable[[Any], Any]
"""Adds an argument, or a group of them, to a parser."""


def argument(*names: str, **settings: Any) -> Add:
    """As ``add_argument``."""
    return lambda parser: parser.add_argument(*names, **settings)


def path(name: str, metavar: str, text: str, *more: str, **settings: Any) -> Add:
    """A path."""
    return argument(name, *more, metavar=metavar, type=Path, help=text, **settings)


def folders(name: str, text: str) -> Add:
    """One folder or more, of all times that the option is given."""
    return path(name, "FOLDER", text, nargs="+", action="extend", default=[])


def number(name: str, text: str, least: int | None = None, **settings: Any) -> Add:
    """A whole number, of at least ``least``."""
    kind = int if least is None else partial(_at_least, least)
    return argument(name, **{"metavar": "N", "type": kind, "help": text, **settings})


def colour(name: str, text: str) -> Add:
    """Three numbers."""
    return argument(name, metavar="R,G,B", type=_three_numbers, help=f"{text} (default: timm's for NAME)")


def _three_numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers R,G,B such as 0.485,0.456,0.406")
    return values


def seed(text: str) -> Add:
    """``--seed``."""
    return number("--seed", f"{text} (default: 1993)", default=1993)


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
    return int(text)


def seconds(name: str, text: str, **settings: Any) -> Add:
    """Seconds above 0."""
    return argument(name, **{"metavar": "S", "type": _above_zero, "help": text, **settings})


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def group(title: str, *members: Add, about: str | None = None) -> Add:
    """A group with a title."""
    return lambda parser: add(parser.add_argument_group(title, about), members)


def one_of(*members: Add) -> Add:
    """At most one of these."""
    return lambda parser: add(parser.add_mutually_exclusive_group(), members)


def add(parser: Any, members: tuple[Add, ...]) -> None:
    """Add all of these to a parser or a group."""
    for member in members:
        member(parser)


RUN = Path("run")
RUN_FOLDER = path("run", "RUN", "run folder")
MOVED_BUNDLE = path("--bundle", "FOLDER", "where the run's bundle is now, if it moved")
THREADS = number("--threads", "CPU threads (default: 1)", 1, default=1)
