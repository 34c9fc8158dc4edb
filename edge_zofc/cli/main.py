"""The command line: parse, call one function of ``commands.py``, `X, and turn errors into exit codes.

0 done, 2 usage or bad input, 3 does not fit, 4 diverged, 5 damaged file; 130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import logging
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from edge_zofc import __version__
from edge_zofc.cli import arguments, commands, fleet, fleet_network, fleet_simulation, teaching, workstation
from edge_zofc.cli.fleet_arguments import GROUPS
from edge_zofc.cli.terminal import open_streams, say, silence
from edge_zofc.errors import ArenaFullError, DoesNotFitError, EdgeZofcError, InputError, explanation, shown

_EXTRAS = {
    **dict.fromkeys(("export", "backbones", "deploy"), "export"),
    **dict.fromkeys(("demo", "bench"), "demo"),
    **dict.fromkeys(("fleet keys", "fleet serve", "fleet join"), "fleet"),
    "fleet simulate": "fleet-simulation",
    "live": "live",
    "predict": "mqtt",
}
"""What to install where a command lacks a package; the others need nothing beyond the runtime's packages."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    open_streams()
    options = _parse(sys.argv[1:] if argv is None else argv)
    # Logs and progress go to stderr, so that stdout holds the answer alone.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except EdgeZofcError as error:
        return _failed(options, str(error), error.exit_code)
    except ModuleNotFoundError as error:
        if options.extra is None or (error.name or "").startswith("edge_zofc"):
            raise
        how = f"install it with pip install 'edge-zofc[{options.extra}]'."
        return _failed(options, f"This command needs the package {error.name}; {how}", InputError.exit_code)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; there is nobody left to tell.
        silence(sys.stdout, sys.stderr)
        return 0
    except OSError as error:
        # Readers and writers explain their own; this is a path that could not even be looked at.
        told = explanation(error)
        return _failed(options, str(told), told.exit_code)
    except ArenaFullError as error:
        return _failed(options, f"Memory ran out: {error}; {error.WAY_OUT}.", DoesNotFitError.exit_code)
    except MemoryError as error:
        return _failed(options, f"Memory ran out ({error}); give a larger budget.", DoesNotFitError.exit_code)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edge-zofc", description="Keep learning new classes on a small computer with the memory of inference."
    )
    parser.add_argument("--version", action="version", version=f"edge-zofc {__version__}")
    found = parser.add_subparsers(metavar="COMMAND", required=True)
    subs: dict[str, argparse.ArgumentParser] = {}
    groups: dict[str, Any] = {}
    for name in arguments.COMMANDS:
        group, _, last = name.rpartition(" ")
        if group and group not in groups:
            groups[group] = _add_parser(found, group, GROUPS[group]).add_subparsers(metavar="COMMAND", required=True)
        function = _function("evaluate" if name == "eval" else name.replace(" ", "_"))  # eval is Python's own
        subs[name] = _add_parser(groups.get(group, found), last, function.__doc__ or "")  # None under python -OO
        arguments.fill(subs[name], name)
        subs[name].set_defaults(command=function, extra=_EXTRAS.get(name), parser=subs[name])
    if words and not words[0].startswith("-"):
        _check_words(parser, subs, words)
    options, left = parser.parse_known_args(words)
    if left and not any(word.startswith("-") for word in left):
        # argparse takes a list of words in one piece alone: ``predict RUN --json A.jpg`` would lose the picture.
        options = options.parser.parse_intermixed_args(words[options.parser.prog.count(" ") :], options)
    elif left:
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    return options


def _add_parser(found: Any, name: str, text: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = found.add_parser(
        name, help=text[:1].lower() + text[1:].rstrip("."), description=text
    )
    return added


def _check_words(
    parser: argparse.ArgumentParser, subs: dict[str, argparse.ArgumentParser], words: Sequence[str]
) -> None:
    """End with exit code 2 and the nearest names where a command or an option is unknown."""
    name, rest = words[0], words[1:]
    if name in GROUPS:
        if not rest or rest[0].startswith("-"):  # argparse explains
            return
        name, rest = f"{name} {rest[0]}", rest[1:]
    if name not in subs:
        _refuse(parser, name, difflib.get_close_matches(name, [*subs, *GROUPS], n=1))
    if name != "bench":  # a benchmark reads its own options
        _check_options(subs[name], rest)


def _function(name: str) -> Callable[[argparse.Namespace], int]:
    rooms = (commands, teaching, fleet, fleet_network, fleet_simulation, workstation)
    room = next(room for room in rooms if hasattr(room, name))
    found: Callable[[argparse.Namespace], int] = getattr(room, name)
    return found


def _check_options(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """End with exit code 2 and the nearest names where an option is unknown, also where others are missing."""
    known = sorted({"--help", *re.findall(r"--[a-z0-9-]+", parser.format_help())})
    for word in words:
        option = word.partition("=")[0]
        if option == "--":  # ends the options
            return
        if option.startswith("--") and not any(name.startswith(option) for name in known):
            near = [name for name in known if name.endswith(option[1:])]
            # Without the dashes, which would make every two names alike.
            close = difflib.get_close_matches(option[2:], [name[2:] for name in known], n=1)
            _refuse(parser, option, near or [f"--{name}" for name in close])


def _refuse(parser: argparse.ArgumentParser, word: str, near: Sequence[str]) -> NoReturn:
    way_out = f"did you mean {' or '.join(near)}?" if near else f"see '{parser.prog} --help'."
    parser.exit(2, f"{parser.prog}: {shown(word)} is unknown; {way_out}\n")


def _failed(options: argparse.Namespace, sentence: str, code: int) -> int:
    with contextlib.suppress(OSError, EdgeZofcError):  # the exit code is left where nothing can be printed
        if options.json:
            say(json.dumps({"error": sentence, "exit_code": code}))
        print(f"edge-zofc: {sentence}", file=sys.stderr)  # noqa: T201
    return code
