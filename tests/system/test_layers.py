"""Who may import whom, read from the sources: the floors of CONTRIBUTING.md, held."""

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(importlib.util.find_spec("edge_zofc").submodule_search_locations[0])  # type: ignore[union-attr, index]

FLOORS = (
    {"errors"},
    {"algorithm", "signals"},
    {"storage"},
    {"data", "inference", "device"},
    {"engine", "report", "export"},
    {"learner", "fleet"},
    {"live"},
    {"cli"},
    {"benchmarks"},
)
BENCHMARKS = ({"tables", "process", "chart_style", "streams"}, {"methods", "costs"}, {"accuracy"}, {"questions"})
HOME_OF = {
    "onnxruntime": {"inference.graph", "inference.providers", "export", "benchmarks"},
    "torch": {"algorithm.heads", "export", "benchmarks"},
    "matplotlib": {"report.charts", "report.simulation", "benchmarks"},
    "jinja2": {"report.page"},
    "starlette": {"live.web"},
    "uvicorn": {"live.server", "fleet.flower_link"},
    "paho": {"live.mqtt"},
    "timm": {"export", "benchmarks"},
    "torchvision": {"export", "benchmarks"},
    "onnx": {"export", "benchmarks"},
    "onnxscript": {"export", "benchmarks"},
    "sklearn": {"export", "benchmarks"},
    "flwr": {f"fleet.flower_{name}" for name in ("link", "message", "node", "simulation")},
    "httpx": {"fleet.flower_node"},
    "cryptography": {"fleet.keys"},
}
LAZY = {"torch", "matplotlib", "jinja2", "cryptography"}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for top in (ROOT, ROOT / "export", ROOT / "benchmarks")
    for path in sorted(top.rglob("*.py"))
    if path.parent != ROOT or path.name in ("errors.py", "signals.py")
}


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


def own_imports(module: str) -> set[str]:
    """The modules of ours that a module imports, without the leading edge_zofc."""
    found = set()
    for name, _ in imports(MODULES[module]):
        parts = name.split(".")[1:] if name.startswith("edge_zofc.") else []
        if parts and parts != ["__version__"]:
            targets = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
            found.add(next(target for target in targets if target in MODULES))
    return found


def floor_of(name: str, floors: tuple[set[str], ...]) -> int:
    return next(index for index, floor in enumerate(floors) if name in floor)


@pytest.mark.parametrize("module", MODULES)
def test_a_package_imports_from_lower_floors_only(module: str) -> None:
    package, _, rest = module.partition(".")
    for target in own_imports(module):
        other, _, other_rest = target.partition(".")
        if package == other == "benchmarks" and rest and other_rest:
            one, two = rest.split(".")[0], other_rest.split(".")[0]
            assert one == two or floor_of(two, BENCHMARKS) < floor_of(one, BENCHMARKS), f"{module} -> {target}"
        elif package != other:
            assert floor_of(other, FLOORS) < floor_of(package, FLOORS), f"{module} imports {target}"


def test_no_module_imports_itself_through_others() -> None:
    order: list[str] = []

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way, module))
        if module not in order:
            for target in own_imports(module):
                visit(target, (*way, module))
            order.append(module)

    for module in MODULES:
        visit(module, ())
    assert len(order) == len(MODULES) > 90


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_stay_in_their_rooms(module: str) -> None:
    for name, at_top in imports(MODULES[module]):
        package = name.split(".")[0]
        if package in HOME_OF:
            assert HOME_OF[package] & {module, module.split(".")[0]}, f"{module} imports {name}"
            is_workstation = module.split(".")[0] in ("export", "benchmarks")
            assert not (at_top and package in LAZY and not is_workstation), f"{module} imports {name} at its top"


def test_flower_is_known_to_the_network_of_a_fleet_alone() -> None:
    """Nobody imports it, directly or through others, but the commands that join, serve and simulate a fleet, when they
    run.
    """
    flower = HOME_OF["flwr"]
    for module in MODULES:
        if module not in flower:
            at_top = {name for name, is_at_top in imports(MODULES[module]) if is_at_top}
            assert not any(name.removeprefix("edge_zofc.").startswith("fleet.flower") for name in at_top), module
            assert not own_imports(module) & flower or module in ("cli.fleet_network", "cli.fleet_simulation"), module


@pytest.mark.parametrize("module", MODULES)
def test_nothing_that_runs_code_from_files_is_used(module: str) -> None:
    text = MODULES[module].read_text(encoding="utf-8")
    assert not {name.split(".")[0] for name, _ in imports(MODULES[module])} & {"pickle", "shelve", "marshal", "dill"}
    if module == "export.package_weights":  # files whose SHA-256 was checked; nothing but tensors is made
        assert text.count("torch.load(") == text.count("weights_only=True") == 1
    else:
        assert "torch.load(" not in text
    assert "allow_pickle=True" not in text
