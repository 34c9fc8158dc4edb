"""Who may import whom, read from the sources: the drawing in CONTRIBUTING.md, held."""

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(importlib.util.find_spec("edge_zofc").submodule_search_locations[0])  # type: ignore[union-attr, index]

ROWS = (
    {"__init__", "errors", "child", "bell"},
    {"disk_errors"},
    {"plain"},
    {"durable", "lock"},
    {"machine", "directions", "metrics", "journal_format", "lda", "usage", "guard", "folders"},
    {"bundle"},
    {"profiles", "stream", "split", "images", "adapter", "journal", "snapshot", "base_cost"},
    {"spsa", "backbone", "head", "memory"},
    {"presets", "forward", "cap"},
    {"run_folder", "state"},
    {"evaluate", "learned", "result", "disk"},
    {"session", "replay", "history"},
    {"conserve", "room"},
    {"learn", "progress", "settle"},
    {"run", "records"},
    {"charts", "watch", "words"},
    {"page"},
    {"report", "doctor"},
    {"demo"},
    {"arguments"},
    {"cli"},
    {"__main__"},
)
HOME_OF = {
    "onnxruntime": {"backbone"},
    "torch": {"head"},
    "matplotlib": {"charts"},
    "timm": set(),
    "onnx": set(),
    "onnxscript": set(),
    "sklearn": set(),
    "pickle": set(),
    "torchvision": set(),
}
LAZY = {"torch", "matplotlib"}
MODULES = sorted(path for path in ROOT.glob("*.py"))


def row_of(module: str) -> int:
    return next(index for index, row in enumerate(ROWS) if module in row)


def imports(path: Path) -> list[tuple[str, bool]]:
    """(dotted name, whether it stands at the top level) of everything a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(tree.body)
    found: list[tuple[str, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(f"{node.module}.{alias.name}", node in top) for alias in node.names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_from_lower_rows_only(path: Path) -> None:
    for name, _ in imports(path):
        parts = name.split(".")
        if parts[0] != "edge_zofc" or len(parts) == 1:
            continue
        target = parts[1] if (ROOT / f"{parts[1]}.py").exists() else "__init__"
        if parts[1] in ("export", "benchmarks", "device_profiles"):
            assert path.stem in ("cli", "demo", "arguments"), f"{path.stem} imports {name}"
            continue
        assert row_of(target) < row_of(path.stem), f"{path.stem} imports {name} from its own row or above"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_heavy_packages_stay_in_their_rooms(path: Path) -> None:
    for name, at_top in imports(path):
        package = name.split(".")[0]
        if package in HOME_OF:
            assert path.stem in HOME_OF[package], f"{path.stem} imports {name}"
            assert not (at_top and package in LAZY), f"{path.stem} imports {name} at its top"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_that_runs_code_from_files_is_used(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not {name.split(".")[0] for name, _ in imports(path)} & {"pickle", "shelve", "marshal", "dill"}
    assert "torch.load(" not in text
    assert "allow_pickle=True" not in text
