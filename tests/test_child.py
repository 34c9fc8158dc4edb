"""A child process sees the installed package, wherever it is started."""

import subprocess
from pathlib import Path

import pytest

from edge_zofc.child import module_command


def test_a_folder_of_the_packages_name_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edge_zofc").mkdir()
    (tmp_path / "edge_zofc" / "__init__.py").write_text("raise SystemExit('the wrong package')")
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        module_command("edge_zofc", "--version"), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "edge-zofc")
