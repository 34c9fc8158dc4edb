"""Real pictures for tests: the package's photographs, or the larger data set that may lie beside a checkout."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

PHOTOGRAPHS = Path(str(files("edge_zofc.export") / "photographs/clothes"))
"""8 classes, 20 + 8 pictures each."""
_GROCERY = Path(__file__).parents[3] / "shared" / "data" / "grocery"
REAL = _GROCERY if _GROCERY.is_dir() else PHOTOGRAPHS
"""``{train,test}/<class>/*.jpg``: the grocery data set's 81 classes, else the package's 8."""
