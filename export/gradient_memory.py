"""Measures what the session that goes both ways takes, beside the one of the features, one picture at a time.

Each way of opening it is measured in fresh processes (``python -m edge_zofc.export.gradient_memory GRAPH PREPACKING
ARENA PARENT`` prints one JSON object), set up as the runtime does: how much onnxruntime packs differs from network to
network.
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
from edge_zofc.storage.gradient_info import GradientMemory
from edge_zofc.storage.manifest import GRADIENT_GRAPH, GRAPH
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
            both, forward = (_measured(folder / name, prepacking, arena) for name in (GRADIENT_GRAPH, GRAPH))
            more = {name: max(0, both[name] - forward[name]) for name in ("anonymous", "file")}
            found.append(GradientMemory(prepacking=prepacking, arena=arena, **more, run=both["run"]))
    return tuple(found)


def _measured(graph: Path, prepacking: bool, arena: bool) -> dict[str, int]:
    """The largest of some processes' answers."""
    arguments = [str(graph), str(int(prepacking)), str(int(arena))]
    answers = [measured_by(__name__, arguments, "exact gradients") for _ in range(REPEATS)]
    return {name: max(int(answer[name]) for answer in answers) for name in answers[0]}


def main(arguments: Sequence[str]) -> None:
    """The child process: print what the open session holds, ``file`` after its runs, and the runs' peak beside it."""
    graph, (prepacking, arena, parent) = Path(arguments[0]), map(int, arguments[1:])
    end_with(parent)
    placement = Placement.simple().model_copy(update={"prepacking": bool(prepacking), "arena": bool(arena)})
    before, mapped, _ = _resident()
    session = ort.InferenceSession(str(graph), session_options(placement), providers=["CPUExecutionProvider"])
    give_freed_memory_back()
    opened, _, _ = _resident()
    # One picture, back where the graph goes back.
    forward = len(session.get_outputs()) == 1
    counts = {"images": int(forward), "gradient_images": 1, "adapters": 1, "feature_gradients": 1}
    feeds = example_feeds(session, counts)
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    for _ in range(_RUNS):
        session.run(None, feeds)
    _, file, peak = _resident()
    taken = {"anonymous": opened - before, "file": max(0, file - mapped), "run": max(0, peak - file - opened)}
    sys.stdout.write(json.dumps(taken) + "\n")


def _resident() -> tuple[int, int, int]:
    """RssAnon, RssFile and VmHWM of this process in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}
    return found["RssAnon"], found["RssFile"], found["VmHWM"]


if __name__ == "__main__":
    main(sys.argv[1:])
