"""Every exception that edge-zofc raises on purpose, and the exit code each one ends a command with.

    EdgeZofcError
    ├── InputError          2   an option, a path or a file's content that the user can put right
    │   ├── ImageError      2   one picture that cannot be used (learn skips it and counts it)
    │   ├── TaskRefusedError 2  one task whose pictures cannot be used (learn --watch leaves it alone)
    │   └── RunLockedError  2   another process works on the same run folder
    ├── DoesNotFitError     3   memory or disk is too small for what was asked
    ├── DivergedError       4   the loss left its band or is not a number
    └── DamagedFileError    5   a file that edge-zofc wrote no longer says what was written

and beside the tree ``Stopped``, which is no error: a signal, or ``--max-steps``, asked a run to stop.

A message is one sentence that names the value, the limit and the way out; it is one printable line of bounded
length whatever the names and values in it are. Anything else that escapes (a plain ``ValueError``, say) is a
defect of edge-zofc itself and keeps its traceback.
"""

from __future__ import annotations

import os
from pathlib import Path

MAX_SENTENCE = 2000
"""Characters of a message: two paths of Linux's longest and a sentence would fit into no terminal anyway."""


class EdgeZofcError(Exception):
    """Base of all errors below; ``exit_code`` is what the command line ends with."""

    exit_code: int = 2

    def __init__(self, sentence: str) -> None:
        # Names and values in it come from files: a line end or an escape sequence must not reach a terminal.
        text = shown(sentence) if len(sentence) <= MAX_SENTENCE else _middle_left_out(sentence)
        super().__init__(text)


class InputError(EdgeZofcError):
    """The user asked for something that cannot be done as asked."""

    exit_code = 2


class ImageError(InputError):
    """One picture cannot be decoded or is outside the limits."""


class TaskRefusedError(InputError):
    """Too many pictures of the task named ``task`` cannot be read."""

    def __init__(self, sentence: str, task: str) -> None:
        super().__init__(sentence)
        self.task = task


class RunLockedError(InputError):
    """Another process holds the lock of this run folder."""


class DoesNotFitError(EdgeZofcError):
    """The memory or disk budget is too small, or an allocation failed with nothing left to shrink."""

    exit_code = 3


class DivergedError(EdgeZofcError):
    """The training loss is not finite or left its band."""

    exit_code = 4


class DamagedFileError(EdgeZofcError):
    """A bundle, journal, snapshot or adapter file fails its size, hash, checksum or schema."""

    exit_code = 5


class Stopped(Exception):  # noqa: N818 - not an error: nothing is wrong, and the command line never sees it
    """The run was asked to stop; whoever catches it saves the state."""


def shown(path: Path | str) -> str:
    """A name for messages: one line of printable UTF-8, whatever bytes or lone surrogates it has."""
    return "".join(c if c.isprintable() else _escaped(c) for c in os.fspath(path))


def _escaped(character: str) -> str:
    # A byte that is not UTF-8 arrives as U+DC00 + byte (PEP 383) and is shown as what it is on the disk.
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else repr(character)[1:-1]


def _middle_left_out(text: str) -> str:
    return shown(text[: MAX_SENTENCE // 2]) + " ... " + shown(text[-MAX_SENTENCE // 2 :])
