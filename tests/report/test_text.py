"""Sentences and numbers say what the run came to, and a dash where it has none."""

from __future__ import annotations

import pytest
from made_runs import make_result, moved

from edge_zofc.report.curves import Log
from edge_zofc.report.page import page
from edge_zofc.report.summary import summary
from edge_zofc.report.text import (
    adapter_rows,
    adapter_sentence,
    duration,
    gate_word,
    head_alone,
    headline,
    memory_sentence,
    number,
    percent,
    table,
    time_sentence,
    verdict,
)
from edge_zofc.storage.result import check_result


def test_the_headline_and_the_verdict_say_who_won_in_plain_words():
    floor = {"accuracy_matrix": [[0.607]], "stage_accuracy": [0.607], "average_accuracy": 0.7, "last_accuracy": 0.607}
    result = make_result(1, last_accuracy=0.712, average_accuracy=0.8, class_mean_floor=floor)
    run = check_result(result)
    assert headline(run) == (
        "After 1 task and 2 classes the learner names 71.2 % of all test pictures; "
        "class means without any training: 60.7 %."
    )
    gain = "+10.5 points at the end, +10.0 points on average over the stages."
    assert verdict(run) == ("good", f"The learner beats the class-mean baseline: {gain}")
    worse = {**result, "last_accuracy": 0.5, "average_accuracy": 0.7, "beats_class_mean_floor": False}
    tone, sentence = verdict(check_result(worse))
    assert tone == "bad" and sentence.startswith("The learner does not beat the class-mean baseline: -10.7 points")


def test_a_run_stopped_in_its_first_task_does_not_blame_the_stream():
    """FAULTS B7."""
    empty = {"accuracy_matrix": [], "stage_accuracy": [], "average_accuracy": None, "last_accuracy": None}
    empty |= {"mean_per_class_accuracy": None, "forgetting": None, "backward_transfer": None}
    result = make_result(1) | empty | {"tasks": [], "class_mean_floor": None, "beats_class_mean_floor": None}
    assert headline(check_result(result)) == "The run has no finished task yet, so there is no accuracy to show."
    shown = summary(result)
    assert "No accuracy matrix: the run has no finished task yet." in shown
    assert "test pictures" not in shown
    written = page(check_result(result), Log())
    assert "no finished task yet" in written
    assert "no test pictures" not in written


@pytest.mark.parametrize(("beats", "tone"), [(True, "good"), (False, "bad")])
def test_the_verdict_is_the_results_own_and_tells_both_differences(beats, tone):
    """The result decides by the average over the stages; the end may say the opposite."""
    ahead, behind = ("average", "last") if beats else ("last", "average")
    result = make_result(3, beats_class_mean_floor=beats)
    floor = {**result["class_mean_floor"], f"{ahead}_accuracy": 0.5, f"{behind}_accuracy": 0.7}
    result |= {"last_accuracy": 0.6, "average_accuracy": 0.6, "class_mean_floor": floor}
    found, sentence = verdict(check_result(result))
    assert found == tone and "+10.0 points" in sentence and "-10.0 points" in sentence


def test_a_tie_with_the_baseline_is_not_called_a_win():
    result = make_result(3)
    tied = {key: result[key] for key in result["class_mean_floor"]}
    result |= {"class_mean_floor": tied, "beats_class_mean_floor": False}
    tone, sentence = verdict(check_result(result))
    assert tone == "bad" and "does not beat" in sentence and "+0.0 points at the end" in sentence


def test_the_memory_sentence_compares_peak_budget_and_prediction():
    run = check_result(make_result(peak_rss_mib=600.0, memory_budget_mib=500.0, predicted_peak_mib=450.0))
    assert memory_sentence(run) == (
        "The process took 600 MiB at its peak, 120 % of its budget of 500 MiB (over the budget); "
        "450 MiB had been predicted, 25 % below that."
    )
    assert memory_sentence(check_result(make_result(peak_rss_mib=None))) == "The peak memory was not measured."


def test_the_time_sentence_stands_beside_what_was_predicted() -> None:
    """FAULTS C5; a result of an earlier version has no such numbers."""
    cost = {"predicted_image_forwards": 5000, "predicted_seconds": 90.0, "image_forwards": 4321, "seconds": 66.0}
    told = [
        time_sentence(check_result(make_result(last_learn=found)))
        for found in (None, cost, {**cost, "predicted_seconds": None}, {**cost, "predicted_image_forwards": 0})
    ]
    assert told == [
        "The time was not predicted.",
        "The last learn took 1.1 min for 4,321 image-forwards; at most 1.5 min for 5,000 had been predicted.",
        "The last learn took 1.1 min for 4,321 image-forwards; at most 5,000 had been predicted.",
        "The last learn took 1.1 min for 4,321 image-forwards; there was nothing to learn.",
    ]
    by_gradients = time_sentence(check_result(make_result(last_learn=cost, gradient_passes=80)))
    assert "4,321 image-forwards (a gradient counts as 4); at most 1.5 min" in by_gradients


HELD_OUT = "+2.5 points (95 %: -2.0 to +7.0)"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"adapter": {"state": "start"}}, "It did not move."),
        ({"adapter": {"state": "start", "crowding": 0.88}}, "It did not move."),
        (
            {"adapter": {"state": "start", "crowding": 0.554}},
            "It stayed at its start: a class of the first task and the one most like it are 0.55 alike, and below 0.70 "
            "it wins little.",
        ),
        (moved(2, "rests"), f"It rests at its start: moved, it won {HELD_OUT} on held-out training pictures."),
        ({"adapter": {"state": "rests"}}, "It rests at its start: moved, it won – on held-out training pictures."),
        (
            {"adapter": {**moved(2)["adapter"], "tested": None}},
            f"It moved by forward passes alone: {HELD_OUT} on held-out training pictures.",
        ),
        (
            {"adapter": {**moved(2)["adapter"], "tested": None}, "options": {"estimator": "exact"}},
            f"It moved by exact gradients: {HELD_OUT} on held-out training pictures.",
        ),
        (
            moved(2),
            "It moved by forward passes alone: +5.0 points (95 %: +3.0 to +7.0) on 1,200 test pictures, "
            f"{HELD_OUT} on held-out training pictures.",
        ),
    ],
)
def test_the_adapter_sentence_says_what_became_of_it_and_what_it_won(changes, told):
    result = make_result(2, **changes)
    assert adapter_sentence(check_result(result)) == told
    in_summary = " ".join(summary(result).split())
    assert (f"Adapter: {told.replace('–', '-')}" in in_summary) is bool(told)


def test_what_the_adapter_won_is_told_task_by_task():
    result = make_result(2, **moved(2))
    result["accuracy_matrix"], result["stage_accuracy"] = [[0.9], [0.8, 0.7]], [0.9, 0.75]
    result["frozen_head"] |= {"accuracy_matrix": [[0.85], [0.825, 0.6]], "stage_accuracy": [0.85, 0.71]}
    assert adapter_rows(check_result(result)) == [
        ("90.0 %", "85.0 %", "+5.0", "-2.5"),
        ("75.0 %", "71.0 %", "+4.0", "+10.0"),
    ]


def test_a_task_without_test_pictures_is_a_dash_in_what_the_adapter_won():
    rows = adapter_rows(check_result(make_result(2, tested=False, **moved(2))))
    assert len(rows) == 2
    assert all((row[0], *row[2:]) == ("–", "–", "–") and row[1].endswith(" %") for row in rows)


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": None},
        {"adapter": {"state": "start"}},
        {"frozen_head": None},
        {"frozen_head": {"accuracy_matrix": [], "stage_accuracy": []}},
        {"accuracy_matrix": [], "stage_accuracy": []},
    ],
)
def test_there_is_no_head_alone_where_the_adapter_never_left_its_start(changes):
    run = check_result(make_result(2, **{**moved(2), **changes}))
    assert head_alone(run) is None
    assert adapter_rows(run) == []


@pytest.mark.parametrize(
    ("right_moved", "keeps", "told"), [(31, True, "+2.5"), (29, True, "-2.5"), (30, True, "+0.0"), (20, False, "rests")]
)
def test_a_gate_is_one_word_in_the_history(right_moved, keeps, told):
    assert gate_word({"held_out": 40, "right_frozen": 30, "right_moved": right_moved, "keeps": keeps}) == told


def test_where_no_gate_was_passed_the_history_says_nothing():
    assert gate_word(None) == gate_word({"held_out": 0, "right_frozen": 0, "right_moved": 0, "keeps": True}) == ""


def test_numbers_and_missing_ones_are_written_for_people():
    assert [percent(0.0), percent(1), percent(None)] == ["0.0 %", "100.0 %", "–"]
    assert [duration(4.25), duration(252), duration(7260), duration(None)] == ["4.2 s", "4 min 12 s", "2 h 1 min", "–"]
    assert [number(48_000), number(0.5, "s", 2), number(2**53), number(None)] == ["48,000", "0.50 s", "9.01e+15", "–"]


def test_a_table_aligns_its_columns_and_wraps_the_last():
    rows = [("MiB", "what"), (1, "short"), (120.5, "some words that take more than one line")]
    assert table(rows, "rl", 30).splitlines() == [
        "  MiB  what",
        "    1  short",
        "120.5  some words that take",
        "       more than one line",
    ]
    assert table(rows, "rl").splitlines()[2] == "120.5  some words that take more than one line"
    assert table([("a\nb\x1b[31m", "c")], "ll") == "a b\ufffd[31m  c"
    assert table([], "ll", 80) == ""
