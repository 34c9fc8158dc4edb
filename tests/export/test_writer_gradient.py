"""An export with the graph for exact gradients, by default and where it was asked for."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from exports import TINY, TINY_COMMAND

from edge_zofc.cli.main import main
from edge_zofc.errors import InputError
from edge_zofc.export import writer
from edge_zofc.export.gradient_check import TOLERANCE
from edge_zofc.export.gradient_rules import NoGradientError
from edge_zofc.export.options import ExportOptions
from edge_zofc.export.writer import export_bundle
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.gradient_info import GradientInfo, GradientMemory
from edge_zofc.storage.manifest import FILES, GRADIENT_FILES, MANIFEST


def refuse(folder: Path, *_args: object) -> None:
    (folder / GRADIENT_FILES[0]).write_bytes(b"half of it")
    raise NoGradientError("torch cannot")


def test_an_export_with_gradients_adds_two_files_and_is_the_same_bundle(tmp_path: Path, tiny_bundle: Bundle) -> None:
    lines: list[str] = []
    found = export_bundle(ExportOptions(tmp_path / "b", gradient=True, **TINY), lines.append)
    assert sorted(path.name for path in found.folder.iterdir()) == sorted((*FILES, *GRADIENT_FILES, MANIFEST))
    manifest = read_bundle(found.folder).manifest
    assert manifest.format_version == 6
    assert manifest.gradient is not None
    assert manifest.gradient.error < TOLERANCE
    assert {(one.prepacking, one.arena) for one in manifest.gradient.memory} == set(product((True, False), repeat=2))
    assert all(one.run is not None and one.run > 10_000 for one in manifest.gradient.memory)
    assert found.identity == tiny_bundle.identity
    assert any(line.startswith("exact gradients: relative error") for line in lines)


@pytest.mark.usefixtures("quick")
def test_without_gradients_by_default_is_told_and_where_they_were_asked_for_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(writer, "write_checked_gradient", refuse)
    command = ["export", str(tmp_path / "b"), *TINY_COMMAND[:-1]]
    assert main([*command, "--gradient"]) == 2
    assert "There are no exact gradients: torch cannot; leave out --gradient." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "no exact gradients: torch cannot\n" in shown.err
    assert shown.out.endswith("exact gradients: none\n")
    assert read_bundle(tmp_path / "b").manifest.format_version == 2
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == sorted((*FILES, MANIFEST))


@pytest.mark.usefixtures("quick")
def test_by_default_a_bundle_in_fp32_has_gradients_and_its_text_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def give(folder: Path, *_args: object) -> GradientInfo:
        asked.append(folder)
        for name in GRADIENT_FILES:
            (folder / name).write_bytes(b"x")
        ways = product((True, False), repeat=2)
        memory = tuple(GradientMemory(prepacking=p, arena=a, anonymous=1, file=1, run=1) for p, a in ways)
        return GradientInfo(error=1e-6, memory=memory)

    monkeypatch.setattr(writer, "write_checked_gradient", give)
    assert main(["export", str(tmp_path / "a"), *TINY_COMMAND[:-1]]) == 0
    assert capsys.readouterr().out.endswith("exact gradients: relative error 1.0e-06\n")
    assert main(["export", str(tmp_path / "b"), *TINY_COMMAND[:-1], "--precision", "int8"]) == 0
    assert capsys.readouterr().out.endswith("exact gradients: none\n")
    assert main(["export", str(tmp_path / "c"), *TINY_COMMAND]) == 0
    assert len(asked) == 1


def test_gradients_in_a_precision_that_has_none_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--gradient is for --precision fp32.*, got int8; leave one of the two out"):
        export_bundle(ExportOptions(tmp_path / "b", backbone="none", precision="int8", gradient=True))
