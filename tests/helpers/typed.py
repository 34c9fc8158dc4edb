"""Commands as a user types them, in this process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_zofc.cli.main import main

FAST = [
    "--loss", "head", "--epochs", "1", "--batch-size", "8", "--queries", "1",
    "--micro-batch", "4", "--device-profile", "cpu-2gib",
]  # fmt: skip
"""Options with which ``learn`` takes a second on the small stream."""


def run(*words: object) -> int:
    """The command's exit code, also where argparse itself ends the program."""
    try:
        return main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """The one JSON object that a command prints with --json."""
    capsys.readouterr()
    assert run(*words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found
