"""Results and logs are read whole or not at all, and a long log stays small."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import make_result, make_run, write_events

from edge_zofc.errors import DamagedFileError, printable
from edge_zofc.report.curves import CURVE_POINTS, Curve, read_log
from edge_zofc.report.summary import summary, write_report
from edge_zofc.storage.result import check_result, read_result


def test_the_forgetting_of_the_tasks_has_the_forgetting_of_the_run_as_its_mean():
    matrix = [[0.9], [0.95, 0.8], [0.5, 0.85, 1.0]]  # best 0.95 then 0.5; best 0.85 at the end: nothing lost
    run = check_result(make_result(3, accuracy_matrix=matrix, stage_accuracy=[0.9, 0.875, 0.78]))
    assert run.task_forgetting() == [pytest.approx(0.45), 0.0]
    made = make_result(7)
    lost = check_result(made).task_forgetting()
    assert sum(lost) / len(lost) == pytest.approx(made["forgetting"])


def test_a_curve_keeps_all_points_while_there_is_room_and_the_extremes_for_ever():
    curve = Curve(capacity=4)
    for step in range(4):
        curve.add(step, float(step))
    assert [bucket.mean for bucket in curve.buckets] == [0, 1, 2, 3]
    curve.add(4, 4.0)
    assert [(b.first, b.count, b.mean) for b in curve.buckets] == [(0, 2, 0.5), (2, 2, 2.5), (4, 1, 4.0)]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(2, 20))
def test_a_thinned_curve_loses_no_step_and_no_extreme(values, capacity):
    curve = Curve(capacity=capacity)
    for step, value in enumerate(values):
        curve.add(step, value)
    assert len(curve.buckets) <= capacity
    assert sum(bucket.count for bucket in curve.buckets) == len(values)
    assert min(bucket.low for bucket in curve.buckets) == min(values)
    assert max(bucket.high for bucket in curve.buckets) == max(values)
    assert math.isclose(sum(b.total for b in curve.buckets), sum(values), rel_tol=1e-9, abs_tol=1e-3)
    assert [bucket.first for bucket in curve.buckets] == sorted({bucket.first for bucket in curve.buckets})


@settings(max_examples=50)
@given(st.lists(st.integers(0, 60), max_size=200))
def test_steps_in_any_order_leave_a_curve_that_runs_forward(steps):
    curve = Curve(capacity=8)
    for step in steps:
        curve.add(step, 1.0)
    firsts = [bucket.first for bucket in curve.buckets]
    assert firsts == sorted(set(firsts)) and len(firsts) <= 8


def test_a_long_log_becomes_at_most_2000_points_a_curve_with_its_peak(tmp_path):
    with (tmp_path / "events.jsonl").open("w") as file:
        for step in range(30_000):
            rss = 777.0 if step == 12_345 else 300.0
            file.write(f'{{"event":"step","step":{step},"task":{step // 10_000},"loss":1.0,"rss_mib":{rss}}}\n')
    log = read_log(tmp_path)
    assert 500 < len(log.rss_mib.buckets) <= CURVE_POINTS
    assert max(bucket.high for bucket in log.rss_mib.buckets) == 777.0
    assert log.task_starts == [(0, 0), (10_000, 1), (20_000, 2)]


def test_the_older_part_of_a_long_log_is_read_first(tmp_path):
    """FAULTS B9: the log is rotated at 32 MiB, and the report began where the newer part does."""
    steps = [{"event": "step", "step": k, "task": k // 3, "loss": float(k)} for k in range(6)]
    write_events(tmp_path, {"event": "note", "text": "old"}, *steps[:4])
    (tmp_path / "events.jsonl").rename(tmp_path / "events.jsonl.1")
    assert len(read_log(tmp_path).loss.buckets) == 4  # cut off while it was rotated
    write_events(tmp_path, *steps[4:], {"event": "note", "text": "new"})
    log = read_log(tmp_path)
    assert [(b.first, b.mean) for b in log.loss.buckets] == [(k, k) for k in range(6)]
    assert log.notes == ["old", "new"]
    assert log.task_starts == [(0, 0), (3, 1)]


def test_a_resumed_run_counts_the_later_record_of_a_step(tmp_path):
    first = [{"event": "step", "step": k, "task": k // 3, "loss": 1.0} for k in range(6)]
    second = [{"event": "step", "step": k, "task": k // 3, "loss": 2.0} for k in range(2, 7)]
    write_events(tmp_path, {"event": "run_started"}, *first, {"event": "run_started"}, *second)
    log = read_log(tmp_path)
    assert [(b.first, b.mean) for b in log.loss.buckets] == [(0, 1), (1, 1), *((k, 2) for k in range(2, 7))]
    assert log.task_starts == [(0, 0), (3, 1), (6, 2)]
    assert log.starts == 2


def test_printable_leaves_words_and_takes_control_characters():
    assert printable("naïve 猫 می‌خواهم") == "naïve 猫 می‌خواهم"
    assert printable("a\nb\x1b\u202e\ud800") == "a\ufffdb\ufffd\ufffd\ufffd"
    assert (
        printable("\u3042\u3000\u3044 \U0001f469\u200d\U0001f680") == "\u3042\u3000\u3044 \U0001f469\u200d\U0001f680"
    )  # FAULTS A3
    assert printable("x" * 400) == "x" * 299 + "…"


def test_a_result_cut_anywhere_is_damaged_and_never_half_read(tmp_path):
    make_run(tmp_path, 2)
    path = tmp_path / "result.json"
    whole = path.read_bytes()
    for size in (*range(80), *range(80, len(whole), 37), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedFileError, match="run learn again"):
            read_result(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 2},
        {"completed": 1},
        {"steps": "12"},
        {"steps": -1},
        {"steps": 1.5},
        {"steps": 10**30},
        {"peak_rss_mib": 1e300},
        {"peak_rss_mib": -1.0},
        {"last_accuracy": 1.01},
        {"last_accuracy": "0.5"},
        {"forgetting": -7.0},
        {"accuracy_matrix": [[0.5], [0.5]]},
        {"accuracy_matrix": [[0.5, 0.5], [0.5, 0.5]]},
        {"accuracy_matrix": 3},
        {"stage_accuracy": [0.5]},
        {"accuracy_matrix": [[0.5] * (i + 1) for i in range(3)], "stage_accuracy": [0.5] * 3},
        {"class_names": ["one"]},
        {"class_names": [1, 2, 3, 4]},
        {"tasks": [{}]},
        {"tasks": None},
        {"class_mean_floor": []},
        {"options": []},
    ],
)
def test_a_result_of_the_wrong_shape_is_damaged(tmp_path, changes):
    result = {**make_result(2), **changes}
    (tmp_path / "result.json").write_text(json.dumps(result))
    with pytest.raises(DamagedFileError, match="is damaged at"):
        write_report(tmp_path)
    with pytest.raises(DamagedFileError):
        summary(result)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe{",
        b"[" * 100_000,
        b'{"format_version":' + b"9" * 5000 + b"}",
        b'{"x":' * 5000,
        b"\x00" * 100,
    ],
)
def test_a_result_that_is_no_result_is_damaged(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(DamagedFileError):
        read_result(tmp_path)


def test_not_a_number_is_refused_in_a_result(tmp_path):
    for word in ("NaN", "Infinity", "-Infinity", "1e999"):
        text = json.dumps(make_result(2, last_accuracy=0.123456)).replace("0.123456", word)
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(DamagedFileError):
            read_result(tmp_path)


@settings(max_examples=30)
@given(st.binary(max_size=400))
def test_no_bytes_in_the_log_stop_the_reader(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("run")
    (folder / "events.jsonl").write_bytes(content)
    read_log(folder)


def test_a_pipe_or_a_link_in_place_of_the_log_is_refused(tmp_path):
    make_run(tmp_path, 1)
    (tmp_path / "events.jsonl").rename(tmp_path / "elsewhere")
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedFileError):
        write_report(tmp_path)
