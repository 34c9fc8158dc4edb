"""bench unknown: its AUROC against scikit-learn's, its distances against numpy's, a table on real files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from small import write_small_stream

from edge_zofc.algorithm.heads import within
from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.benchmarks.accuracy import unknown
from edge_zofc.errors import InputError
from edge_zofc.storage.bundle import Bundle

SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=20)


@given(SCORES, SCORES)
def test_the_auroc_is_that_of_scikit_learn(higher: list[float], lower: list[float]) -> None:
    expected = roc_auc_score([1] * len(higher) + [0] * len(lower), higher + lower)
    assert unknown.auroc(higher, lower) == pytest.approx(expected)


def test_the_distance_is_mahalanobis_to_the_nearest_mean() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 10)
    features = (generator.normal(size=(30, 4)) + labels[:, None]).astype(np.float32)
    statistics = Statistics.empty(3, 4)
    statistics.add(features, labels)
    asked = generator.normal(size=(5, 4)).astype(np.float32)
    means, inverse = statistics.sums / statistics.counts[:, None], np.linalg.inv(within(statistics))
    away = asked[:, None] - means[None]
    expected = np.einsum("ncd,de,nce->nc", away, inverse, away).min(axis=1)
    assert -unknown.scores_of(statistics, asked)["mahalanobis"] == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    places = []
    for name in ("one", "other"):
        folder = tmp_path_factory.mktemp("unknown") / name
        write_small_stream(folder, tasks=1, classes=6)
        places.append(folder / "000_task")
    places[1] = places[1].rename(places[1].with_name("001_task"))
    return places


def run(bundle: Bundle, *words: str) -> int:
    parser = argparse.ArgumentParser()
    unknown.add_arguments(parser)
    return unknown.main(parser.parse_args(["--bundle", str(bundle.folder), *words]))


def test_a_table_has_a_row_for_each_folder_and_setting(
    small_bundle: Bundle, folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--pictures", *map(str, folders), "--known", "2x3", "halfx4", "--draws", "2", "--out", str(tmp_path / "o")]
    assert run(small_bundle, *words) == 0
    assert [line.split()[:4] for line in capsys.readouterr().out.splitlines()[1:]] == [
        [name, known, "x", pictures]
        for name in ("000_task", "001_task")
        for known, pictures in (("2", "3"), ("3", "4"))
    ]
    rows = json.loads((tmp_path / "o").read_text())["rows"]
    assert all(0 <= row["likeness_near"] <= 1 for row in rows)
    assert rows[0]["likeness_near"] > 0.8  # six looks that are easily told apart


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--known", "9x3"), "has 6 classes; 9 cannot be known"),
        (("--known", "2"), "is not classes x pictures"),
        (("--known", "2x1"), "is not classes x pictures"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    small_bundle: Bundle, folders: list[Path], words: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        run(small_bundle, "--pictures", *map(str, folders), *words)


def test_one_folder_has_no_far(small_bundle: Bundle, folders: list[Path]) -> None:
    with pytest.raises(InputError, match="two folders"):
        run(small_bundle, "--pictures", str(folders[0]))
