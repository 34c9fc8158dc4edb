"""Measures what the graph for exact gradients takes beside the first one, one picture at a time.

Each way of opening it is measured in fresh processes (``python -m edge_zofc.export.gradient_memory FOLDER PREPACKING
ARENA PARENT`` prints one JSON object), both sessions set up as the runtime does. How much onnxruntime packs differs
from network to network, and two sessions share only what is mapped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from edge_zofc.device.memory_limit import give_freed_memory_back
from edge_zofc.export.measure import REPEATS, end_with, example_feeds, measured_by
from edge_zofc.inference.graph import session_options
from edge_zofc.storage.manifest import GRADIENT_GRAPH, GRAPH, GradientMemory
from edge_zofc.storage.settings import Placement

_RUNS = 3
_RESET_PEAK = "5"  # proc(5), clear_refs


def measure_gradient_memory(folder: Path) -> tuple[GradientMemory, ...]:
    """Of the graphs in ``folder``, for each way of opening them. Linux only (reads /proc).

    Raises DoesNotFitError if a child process fails, with the last line that it wrote.
    """
    found = []
    for prepacking in (True, False):
        for arena in (True, False):
            arguments = [str(folder), str(int(prepacking)), str(int(arena))]
            answers = [measured_by(__name__, arguments, "exact gradients") for _ in range(REPEATS)]
            anonymous, file = (max(int(answer[name]) for answer in answers) for name in ("anonymous", "file"))
            found.append(GradientMemory(prepacking=prepacking, arena=arena, anonymous=anonymous, file=file))
    return tuple(found)


def main(arguments: Sequence[str]) -> None:
    """The child process: print by how much the second session and its runs raised memory, ``file`` at their end."""
    folder, (prepacking, arena, parent) = Path(arguments[0]), map(int, arguments[1:])
    end_with(parent)
    placement = Placement.simple().model_copy(update={"prepacking": bool(prepacking), "arena": bool(arena)})
    _first = _run(folder / GRAPH, placement, 1)
    anonymous, file, _ = _resident()
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    _second = _run(folder / GRADIENT_GRAPH, placement, _RUNS)
    _, mapped, peak = _resident()
    taken = {"anonymous": max(0, peak - mapped - anonymous), "file": max(0, mapped - file)}
    sys.stdout.write(json.dumps(taken) + "\n")


def _run(graph: Path, placement: Placement, times: int) -> ort.InferenceSession:
    session = ort.InferenceSession(str(graph), session_options(placement), providers=["CPUExecutionProvider"])
    give_freed_memory_back()
    feeds = example_feeds(session, 1, 1)
    for _ in range(times):
        session.run(None, feeds)
    return session


def _resident() -> tuple[int, int, int]:
    """RssAnon, RssFile and VmHWM of this process in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}
    return found["RssAnon"], found["RssFile"], found["VmHWM"]


if __name__ == "__main__":
    main(sys.argv[1:])
