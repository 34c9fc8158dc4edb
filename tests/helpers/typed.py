"""Commands as a user types them, in this process."""

from __future__ import annotations

from edge_zofc.cli.main import main


def run(*words: object) -> int:
    """The command's exit code, also where argparse itself ends the program."""
    try:
        return main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)
