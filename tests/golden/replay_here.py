"""Replay the known answers on this processor: ``python tests/golden/replay_here.py``; exit code 1 if a bit differs.

Needs numpy, pydantic and safetensors beside the package, and neither onnxruntime nor torch.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
from pathlib import Path

from edge_zofc.algorithm.directions import direction
from edge_zofc.engine.replay import replay_run

HERE = Path(__file__).parent
MIDDLE = {"gradient": 17}
"""The step amid the second task to which a journal is replayed, where it is not number 75."""
DIRECTIONS = ((1993, 0, 0, 1000), (1993, 149, 3, 1000), (2**63 - 1, 10**9, 1023, 65))
"""Seed, step, query, length."""


def places(journal: str) -> tuple[tuple[str, int | None, int | None], ...]:
    """Where a journal is looked at: a name, the step, the task."""
    middle = MIDDLE.get(journal, 75)
    return (
        ("the end", None, None),
        (f"step {middle}", middle, None),
        ("the end of task 0", None, 0),
        ("the end of task 1", None, 1),
    )


def replayed(folder: Path) -> dict[str, str]:
    """SHA-256 by "<journal>, <place>" and by "direction <seed> <step> <query> <length>"."""
    answers = {}
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "adapter.safetensors"
        for path in sorted(folder.glob("*.bin")):
            for name, step, task in places(path.stem):
                found = replay_run(folder / "bundle", path, out, step, task)
                answers[f"{path.stem}, {name}"] = found.sha256
    for numbers in DIRECTIONS:
        values = direction(*numbers).astype("<f4", copy=False)
        answers[f"direction {' '.join(map(str, numbers))}"] = hashlib.sha256(values.tobytes()).hexdigest()
    return answers


def main() -> int:
    """Compare with ``answers.json``."""
    expected, found = json.loads((HERE / "answers.json").read_text()), replayed(HERE)
    wrong = [name for name in expected if found.get(name) != expected[name]]
    for name in wrong:
        print(f"{name}: {found.get(name)} instead of {expected[name]}")  # noqa: T201 - this is its output
    print(f"{platform.machine()}: {len(expected) - len(wrong)} of {len(expected)} known answers")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
