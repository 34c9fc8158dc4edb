"""journal_record.py: when two records are equal, and that nobody changes one afterwards."""

from __future__ import annotations

import numpy as np
import pytest

from edge_zofc.storage.journal_record import Kind, Record


def step(*gradient: float) -> Record:
    return Record(Kind.STEP, 0, 0, 0.5, gradient=np.array(gradient, np.float32))


def test_records_are_equal_where_all_their_values_are() -> None:
    assert step(1, 2) == step(1, 2)
    assert hash(step(1, 2)) == hash(step(1, 2))
    bare = Record(Kind.STEP, 0, 0, 0.5)
    others = (step(1, 3), step(1), bare, Record(Kind.STEP, 0, 1, 0.5, gradient=step(1, 2).gradient))
    assert step(1, 2) not in others
    assert bare == Record(Kind.STEP, 0, 0, 0.5) != Record(Kind.STEP, 0, 0, 0.5, (1.0,))
    assert bare != "a record"
    assert len({step(1, 2), step(1, 2), step(1, 3), bare}) == 3


def test_a_gradient_is_kept_as_float32_that_nobody_can_write_to() -> None:
    given = np.array([0.1, 1e39, -0.0])
    record = Record(Kind.STEP, 0, 0, 0.5, gradient=given)
    assert record.gradient is not None and record.gradient.dtype == np.float32
    assert record.gradient[0] == np.float32(0.1) and np.isposinf(record.gradient[1]) and np.signbit(record.gradient[2])
    single = np.ones(3, np.float32)
    kept = Record(Kind.STEP, 0, 0, 0.5, gradient=single).gradient
    single[:] = 2.0
    assert kept is not None and kept.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 2.0
    again = Record(Kind.STEP, 0, 0, 0.5, gradient=kept).gradient
    assert again is not None and np.shares_memory(again, kept), "what cannot change is not copied"


def test_the_first_value_that_is_not_finite_is_told() -> None:
    assert step(1, 2).not_finite is None
    assert step(1, float("inf"), float("nan")).not_finite == float("inf")
    assert Record(Kind.STEP, 0, 0, 0.5, (1.0, 1e39)).not_finite == float("inf")
    assert Record(Kind.STEP, 0, 0, float("-inf")).not_finite == float("-inf")


def test_a_record_is_shown_without_its_gradient() -> None:
    assert repr(step(1, 2)) == repr(Record(Kind.STEP, 0, 0, 0.5))
