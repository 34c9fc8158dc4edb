"""Sentences and numbers say what the run came to, and a dash where it has none."""

from __future__ import annotations

from made_runs import make_result

from edge_zofc.report.text import duration, headline, memory_sentence, number, percent, verdict
from edge_zofc.storage.result import check_result


def test_the_headline_and_the_verdict_say_who_won_in_plain_words():
    floor = {
        "accuracy_matrix": [[0.607]],
        "stage_accuracy": [0.607],
        "average_accuracy": 0.7,
        "last_accuracy": 0.607,
    }
    result = make_result(1, last_accuracy=0.712, average_accuracy=0.8, class_mean_floor=floor)
    run = check_result(result)
    assert headline(run) == (
        "After 1 task and 2 classes the learner names 71.2 % of all test pictures; "
        "class means without any training: 60.7 %."
    )
    gain = "The learner beats the class-mean floor: +10.5 points at the end, +10.0 points on average over the stages."
    assert verdict(run) == ("good", gain)
    tone, sentence = verdict(check_result({**result, "last_accuracy": 0.5, "average_accuracy": 0.7}))
    assert tone == "bad" and sentence.startswith(
        "The learner does not beat the class-mean floor: -10.7 points"
    )
    tone, sentence = verdict(check_result({**result, "average_accuracy": 0.6}))
    assert tone == "" and "only in part: +10.5 points at the end, -10.0 points on average" in sentence


def test_a_tie_with_the_floor_is_not_called_a_win():
    result = make_result(3)
    tied = {**result, "class_mean_floor": {key: result[key] for key in result["class_mean_floor"]}}
    assert verdict(check_result(tied))[0] == "bad"


def test_the_memory_sentence_compares_peak_budget_and_prediction():
    run = check_result(make_result(peak_rss_mib=600.0, memory_budget_mib=500.0, predicted_peak_mib=450.0))
    assert memory_sentence(run) == (
        "The process took 600 MiB at its peak, 120 % of its budget of 500 MiB (over the budget); "
        "450 MiB had been predicted, 25 % below that."
    )
    assert (
        memory_sentence(check_result(make_result(peak_rss_mib=None))) == "The peak memory was not measured."
    )


def test_numbers_and_missing_ones_are_written_for_people():
    assert [percent(0.0), percent(1), percent(None)] == ["0.0 %", "100.0 %", "–"]
    assert [duration(4.25), duration(252), duration(7260), duration(None)] == [
        "4.2 s",
        "4 min 12 s",
        "2 h 1 min",
        "–",
    ]
    assert [number(48_000), number(0.5, "s", 2), number(2**53), number(None)] == [
        "48,000",
        "0.50 s",
        "9.01e+15",
        "–",
    ]
