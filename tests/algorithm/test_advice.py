"""What to do next follows from the counts, and nothing is said where all is well or nothing is known."""

from __future__ import annotations

import pytest

from edge_zofc.algorithm.advice import ClassCounts, advice


def counts(*rights: int, train: int = 60, test: int = 20) -> list[ClassCounts]:
    return [ClassCounts(f"class {k}", train, test, right) for k, right in enumerate(rights)]


def test_two_classes_that_are_taken_for_each_other_are_named_with_their_numbers() -> None:
    found = advice(counts(14, 15, 20), [[0, 1, 6], [1, 0, 5]])
    assert found == [
        "Take more pictures of class 0 and class 1: 11 of the 40 test pictures of the two are taken for the other."
    ]


def test_the_pair_with_the_most_wrong_pictures_is_named() -> None:
    found = advice(counts(10, 20, 10, 20), [[0, 1, 6], [2, 3, 8]])
    assert len(found) == 1 and "class 2 and class 3: 8 of the 40" in found[0]


@pytest.mark.parametrize(
    ("classes", "confusion"),
    [
        (counts(20, 19, 20), [[1, 0, 1]]),
        (counts(0, 0, 2, test=2), [[0, 1, 2], [1, 0, 2]][:1]),  # two wrong pictures may be chance
        (counts(18, 18, test=20), [[0, 1, 2], [1, 0, 2]]),  # 4 of 40 is a tenth
        (counts(0, 0, 0, test=0), []),
        ([], []),
    ],
)
def test_nothing_is_said_where_all_is_well_or_too_little_is_known(
    classes: list[ClassCounts], confusion: list[list[int]]
) -> None:
    assert advice(classes, confusion) == []


def test_a_larger_backbone_comes_first_where_most_classes_are_low() -> None:
    spread = [[k, (k + step) % 4, 5] for k in range(4) for step in (1, 2, 3)]
    found = advice(counts(5, 5, 5, 5), spread)
    assert found[0] == "Take a larger backbone, pretrained on pictures like these: 4 of 4 classes are below 50 %."
    assert found[1].startswith("Take more pictures of class 0 and class 1: 10 of the 40")


def test_more_pictures_come_first_where_classes_have_few() -> None:
    found = advice(counts(5, 5, 5, train=7), [])
    assert found == [
        "Take more pictures of every class: 3 of 3 classes are below 50 %, "
        "and half of them have at most 7 to learn from."
    ]


def test_of_two_classes_half_right_is_chance_and_no_reason_for_another_backbone() -> None:
    assert not any("backbone" in sentence for sentence in advice(counts(9, 9), [[0, 1, 11], [1, 0, 11]]))


def test_single_weak_classes_are_named_the_weakest_first() -> None:
    found = advice(counts(20, 9, 20, 3, 20, 20), [])
    assert found == ["Take more pictures of class 3, class 1: less than half of their test pictures is named right."]
