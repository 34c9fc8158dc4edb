"""``bench growth``: what it says of short runs, of this version alone and beside a checkout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_zofc import __file__ as package_file
from edge_zofc.benchmarks import run
from edge_zofc.benchmarks.costs.growth import Version, importable, measure
from edge_zofc.errors import InputError
from edge_zofc.storage.bundle import Bundle

HERE = Path(package_file).parent


def test_two_versions_take_turns_on_a_stream(small_bundle: Bundle, small_stream: Path, tmp_path: Path) -> None:
    """The older one is this one by another path: the same accuracy, about the same disk."""
    other = importable(HERE.parent, tmp_path / "other")
    stream = tmp_path / "stream"
    stream.symlink_to(small_stream)
    row = measure([Version("old", other), Version("new", HERE.parent)], small_bundle.folder, stream, rounds=1)
    assert row["faster"] == row["old_seconds"] / row["new_seconds"] > 0
    assert row["old_accuracy"] == row["new_accuracy"]
    assert 0 < row["new_mib"] == pytest.approx(row["old_mib"], rel=0.2)
    assert not (tmp_path / "run").exists()


def test_a_checkout_whose_parts_lie_apart_becomes_one_package(tmp_path: Path) -> None:
    for name in ("edge_zofc", "export", "device_profiles", "benchmarks"):
        (tmp_path / "old" / name).mkdir(parents=True)
        (tmp_path / "old" / name / "__init__.py").write_text("")
    found = importable(tmp_path / "old", tmp_path / "made")
    assert sorted(p.parent.name for p in found.glob("edge_zofc/*/__init__.py")) == [
        "benchmarks", "device_profiles", "export",
    ]  # fmt: skip
    with pytest.raises(InputError, match="holds no edge_zofc/"):
        importable(tmp_path / "made/nothing", tmp_path / "again")


def test_the_command_measures_this_version_alone(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three tiny tasks; the export is stood in for, as it takes a quarter of a minute."""
    real = Version.run

    def stand_in(self: Version, *words: object) -> object:
        if words[0] == "export":
            return Path(str(words[1])).symlink_to(small_bundle.folder)
        return real(self, *words)

    monkeypatch.setattr(Version, "run", stand_in)
    assert run("growth", ["--tasks", "3", "--json", "--out", str(tmp_path / "growth.json")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["case"] for row in found["rows"]] == ["many"]
    assert found["rows"][0]["faster"] is None and found["rows"][0]["new_seconds"] > 0
    assert json.loads((tmp_path / "growth.json").read_text())["rows"] == found["rows"]
