"""The folder of a comparison: its settings, and one file for each finished cell.

    OUT/settings.json     what all cells share
    OUT/cells/NAME.json   one finished cell; a cell that is there is not run again
    OUT/logs/NAME.txt     what its process printed
    OUT/work, OUT/streams what the cells work with

A folder with other settings is refused, so a table never has numbers of different settings.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.methods.names import METHODS
from edge_zofc.benchmarks.process import command, wait_for
from edge_zofc.benchmarks.tables import write_json
from edge_zofc.errors import InputError

log = logging.getLogger("edge_zofc")

FIRST_SEED = 1993


def claim(out: Path, settings: dict[str, Any]) -> None:
    """Make the folders and keep the settings. Raises InputError if the folder has others."""
    for name in ("cells", "logs", "work", "streams"):
        (out / name).mkdir(parents=True, exist_ok=True)
    path = out / "settings.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name, value in settings.items() if before.get(name) != value]
        if other:
            raise InputError(f"{out} holds cells with another {', '.join(other)}; give another --out.")
    write_json(path, settings)


def run_cell(name: str, request: dict[str, Any], out: Path) -> bool:
    """Run the ``CellRequest`` as OUT/cells/NAME.json unless it is there; returns whether it is there now."""
    cell = out / "cells" / f"{name}.json"
    if cell.exists():
        return True
    asked, said = out / "work" / f"{name}.request.json", out / "logs" / f"{name}.txt"
    write_json(asked, request)
    log.info("running %s", name)
    wait_for(command("edge_zofc.benchmarks.accuracy.cell", asked, cell), said, request["threads"])
    if not cell.exists():
        log.warning("%s failed; see %s", name, said)
    return cell.exists()


def read_cells(out: Path) -> list[dict[str, Any]]:
    """The finished cells, by the order of METHODS, then seed."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "cells").glob("*.json"))]
    return sorted(found, key=lambda cell: (list(METHODS).index(cell["method"]), cell["seed"]))
