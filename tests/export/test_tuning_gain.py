"""What a tuned start is worth, and when it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_zofc.errors import InputError
from edge_zofc.export.tuning_gain import Gains, best_strength, named_rightly
from edge_zofc.export.tuning_pictures import TO_TRAIN, TuningPictures


def right(count: int) -> np.ndarray:
    return np.arange(100) < count


def gains(held_back: int, others: int) -> Gains:
    """Of 100 pictures each 50 are named rightly by the untuned start."""
    is_held_back = np.arange(200) < 100
    return Gains(np.concatenate([right(50)] * 2), np.concatenate([right(held_back), right(others)]), is_held_back)


def clouds(spread: float) -> tuple[np.ndarray, TuningPictures]:
    """Features of 8 classes of 8 pictures around corners of a cube, and which of them train: not those of 0 and 1."""
    labels, folds = np.repeat(np.arange(8), 8), np.tile([0, 0, 1, 1, 2, 2, 3, 3], 8)
    folds[(labels > 1) & (np.arange(64) % 8 < 6)] = TO_TRAIN
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    noise = np.random.default_rng(0).normal(size=(64, 3)) * spread
    pictures = TuningPictures(tuple(Path(str(i)) for i in range(64)), labels, folds, np.arange(8) < 2)
    return (4 * corners[labels] + noise).astype(np.float32), pictures


def test_classes_that_lie_apart_are_all_named_and_each_tested_picture_once() -> None:
    """Two held-back classes of 8 pictures; and 2 test pictures of each of the 6 others."""
    features, pictures = clouds(0.1)
    assert named_rightly(features, pictures).tolist() == [True] * 28
    assert pictures.tested.tolist() == [True] * 16 + [False] * 12


def test_a_picture_is_named_by_a_head_that_does_not_know_it() -> None:
    """Classes of one look, told apart by nothing but each picture's own noise in 60 dimensions."""
    features = np.random.default_rng(1).normal(size=(64, 60)).astype(np.float32)
    assert named_rightly(features, clouds(1.0)[1]).mean() < 0.5


def test_held_back_classes_are_named_among_all() -> None:
    """A trained class that lies on a held-back one takes pictures from it."""
    features, pictures = clouds(0.1)
    features[pictures.labels == 7] = features[pictures.labels == 0]
    assert named_rightly(features, pictures)[pictures.tested].sum() < 16


def test_gains_have_their_interval() -> None:
    """8 more of 100 pictures: the differences have a variance of (8 - 64 / 100) / 100^2."""
    found = gains(58, 50).on_held_back
    assert (found.pictures, found.untuned, found.gain) == (100, 0.5, 0.08)
    assert found.low == pytest.approx(0.08 - 1.96 * 7.36**0.5 / 100)
    assert str(gains(58, 48)) == (
        "held-back classes 50.0% -> 58.0% (+8.0 points, 95 % interval +2.7 to +13.3, 100 pictures); "
        "all classes 50.0% -> 53.0% (+3.0 points, 95 % interval -0.1 to +6.1, 200 pictures)"
    )


def test_the_strength_that_wins_most_on_the_held_back_classes_is_taken() -> None:
    assert best_strength({0.25: gains(54, 60), 0.5: gains(59, 51), 1.0: gains(57, 70)}) == 0.5


def test_a_strength_that_loses_over_all_classes_is_passed_over() -> None:
    assert best_strength({0.25: gains(54, 50), 0.5: gains(59, 40), 1.0: gains(57, 43)}) == 1.0


@pytest.mark.parametrize("lost", [gains(50, 60), gains(51, 60), gains(40, 65), gains(60, 39)], ids=str)
def test_a_start_that_does_not_win_is_refused_with_its_numbers(lost: Gains) -> None:
    """One picture more of one that differs is no more than a standard error."""
    with pytest.raises(
        InputError, match=r"refused and nothing is written.*\(0.5, 1\): at 1, the best, held-back"
    ) as at:
        best_strength({0.5: gains(30, 30), 1.0: lost})
    assert str(lost) in str(at.value)
