"""Packed symmetric matrices: by hand, and against whole ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_zofc.algorithm import symmetric

SIZES = [0, 1, 2, 63, 64, 65, 128, 200]


def whole(size: int, seed: int = 0) -> np.ndarray:
    """Multiples of 1/8, so that sums and products are exact."""
    found = np.random.RandomState(seed).randint(-99, 99, (size, size)) / 8.0
    return found + found.T


def test_two_by_two_is_one_slab_as_it_is() -> None:
    assert symmetric.pack(np.array([[1.0, 2.0], [2.0, 3.0]])).tolist() == [1.0, 2.0, 2.0, 3.0]


def test_of_the_second_slab_the_columns_before_its_diagonal_are_left_out() -> None:
    assert symmetric.packed_length(128) == 64 * 128 + 64 * 64
    assert symmetric.packed_length(1280) * 8 < 0.53 * 8 * 1280**2


@pytest.mark.parametrize("size", SIZES)
def test_what_is_packed_comes_back(size: int) -> None:
    matrix = whole(size)
    packed = symmetric.pack(matrix)
    assert packed.shape == symmetric.zeros(size).shape == (symmetric.packed_length(size),)
    assert np.array_equal(symmetric.unpack(packed, size), matrix)
    assert symmetric.trace(packed, size) == np.trace(matrix)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(SIZES), st.integers(0, 5), st.integers(0, 1000))
def test_products_add_up_as_in_a_whole_matrix(size: int, pictures: int, seed: int) -> None:
    rows = np.random.RandomState(seed).randint(-99, 99, (pictures, size)) / 8.0
    packed = symmetric.pack(whole(size))
    symmetric.add_products(packed, -rows, rows)
    assert np.array_equal(symmetric.unpack(packed, size), whole(size) - rows.T @ rows)


@pytest.mark.parametrize("size", SIZES)
def test_a_matrix_is_taken_from_a_packed_one_with_a_lower_half_of_its_own(size: int) -> None:
    packed, matrix = symmetric.pack(whole(size)), np.random.RandomState(1).randint(0, 9, (size, size)) / 8.0
    expected = whole(size) - matrix
    symmetric.subtract_from(packed, matrix)
    assert np.array_equal(matrix, expected)


@pytest.mark.parametrize("size", SIZES)
def test_the_triangle_has_each_entry_once_and_comes_back(size: int) -> None:
    matrix = whole(size)
    found = symmetric.triangle(symmetric.pack(matrix), size)
    assert np.array_equal(found, matrix[np.triu_indices(size)])
    assert np.array_equal(symmetric.from_triangle(found, size), symmetric.pack(matrix))
    assert np.array_equal(symmetric.diagonal(symmetric.pack(matrix), size), np.diagonal(matrix))


@pytest.mark.parametrize("size", SIZES)
def test_the_rows_of_a_packed_matrix_are_those_of_the_whole_one(size: int) -> None:
    matrix = whole(size)
    packed = symmetric.Packed(symmetric.pack(matrix), size)
    rows = list(packed.rows())
    assert np.array_equal(np.concatenate([np.zeros((0, size)), *rows]), matrix)
    assert all(len(part) <= symmetric.SLAB and part.flags.c_contiguous for part in rows)
    assert (packed.shape, packed.dtype, packed.nbytes) == (matrix.shape, matrix.dtype, matrix.nbytes)
