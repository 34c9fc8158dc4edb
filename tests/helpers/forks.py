"""``edge-zofc`` in forks of a process that has loaded the libraries, which takes far longer than a small run.

Each fork is a process of its own: it can be killed, capped and timed as a command that was typed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORKS = """
import json, os, resource, signal, sys
from edge_zofc.cli import main as cli, progress
from edge_zofc.device import profiles
from edge_zofc.engine import history, predict, run, trainer, watch
from edge_zofc.report import summary
trainer.SNAPSHOT_SECONDS = float(sys.argv[1])
# Imports the rest that another user might not be allowed to read: root's own interpreter.
profiles.load_profile("cpu-2gib")
for line in sys.stdin:
    order = json.loads(line)
    if not (child := os.fork()):
        code = 1
        try:
            for number, path in enumerate(order["to"], 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
            signal.alarm(order["seconds"])
            if order["data_bytes"]:
                resource.setrlimit(resource.RLIMIT_DATA, (order["data_bytes"],) * 2)
            if order["user"]:
                os.setgroups([])
                os.setresgid(*[order["user"]] * 3)
                os.setresuid(*[order["user"]] * 3)
            code = cli.main(order["arguments"])
        except SystemExit as end:
            code = end.code
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended (negative: by a signal) and what it said."""

    code: int
    out: str
    err: str


class Forks:
    """Runs commands one after the other; close it at the end.

    ``snapshot_seconds``: how old a snapshot gets before the next; a small run would else end before its second.
    """

    def __init__(self, folder: Path, snapshot_seconds: float = 30.0) -> None:
        self._texts = [str(folder / "stdout"), str(folder / "stderr")]
        self.parent = subprocess.Popen(
            [sys.executable, "-c", FORKS, str(snapshot_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, arguments: list[str], seconds: int = 0, data_bytes: int = 0, user: int = 0) -> int:
        """The process number of a new child, ended by SIGALRM after ``seconds``, capped, under another user."""
        order: dict[str, Any] = {"arguments": arguments, "to": self._texts, "seconds": seconds, "user": user}
        assert self.parent.stdin is not None
        self.parent.stdin.write(json.dumps({**order, "data_bytes": data_bytes}) + "\n")
        self.parent.stdin.flush()
        return self._number()

    def end(self) -> int:
        """The child's exit code, negative after a signal, once it has ended."""
        return self._number()

    def run(self, arguments: list[str], seconds: int = 0, data_bytes: int = 0, user: int = 0) -> Ended:
        """Start a command and wait for its end."""
        self.start(arguments, seconds, data_bytes, user)
        code = self.end()
        return Ended(code, *(Path(path).read_text() for path in self._texts))

    def _number(self) -> int:
        assert self.parent.stdout is not None
        line = self.parent.stdout.readline()
        assert line, "the process that forks has ended"
        return int(line)

    def close(self) -> None:
        """Let the process that forks end."""
        self.parent.communicate()
