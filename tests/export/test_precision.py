"""Quantised weights: which codes, which numbers, how far from the originals."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_zofc.export.precision import quantise_blocks, quantise_columns


def test_eight_bits_hold_minus_128_to_127_steps_exactly() -> None:
    weight = np.array([[-128.0, 127.0, 0.0, 1.0] + [5.0] * 60], dtype=np.float32)
    blocks = quantise_blocks(weight, "w8")
    assert blocks.scales == np.float32([[1.0]])
    assert blocks.packed[0, 0, :4].tolist() == [0, 255, 128, 129]
    assert np.array_equal(blocks.dequantised(), weight)


def test_four_bits_are_packed_low_nibble_first() -> None:
    weight = np.array([[-8.0, 7.0, 0.0, 1.0] + [0.0] * 28], dtype=np.float32)
    blocks = quantise_blocks(weight, "w4")
    assert blocks.packed[0, 0, :2].tolist() == [0xF0, 0x98]
    assert np.array_equal(blocks.dequantised(), weight)


WEIGHTS_2D = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 150)), elements=st.floats(-8, 8, width=16))


@settings(max_examples=40, deadline=None)
@given(weight=WEIGHTS_2D)
def test_a_quantised_weight_is_at_most_one_step_away(weight: np.ndarray) -> None:
    for precision in ("w8", "w4"):
        blocks = quantise_blocks(weight, precision)
        steps = np.repeat(np.abs(blocks.scales), blocks.block_size, axis=1)[:, : weight.shape[1]]
        assert blocks.dequantised().shape == weight.shape
        assert np.all(np.abs(blocks.dequantised() - weight) <= 1.001 * steps)
    columns = quantise_columns(weight)
    assert np.all(np.abs(columns.dequantised() - weight) <= 0.51 * columns.scales[:, None])
    assert np.abs(columns.codes).max() <= 63
