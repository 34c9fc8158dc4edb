"""Directions are the same numbers on every machine, and balanced."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_zofc.algorithm.directions import balanced_scales, direction, episode

WORDS = st.integers(0, 2**64 - 1)
KNOWN_EPISODE = [19, 1, 9, 10, 4, 12, 7, 17]


def philox4x64_10(counter: list[int], key: list[int]) -> list[int]:
    """The block function of Salmon et al. 2011, table 2, written out with Python's whole numbers."""
    mask = 2**64 - 1
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [
            (second >> 64) ^ counter[1] ^ key[0],
            second & mask,
            (first >> 64) ^ counter[3] ^ key[1],
            first & mask,
        ]
        key = [(key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask]
    return counter


def test_the_first_entries_are_the_known_ones() -> None:
    assert direction(0, 0, 0, 8).tolist() == [-1, -1, -1, 1, -1, -1, 1, -1]
    assert direction(2**64 - 1, 2**64 - 1, 5, 4).tolist() == [-1, 1, 1, -1]


@given(WORDS, WORDS, WORDS)
def test_the_bits_are_those_of_the_published_block_function(seed: int, step: int, query: int) -> None:
    block = philox4x64_10([1, query, step, 0], [seed, 0x5A4F4643])
    expected = [1.0 if word >> bit & 1 else -1.0 for word in block for bit in range(64)]
    assert direction(seed, step, query, 256).tolist() == expected


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_shorter_direction_is_the_start_of_a_longer_one(short: int, long: int) -> None:
    short, long = sorted((short, long))
    assert np.array_equal(direction(1, 2, 3, short), direction(1, 2, 3, long)[:short])


def test_seed_step_and_query_each_change_the_direction() -> None:
    base = direction(1, 2, 3, 256)
    for other in (direction(2, 2, 3, 256), direction(1, 3, 3, 256), direction(1, 2, 4, 256)):
        assert 64 < int(np.sum(base != other)) < 192


@pytest.mark.parametrize("size", [1, 63, 64, 65, 42265])
def test_type_shape_and_values(size: int) -> None:
    z = direction(7, 8, 9, size)
    assert z.dtype == np.float32
    assert z.shape == (size,)
    assert set(np.unique(z)) <= {-1.0, 1.0}
    assert abs(z.sum()) < 6 * np.sqrt(size)  # six standard deviations of a fair coin


def test_balanced_scales_give_each_piece_the_same_share_and_keep_the_length() -> None:
    scales = balanced_scales([4, 16, 80])
    squares = [float(np.sum(part.astype(float) ** 2)) for part in np.split(scales, [4, 20])]
    assert squares == pytest.approx([100 / 3] * 3)


def test_shift_scales_leave_pieces_at_rest_and_keep_the_length() -> None:
    scales = balanced_scales([4, 16, 80], [True, False, True])
    squares = [float(np.sum(part.astype(float) ** 2)) for part in np.split(scales, [4, 20])]
    assert squares == pytest.approx([50, 0, 50])
    assert balanced_scales([4, 16], [True, True]).tobytes() == balanced_scales([4, 16]).tobytes()


def test_one_piece_is_as_it_is_unbalanced() -> None:
    assert np.array_equal(balanced_scales([7]), np.ones(7, np.float32))


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 12), st.integers(0, 99))
def test_in_episodes_classes_and_their_pictures_take_turns(sizes: list[int], batch_size: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)) * 3, sizes)
    rounds = 2 * max(sizes) * len(sizes)
    drawn = np.concatenate([episode(labels, batch_size, seed, 0, step) for step in range(-(-rounds // batch_size))])[
        :rounds
    ]
    by_class = np.bincount(labels[drawn], minlength=3 * len(sizes))[::3]
    assert len(set(by_class.tolist())) == 1
    for one, size in enumerate(sizes):
        visits = drawn[labels[drawn] == 3 * one]
        for start in range(0, len(visits) - size + 1, size):
            assert len(set(visits[start : start + size].tolist())) == size


def test_an_episode_depends_on_seed_task_and_step_alone() -> None:
    labels = np.repeat(np.arange(5), 6)
    first = episode(labels, 8, 1993, 0, 3)
    assert np.array_equal(first, episode(labels, 8, 1993, 0, 3))
    others = [episode(labels, 8, *key) for key in ((1994, 0, 3), (1993, 1, 3), (1993, 0, 4))]
    assert not any(np.array_equal(first, other) for other in others)


def test_the_first_episode_is_what_it_always_was() -> None:
    # Known answer: another order of pictures would change what a run learns.
    assert episode(np.repeat(np.arange(4), 5), 8, 1993, 0, 0).tolist() == KNOWN_EPISODE
