"""A fleet that takes steps over Flower: a server and four devices as processes, killed at random moments."""

from __future__ import annotations

import importlib.util
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from network import Start, edge_zofc, join, serve, starts, wait_for
from runs import go
from small import write_small_stream

from edge_zofc.engine.predict import open_run
from edge_zofc.engine.replay import replay_run
from edge_zofc.storage.bundle import Bundle

pytestmark = pytest.mark.flower
STEPS = (
    "--steps",
    6,
    "--step-pictures",
    4,
    "--step-deadline",
    60,
    "--every",
    2,
    "--estimator",
    "spsa",
    "--adapter",
    "on",
)
DEVICES = range(4)
LONG = 600.0
"""Seconds, for a machine that does other things too."""


@pytest.fixture(scope="module", autouse=True)
def flower() -> None:
    if importlib.util.find_spec("flwr") is None:
        pytest.skip("flwr is not installed: pip install 'edge-zofc[fleet]'")


@pytest.fixture
def home(small_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle, four runs that have learnt two classes each, and keys of four devices."""
    shutil.copytree(small_bundle.folder, tmp_path / "bundle")
    stream = write_small_stream(tmp_path / "stream", tasks=4, train=10, alike=True)
    edge_zofc(tmp_path, "fleet", "keys", "fleet")
    for number in DEVICES:
        shutil.copytree(stream / f"{number:03d}_task", tmp_path / f"stream{number}" / "000_task")
        go(small_bundle, tmp_path / f"stream{number}", tmp_path / f"run{number}", changes={"adapter": "off"})
        edge_zofc(tmp_path, "fleet", "keys", "fleet", "add", f"d{number}")
    return tmp_path


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    yield from starts(home)


def journal(folder: Path) -> bytes | None:
    """A device that starts over has none for an instant (``Following.take``)."""
    try:
        return (folder / "journal.bin").read_bytes()
    except FileNotFoundError:
        return None


@pytest.mark.parametrize("seed", [1])
def test_whoever_is_killed_all_end_with_one_adapter(seed: int, home: Path, start: Start) -> None:
    """FLEET sections 5 and 8: kill -9 of a device and of the server at random moments."""
    moments = random.Random(seed)
    server, address = serve(home, start, *STEPS)
    devices = [join(start, address, number, "--margin", "1") for number in DEVICES]
    wait_for(home / "serve.out", f"step {moments.randrange(1, 3)}: ", LONG)
    time.sleep(moments.uniform(0, 1))
    devices[3].kill()
    devices[3].wait()
    time.sleep(moments.uniform(0, 3))
    server.kill()
    server.wait()
    start("again", "fleet", "serve", "fleet", "--bundle", "bundle", "--listen", address, *STEPS)
    wait_for(home / "again.out", "devices measured", LONG)
    join(start, address, 3, "--margin", "1")
    wait_for(home / "again.out", "the adapter ", LONG)
    folders = [home / "fleet", *(home / f"run{number}/fleet" for number in DEVICES)]
    end = time.monotonic() + LONG
    while len(journals := {journal(folder) for folder in folders}) > 1 or None in journals:
        assert time.monotonic() < end, (home / "again.out").read_text()
        time.sleep(0.5)
    found = {replay_run(home / "bundle", one / "journal.bin", home / "out", None, None) for one in folders}
    assert len(found) == 1 and found.pop().steps == 6
    while len({open_run(folder).head.rows.tobytes() for folder in folders}) > 1:
        assert time.monotonic() < end, (home / "again.out").read_text()
        time.sleep(0.5)
    assert len({open_run(folder).adapter.tobytes() for folder in folders}) == 1
    assert len(open_run(home / "run3/fleet").class_names) == 8
    for path in home.glob("*.out"):
        assert "Traceback" not in path.read_text(), path.read_text()
