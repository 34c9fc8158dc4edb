"""Write the files beside this script, with the code of commit e76ba3e: ``python make.py CHECKOUT``.

CHECKOUT is a working tree of that commit, in an environment with its packages (export's too).

    bundle/        the small bundle of that commit's tests: 32 pixels, two blocks of width 32
    stream/        three tasks of two classes, 6 + 3 pictures each, of 16 x 16 pixels
    edge/, paper/  two runs in the middle of their second task: closed-form head and sgd; cosine head by torch and adam
    answers.json   where that commit's own code took each run afterwards

``settings.json`` names the bundle's folder as an absolute path; "/made/by/e76ba3e/bundle" stands in its place here.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RUNS: dict[str, dict[str, Any]] = {
    "edge": {"preset": "edge", "changes": {"epochs": 2, "batch_size": 4, "queries": 2}},
    "paper": {
        "preset": "paper",
        "changes": {"epochs": 2, "batch_size": 4, "queries": 2, "optimizer": "adam", "seed": 7},
    },
}
STOP_AFTER_STEPS = 9  # six steps a task and three of the second
ARRAYS = ("theta", "velocity", "rows", "sigma")


def write_stream(folder: Path) -> None:
    """Pictures as the small stream of the tests has them, of six looks, as PNG."""
    from small import picture

    for number in range(6):
        for part, count in (("train", 6), ("test", 3)):
            place = folder / f"{number // 2:03d}_task" / part / f"class{number:02d}"
            place.mkdir(parents=True)
            for index in range(count):
                seed = index + (1000 if part == "test" else 0)
                picture(seed % 6, seed + 100 * number, side=16).save(place / f"{index:03d}.png")


def learn(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    """Learn with that commit's code."""
    from edge_zofc.run import learn_run
    from edge_zofc.settle import Request

    request = Request(
        folder / "bundle",
        folder / "stream",
        folder / name,
        profile="cpu-2gib",
        micro_batch=4,
        parallel_queries=2,
        **RUNS[name],
        **more,
    )
    return learn_run(request, lambda session, loss: None)


def answers(folder: Path, name: str) -> dict[str, Any]:
    """What the run came to."""
    from edge_zofc.replay import replay_run

    from edge_zofc import snapshot

    found = snapshot.load_latest(folder / name / "state")
    assert found is not None
    arrays = found.snapshot.arrays
    result = json.loads((folder / name / "result.json").read_text())
    replayed = replay_run(folder / "bundle", folder / name / "journal.bin", folder / "theta", None, None)
    (folder / "theta").unlink()
    return {
        "steps": result["steps"],
        "accuracy_matrix": result["accuracy_matrix"],
        "adapter_sha256": replayed.sha256,
        "arrays_sha256": {key: hashlib.sha256(arrays[key].tobytes()).hexdigest() for key in ARRAYS},
        "sums": {key: float(arrays[key].astype("f8").sum()) for key in ARRAYS},
    }


def main(checkout: Path) -> None:
    """Make everything in a temporary folder and copy what is kept here."""
    sys.path.insert(0, str(checkout / "tests"))
    import onnxruntime
    from edge_zofc.replay import replay_run
    from small import write_small_bundle

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_small_bundle(folder / "bundle")
        write_stream(folder / "stream")
        found: dict[str, Any] = {"onnxruntime": onnxruntime.__version__, "processor": processor()}
        for name in RUNS:
            learn(folder, name, max_steps=STOP_AFTER_STEPS)
            half = replay_run(folder / "bundle", folder / name / "journal.bin", folder / "theta", None, None)
            (folder / "theta").unlink()
            for kept in ("bundle", "stream", name):
                shutil.rmtree(HERE / kept, ignore_errors=True)
                shutil.copytree(folder / kept, HERE / kept)
            (HERE / name / "lock").unlink()
            settings = HERE / name / "settings.json"
            text = settings.read_text()
            settings.write_text(text.replace(str((folder / "bundle").resolve()), "/made/by/e76ba3e/bundle"))
            learn(folder, name)
            found[name] = {"half": {"steps": half.steps, "adapter_sha256": half.sha256}, **answers(folder, name)}
    (HERE / "answers.json").write_text(json.dumps(found, indent=1) + "\n")


def processor() -> str:
    """The processor's model: features round differently on another."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
