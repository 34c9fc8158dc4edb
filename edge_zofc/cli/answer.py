"""How a command answers: a text for people, or one JSON object."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import logging
import shutil
from typing import Any

from edge_zofc.cli.terminal import say

log = logging.getLogger("edge_zofc")


def terminal_width() -> int:
    """Columns of the terminal; 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


def need(*packages: str) -> None:
    """Raise ModuleNotFoundError, which ``main`` explains, for a package that is not installed; imports none."""
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(name=name)


def answer(options: argparse.Namespace, data: dict[str, Any], text: str = "") -> int:
    """Print ``data`` as JSON where that was asked for, else ``text``; returns the exit code 0."""
    if options.json or text:
        say(json.dumps(data, default=str) if options.json else text)
    return 0
