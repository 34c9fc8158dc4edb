"""progress.py: counts of the gate and of the frozen head that cannot be are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_zofc.engine.progress import Counts, Gate, RunProgress, TaskProgress

GATE = {"held_out": 5, "right_frozen": 3, "right_moved": 4, "only_frozen": 1, "only_moved": 2, "keeps": True}


@given(st.lists(st.tuples(st.booleans(), st.booleans())))
def test_whatever_was_counted_by_picture_is_a_gate(pictures: list[tuple[bool, bool]]) -> None:
    gate = Gate(
        held_out=len(pictures),
        right_frozen=sum(frozen for frozen, _ in pictures),
        right_moved=sum(moved for _, moved in pictures),
        only_frozen=sum(frozen and not moved for frozen, moved in pictures),
        only_moved=sum(moved and not frozen for frozen, moved in pictures),
        keeps=False,
    )
    assert Gate.model_validate(gate.model_dump()) == gate


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"right_moved": 5}, "not the difference"),
        ({"only_moved": 1}, "not the difference"),
        ({"right_frozen": 0, "right_moved": 1}, "do not fit into 5"),
        ({"held_out": 4}, "do not fit into 4"),
        ({"only_frozen": 4, "only_moved": 5}, "do not fit into 5"),
        ({"held_out": -1}, "greater than or equal to 0"),
        ({"right_moved": None}, "valid integer"),
        ({"won": 1}, "not permitted"),
    ],
)
def test_a_gate_that_no_pictures_have_is_refused(changes: dict[str, Any], words: str) -> None:
    Gate.model_validate(GATE)
    with pytest.raises(ValidationError, match=words):
        Gate.model_validate({**GATE, **changes})


@pytest.mark.parametrize("crowding", [-1.1, 1.1, float("nan"), "near"])
def test_a_crowding_that_no_classes_have_is_refused(crowding: object) -> None:
    assert TaskProgress(name="000_a", class_ids=[0, 1], crowding=0.69).is_roomy
    assert not TaskProgress(name="000_a", class_ids=[0, 1], crowding=0.7).is_roomy
    assert not TaskProgress(name="000_a", class_ids=[0, 1]).is_roomy
    with pytest.raises(ValidationError, match="crowding"):
        TaskProgress.model_validate({"name": "000_a", "class_ids": [0, 1], "crowding": crowding})


def progress(**changes: Any) -> RunProgress:
    """One finished task of two classes, of whose 8 test pictures the learner named 6 and the frozen head 5."""
    learner, frozen = (Counts(correct=[[sum(right)]], correct_by_class=right) for right in ([4, 2], [3, 2]))
    good: dict[str, Any] = {
        "class_names": ["cup", "jar"],
        "tasks": [TaskProgress(name="000_a", class_ids=[0, 1])],
        "learner": learner,
        "frozen": frozen,
        "total": [8],
        "total_by_class": [4, 4],
        "only_frozen": 1,
        "only_moved": 2,
    }
    return RunProgress(**{**good, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"only_moved": 3}, "beyond the frozen head"),
        ({"only_frozen": 0}, "beyond the frozen head"),
        ({"frozen": Counts(correct=[[6]], correct_by_class=[4, 2])}, "beyond the frozen head"),
        ({"frozen": Counts()}, "beyond the frozen head"),
        ({"only_frozen": 8, "only_moved": 9}, "more answers than there are test pictures"),
    ],
)
def test_what_the_adapter_won_agrees_with_the_frozen_head(changes: dict[str, Any], words: str) -> None:
    assert progress().only_moved == 2
    with pytest.raises(ValidationError, match=words):
        progress(**changes)


def test_a_run_without_a_frozen_head_says_nothing_of_what_the_adapter_won() -> None:
    assert progress(frozen=Counts(), only_frozen=0, only_moved=0).frozen.correct == []
