"""Standard output and error as a command finds them: closed, of another encoding, full, or left by their reader."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import TextIO

from edge_zofc.errors import explained


def open_streams() -> None:
    """Make both streams take any name, and let a stream that the parent closed lead nowhere.

    Without that the next file that is opened gets the closed stream's number, and messages are written into it.
    """
    while (found := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(found, True)
    os.close(found)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - lives as long as we
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print a command's answer. Raises BrokenPipeError, or DoesNotFitError or InputError where it cannot be written."""
    try:
        print(text, flush=True)  # noqa: T201 - this is the program's output
    except OSError as error:
        silence(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        with explained(Path("Standard output"), "written"):
            raise


def silence(*streams: TextIO) -> None:
    """Let streams lead nowhere: what is left in their buffers would fail again when Python ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):  # a stream of a test has no number
            stream.flush()
        with contextlib.suppress(OSError, ValueError):
            os.dup2(null, stream.fileno())
    os.close(null)
