"""A simulated fleet in Flower's engine, with ray's processes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_zofc.storage.bundle import Bundle

pytestmark = pytest.mark.flower


def simulated(bundle: Bundle, stream: Path, engine: str) -> dict[str, object]:
    """What the command found, without times."""
    words = ("--devices", "8", "--rounds", "3", "--min-pictures", "1", "--drop", "0.1", "--slow", "0.2")
    more = ("--hostile", "0.8", "--late", "0.2", "--tasks", "2", "--engine", engine, "--json")
    places = ("--bundle", str(bundle.folder), "--stream", str(stream))
    command = [sys.executable, "-m", "edge_zofc", "fleet", "simulate", *places, *words, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    assert found.pop("engine") == engine
    for one in found["rounds"]:  # type: ignore[attr-defined]
        one.pop("seconds")
    return found


def test_flowers_engine_and_one_process_come_to_the_same(small_bundle: Bundle, small_stream: Path) -> None:
    if importlib.util.find_spec("flwr") is None or importlib.util.find_spec("ray") is None:
        pytest.skip("flwr or ray is not installed: pip install 'edge-zofc[fleet-simulation]'")
    assert simulated(small_bundle, small_stream, "flower") == simulated(small_bundle, small_stream, "plain")
