"""One cell of the comparison, a method with a seed, in a process of its own.

    python -m edge_zofc.benchmarks.accuracy.cell REQUEST.json CELL.json

The peak memory of a cell is that of the whole process, with Python and torch, as it would be on a device. The file
appears only when the cell is finished.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from edge_zofc.benchmarks.accuracy.request import CellRequest
from edge_zofc.benchmarks.tables import write_json
from edge_zofc.data.stream import read_stream


def run(request: CellRequest) -> dict[str, Any]:
    """Run the cell; returns what is written to its file."""
    if request.method == "zo-fc":
        from edge_zofc.benchmarks.accuracy.runtime_cell import run_zofc

        return run_zofc(request)
    from edge_zofc.benchmarks.accuracy.torch_cell import run_in_torch

    return run_in_torch(request)


def main(arguments: list[str]) -> int:
    """Read the request, run it, write the cell."""
    request = CellRequest.model_validate_json(Path(arguments[0]).read_text(encoding="utf-8"))
    stream = read_stream(request.stream)
    classes = [[stream.class_names[i] for i in task.class_ids] for task in stream.tasks]
    found = {"method": request.method, "seed": request.seed, "classes": classes, **run(request)}
    write_json(Path(arguments[1]), found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
