"""The command line: parse, call one function of ``commands.py``, and turn errors into exit codes.

0 done, 2 usage or bad input, 3 does not fit, 4 diverged, 5 damaged file; 130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence

from edge_zofc import __version__
from edge_zofc.cli import arguments, commands
from edge_zofc.errors import DoesNotFitError, EdgeZofcError, explanation

COMMANDS: tuple[tuple[str, Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None], str], ...]
COMMANDS = (
    ("demo", commands.demo, arguments.demo, "the whole road on what ships in the package: export, learn, report"),
    ("export", commands.export, arguments.export, "write a bundle: a frozen ViT with a small adapter as ONNX"),
    ("split", commands.split, arguments.split, "turn an ImageFolder into a class-incremental stream"),
    ("plan", commands.plan, arguments.plan, "predict the peak memory and the disk of learning, before it runs"),
    ("learn", commands.learn, arguments.learn, "learn the tasks of a stream that a run has not learnt yet"),
    ("eval", commands.evaluate, arguments.evaluate, "measure a run's accuracy on a stream's test pictures"),
    ("predict", commands.predict, arguments.predict, "name pictures with what a run has learnt"),
    ("deploy", commands.deploy, arguments.deploy, "write what a run has learnt as one plain ONNX file"),
    ("report", commands.report, arguments.report, "write a run's report as one HTML page"),
    ("replay", commands.replay, arguments.replay, "rebuild the adapter from bundle and journal alone"),
    ("history", commands.history, arguments.history, "list what a run has learnt, and when"),
    ("rollback", commands.rollback, arguments.rollback, "go back to the state after an earlier task"),
    ("profiles", commands.profiles, arguments.profiles, "list the device profiles, or show one"),
    ("doctor", commands.doctor, arguments.doctor, "say what this machine has and what it lacks"),
    ("bench", commands.bench, arguments.bench, "measure memory, speed or accuracy side by side"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(argv)
    # Logs and progress go to stderr, so that stdout holds the answer alone.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except EdgeZofcError as error:
        return _failed(options, str(error), error.exit_code)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; there is nobody left to tell.
        sys.stderr.close()
        return 0
    except OSError as error:
        # Readers and writers explain their own; this is a path that could not even be looked at.
        told = explanation(error)
        return _failed(options, str(told), told.exit_code)
    except MemoryError as error:
        return _failed(options, f"Memory ran out ({error}); give a larger budget.", DoesNotFitError.exit_code)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-zofc", description="Keep learning new classes on a small computer with the memory of inference."
    )
    parser.add_argument("--version", action="version", version=f"edge-zofc {__version__}")
    found = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, function, fill, text in COMMANDS:
        sub = found.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        fill(sub)
        sub.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        sub.set_defaults(command=function)
    return parser


def _failed(options: argparse.Namespace, sentence: str, code: int) -> int:
    if options.json:
        print(json.dumps({"error": sentence, "exit_code": code}))  # noqa: T201 - this is the program's output
    print(f"edge-zofc: {sentence}", file=sys.stderr)  # noqa: T201
    return code
