"""``bench backbones`` measures each backbone on each stream once, and its chart shows the committed numbers."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest
from benchmark_problem import write_stream

from edge_zofc.benchmarks.accuracy import backbone_chart, backbones
from edge_zofc.errors import InputError

PROJECT = Path(__file__).parents[3]
MEASURED = PROJECT / "benchmarks/results/backbones.json"
PICTURE = PROJECT / "benchmarks/results/backbones.svg"


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    backbones.add_arguments(parser)
    return backbones.main(parser.parse_args([str(word) for word in words]))


def test_a_backbone_is_measured_once_a_stream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--stream", write_stream(tmp_path / "colours"), "--out", tmp_path / "out", "--backbones", "package-vit@32")
    assert run(*words, "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["backbone"], row["side"], row["stream"]) == ("package-vit", 32, "colours")
    assert row["average"] > 0.9  # colours
    assert row["class_means_average"] > 0.9
    assert 0 < row["milliseconds"] < 1000
    assert 50 < row["peak_rss_mib"] < 500
    picture = (tmp_path / "out/backbones.svg").read_text(encoding="utf-8")
    assert f">{backbone_chart.label(row)}<" in picture
    monkeypatch.setattr(backbones, "edge_zofc", lambda *_: pytest.fail("measured again"))
    assert run(*words) == 0
    assert "package-vit" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["package-lite0", "package-lite0@", "@128", "package-lite0@128,"])
def test_a_name_without_a_size_is_told_how_to_write_it(given: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="such as package-lite0@128"):
        run("--stream", tmp_path, "--out", tmp_path / "out", "--backbones", given)


def test_a_stream_that_is_not_there_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no stream .*nowhere"):
        run("--stream", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_committed_picture_shows_what_was_measured(tmp_path: Path) -> None:
    rows = json.loads(MEASURED.read_text(encoding="utf-8"))
    svg = PICTURE.read_text(encoding="utf-8")
    for row in rows:
        assert f">{backbone_chart.label(row)}<" in svg
    assert backbone_chart.main([str(MEASURED), str(tmp_path / "again.svg")]) == 0
    again = (tmp_path / "again.svg").read_text(encoding="utf-8")
    points = re.compile(r'<use [^>]*x="([0-9.]+)" y="([0-9.]+)"')
    assert points.findall(again) == points.findall(svg)
    assert not re.search(r"#fff|white", svg, re.IGNORECASE)


def test_the_readme_tells_the_same_numbers_as_its_picture() -> None:
    page = (PROJECT / "README.md").read_text(encoding="utf-8")
    [told] = re.findall(r"!\[([^]]*)\]\(benchmarks/results/backbones\.svg\)", page)
    rows = json.loads(MEASURED.read_text(encoding="utf-8"))
    for stream in ("clothing", "grocery"):
        percents = {(row["backbone"], row["side"]): 100 * row["average"] for row in rows if row["stream"] == stream}
        low, high, ours = min(percents.values()), max(percents.values()), percents["package-lite0", 128]
        assert f"{stream} {low:.0f} to {high:.0f} %, default {ours:.0f} %" in told
