"""Measures the anonymous memory that a run of a graph takes, and fits the manifest's three numbers to it.

Each point is taken in a fresh process (``python -m edge_zofc.export.measure GRAPH IMAGES ADAPTERS THREADS PARENT``
prints one JSON object), because memory once taken by onnxruntime's arena is not given back.

The fit is an upper envelope, not a mean: a plan that is a little too large is safe, and one that is too small gets a
process killed.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edge_zofc.errors import DoesNotFitError
from edge_zofc.export.session import open_session
from edge_zofc.signals import signals_held
from edge_zofc.storage.manifest import ActivationBytes

POINTS = ((1, 1), (2, 1), (4, 1), (8, 1), (1, 4), (2, 4), (4, 3), (4, 9))
"""(images, adapters) of the runs."""
LARGE_POINT, LARGE_BYTES = (16, 5), 256 << 20
"""One more where it takes little: small backbones are run at such sizes, and small runs cost more for each pair."""
ALONE, LARGE_ALONE = ((1, 1), (2, 1), (4, 1), (8, 1)), (16, 1)
"""The same where queries share nothing, so that a plan never puts several into one run. The arena grows by doubling:
12 pairs of EfficientNet-Lite0 at 224 px take 15.8 MiB each where 1, 2, 4, 8 and 16 take 10.1 to 11.0."""
REPEATS = 2
"""Of each point the larger one: what 8-bit kernels take differs from process to process, by 40 MiB for a ViT-B."""
_RUNS = 2  # the arena may ask for more in the second run, which finds it divided by the first
_TIMEOUT_SECONDS = 600
_GRAIN_BYTES = 4096
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

Point = tuple[int, int, int]
"""images, adapters, bytes."""


def measure_activation_bytes(graph: Path, queries_share: bool, threads: int = 1) -> ActivationBytes:
    """Run ``graph`` REPEATS times at POINTS, or at ALONE where queries share nothing, arena on, and fit.

    Linux only (reads /proc). Raises DoesNotFitError if a child process fails, with the last line that it wrote.
    """
    runs, large = (POINTS, LARGE_POINT) if queries_share else (ALONE, LARGE_ALONE)

    def measured(images: int, adapters: int) -> Point:
        found = [_measured_in_child(graph, images, adapters, threads) for _ in range(REPEATS)]
        return images, adapters, max(found)

    points = [measured(*point) for point in runs]
    fitted = fit(points)
    if fitted.predict(*large) <= LARGE_BYTES:
        fitted = fit([*points, measured(*large)])
    if queries_share:
        return fitted
    # Runs of one adapter do not tell what is an image's and what a pair's: where nothing is shared, all is a pair's.
    together = fitted.per_image + fitted.per_image_and_adapter
    return ActivationBytes(fixed=fitted.fixed, per_image=0, per_image_and_adapter=together)


def _measured_in_child(graph: Path, images: int, adapters: int, threads: int) -> int:
    arguments = [str(graph), str(images), str(adapters), str(threads)]
    answer = measured_by("edge_zofc.export.measure", arguments, f"{images} pictures x {adapters} adapters")
    return int(answer["bytes"])


def measured_by(module: str, arguments: Sequence[str], what: str) -> dict[str, Any]:
    """The JSON object that ``python -m module ARGUMENTS PARENT`` prints. Raises DoesNotFitError if it fails."""
    with _started([sys.executable, "-m", module, *arguments, str(os.getpid())]) as child:
        try:
            answer, errors = child.communicate(timeout=_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as error:
            answer, errors = "", str(error)
    if child.returncode != 0:
        last = (errors.strip() or f"exit code {child.returncode}").splitlines()[-1]
        raise DoesNotFitError(
            f"Measuring the memory of {what} failed ({last}); "
            "export on a machine with more memory, or a smaller backbone."
        )
    found: dict[str, Any] = json.loads(answer)
    return found


@contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """The running process; when the ``with`` ends, for whatever reason, the process has ended too."""
    with ExitStack() as stack:
        # An exception from a signal handler inside of Popen would leave a process that nobody can end.
        with signals_held():
            child = stack.enter_context(
                subprocess.Popen(  # noqa: S603 - this very module in this very interpreter
                    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
            stack.callback(child.kill)
        yield child


def fit(points: Sequence[Point]) -> ActivationBytes:
    """The plane over (1, images, images * adapters), no coefficient negative, that lies on or above all points
    and has the smallest sum over them.

    Of a linear programme in three unknowns the optimum is a vertex: where three constraints hold with equality.
    All triples are tried.
    """
    rows = np.array([(1.0, images, images * adapters) for images, adapters, _ in points])
    values = np.array([max(0, value) for _, _, value in points], dtype=np.float64)
    scale = max(1.0, values.max())
    constraints = np.vstack([rows, np.eye(3)])
    bounds = np.concatenate([values / scale, np.zeros(3)])
    best, best_sum = np.array([1.0, 0.0, 0.0]), math.inf
    for triple in itertools.combinations(range(len(constraints)), 3):
        chosen = list(triple)
        if abs(np.linalg.det(constraints[chosen])) < 1e-9:
            continue
        found = np.linalg.solve(constraints[chosen], bounds[chosen])
        total = float((rows @ found).sum())
        if bool(np.all(constraints @ found >= bounds - 1e-9)) and total < best_sum:
            best, best_sum = found, total
    fixed, per_image, per_both = (max(0, math.ceil(value * scale / _GRAIN_BYTES)) * _GRAIN_BYTES for value in best)
    return ActivationBytes(fixed=fixed, per_image=per_image, per_image_and_adapter=per_both)


def main(arguments: Sequence[str]) -> None:
    """The child process: print ``{"bytes": ...}``, by how much the runs raised anonymous memory."""
    graph, images, adapters, threads, parent = arguments[0], *map(int, arguments[1:])
    end_with(parent)
    session = open_session(Path(graph), threads)
    feeds = example_feeds(session, {"images": images, "adapters": adapters})
    before = anonymous_bytes()
    after = before
    for _ in range(_RUNS):
        session.run(None, feeds)
        after = max(after, anonymous_bytes())
    sys.stdout.write(json.dumps({"bytes": after - before}) + "\n")


def example_feeds(session: Any, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """So many of each input of a session, their pages touched: they belong to the caller's share, not to a run's."""
    return {
        value.name: np.full((counts[value.name], *value.shape[1:]), 0.1, np.float32) for value in session.get_inputs()
    }


def end_with(parent: int) -> None:
    """Have the kernel end this process when ``parent`` ends, even if it is killed: nobody would read the answer."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was asked
        raise SystemExit(1)


def anonymous_bytes() -> int:
    """RssAnon of this process in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no RssAnon; measuring needs Linux 4.5 or newer")


if __name__ == "__main__":
    main(sys.argv[1:])
