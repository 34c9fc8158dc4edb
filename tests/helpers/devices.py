"""Runs of several devices, each with classes of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from runs import go
from small import write_small_stream

from edge_zofc.storage.bundle import Bundle


def three_devices(bundle: Bundle, home: Path) -> None:
    """``home/run0`` to ``run2``, which have learnt two classes each, beside their streams and the whole one."""
    stream = write_small_stream(home / "stream", tasks=3)
    for number in range(3):
        own = home / f"stream{number}"
        shutil.copytree(stream / f"{number:03d}_task", own / "000_task")
        go(bundle, own, home / f"run{number}", changes={"adapter": "off"})
