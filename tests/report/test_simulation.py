"""The picture of a simulated fleet."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from edge_zofc.report.simulation import accuracy_png


def colours(png: bytes) -> set[tuple[int, ...]]:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG" and image.width > 800
    return set(map(tuple, np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()))


def test_a_line_for_each_score_and_gaps_where_there_is_no_head() -> None:
    blue, green = (0x00, 0x72, 0xB2), (0x00, 0x8F, 0x68)
    both = colours(accuracy_png("x", {"shares": [None, 0.4], "honest": [0.5, 0.6]}, 2.0, 0.1, 0.7))
    one = colours(accuracy_png("x", {"shares": [0.3, 0.4, 0.5]}, 2.0, 0.1, 0.7))
    assert {blue, green} <= both
    assert blue in one and green not in one


def test_the_same_numbers_give_the_same_picture_and_many_rounds_have_few_ticks() -> None:
    first, again = (accuracy_png("x", {"shares": [None] * 150 + [0.5]}, 2.0, 0.1, 0.7) for _ in range(2))
    assert first == again
