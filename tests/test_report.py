from __future__ import annotations

import json
import math
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_zofc.errors import DamagedFileError, InputError
from edge_zofc.records import (
    CURVE_POINTS,
    LISTED_LINES,
    Curve,
    check_result,
    printable,
    read_log,
    read_result,
)
from edge_zofc.report import (
    duration,
    headline,
    memory_sentence,
    number,
    percent,
    summary,
    verdict,
    write_report,
)

made_runs = runpy.run_path(str(Path(__file__).with_name("made_runs.py")))
make_run, make_result = made_runs["make_run"], made_runs["make_result"]

VOID = {"meta", "link", "br", "img", "hr", "input"}
REFERENCES = {"href", "src", "xlink:href", "action", "data", "poster", "srcset", "formaction", "background"}


class Page(HTMLParser):
    """What a page holds: its tags, its text, where it points, and whether its tags nest."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def page_of(folder: Path) -> Page:
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert page.open == []
    return page


def write_events(folder: Path, *events: dict[str, object] | bytes) -> None:
    lines = (event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n" for event in events)
    (folder / "events.jsonl").write_bytes(b"".join(lines))


# Numbers to do in one's head.


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


def test_the_forgetting_of_the_tasks_has_the_forgetting_of_the_run_as_its_mean():
    matrix = [[0.9], [0.95, 0.8], [0.5, 0.85, 1.0]]  # best 0.95 then 0.5; best 0.85 at the end: nothing lost
    run = check_result(make_result(3, accuracy_matrix=matrix, stage_accuracy=[0.9, 0.875, 0.78]))
    assert run.task_forgetting() == [pytest.approx(0.45), 0.0]
    made = make_result(7)
    lost = check_result(made).task_forgetting()
    assert sum(lost) / len(lost) == pytest.approx(made["forgetting"])


# The page.


@pytest.mark.parametrize(("tasks", "pictures"), [(1, 3), (2, 5), (5, 5), (40, 5)])
def test_the_page_is_one_file_that_points_nowhere(tmp_path, tasks, pictures):
    make_run(tmp_path, tasks, steps=5)
    path = write_report(tmp_path)
    assert path == tmp_path / "report.html"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["events.jsonl", "report.html", "result.json"]
    markup = path.read_text(encoding="utf-8")
    page = Page(markup)
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in REFERENCES:
                assert value.startswith(("#", "data:")), (tag, name, value)
            assert "url(" not in (value or "") or "url(#" in value
    assert "@import" not in markup and "url(http" not in markup and "<metadata" not in markup
    assert page.count("svg") == pictures
    assert all(a.get("aria-label") and a.get("role") == "img" for tag, a in page.tags if tag == "svg")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_headline_number_of_the_result_stands_in_the_page(tmp_path):
    result = make_run(tmp_path, 5)
    text = page_of(tmp_path).text
    floor = result["class_mean_floor"]
    shown = [result[key] for key in ("last_accuracy", "average_accuracy", "mean_per_class_accuracy")]
    for fraction in (*shown, floor["last_accuracy"], floor["average_accuracy"]):
        assert f"{100 * fraction:.1f} %" in text
    assert f"{100 * result['forgetting']:.1f} points" in text
    assert f"{100 * result['backward_transfer']:+.1f} points" in text
    for words in (
        "431.2 MiB",
        "300.4 MiB",
        "131.9 MiB",
        "462.0 MiB",
        "512.0 MiB",
        "0.550 s",
        "24,000 (240 a step)",
    ):
        assert words in text
    for row in result["accuracy_matrix"]:
        assert " ".join(f"{100 * value:.1f}" for value in row) in text
    assert result["forgetting_definition"] in text
    for words in ("vit_tiny_patch16_96", "cpu-512mib", "one-sided", "1993", "option batch_size 48"):
        assert words in text


def test_the_same_run_gives_the_same_page(tmp_path):
    make_run(tmp_path, 3)
    first = write_report(tmp_path).read_bytes()
    assert write_report(tmp_path, tmp_path / "other.html").read_bytes() == first


def test_names_from_files_are_shown_and_never_obeyed(tmp_path):
    bad = "<script>alert(1)</script>"
    quote = "\"' onload=alert(2) x='"
    result = make_result(
        2, stream=bad, backbone=quote, preset="&lt;b&gt;", options={bad: quote}, device_profile=bad
    )
    result["class_names"] = [bad, "a\x00b\ud800c\u202ed", "$x_{", "\u732b"]
    result["tasks"][0]["name"] = "<img src=//x>"
    result["forgetting_definition"] = "</style><b>"
    (tmp_path / "result.json").write_bytes(json.dumps(result).encode())
    write_events(
        tmp_path,
        {"event": "image_skipped", "path": bad, "reason": quote},
        {"event": "note", "text": "<b>\ud800"},
        {"event": "stopped", "signal": "<i>"},
    )
    # A lone surrogate is no valid JSON text for a strict reader; events are read more kindly.
    with pytest.raises(DamagedFileError):
        write_report(tmp_path)
    result["class_names"][1] = "a\x00b\u202ed"
    (tmp_path / "result.json").write_bytes(json.dumps(result).encode())
    page = page_of(tmp_path)
    assert not {"script", "b", "i", "img"} & {tag for tag, _ in page.tags}
    assert not any("onload" in attributes for _, attributes in page.tags)
    for words in (bad, "&lt;b&gt;", "<img src=//x>", "a\ufffdb\ufffdd", "$x_{", "\u732b", "Stopped by <i>"):
        assert words in page.text


def test_without_test_pictures_the_page_has_dashes_and_no_accuracy(tmp_path):
    make_run(tmp_path, 3, tested=False)
    page = page_of(tmp_path)
    assert "has no accuracy: the stream has no test pictures" in page.text
    assert "cannot be said" in page.text
    assert page.count("svg") == 2  # memory and loss
    assert not re.search(r"\bnan\b", page.text.lower()) and "None" not in page.text.replace("None.", "")


def test_one_task_without_test_pictures_among_others_is_a_gap(tmp_path):
    matrix = [[None], [None, 0.9], [None, 0.8, 0.7]]
    result = make_run(tmp_path, 3, accuracy_matrix=matrix, stage_accuracy=[None, 0.9, 0.75])
    page = page_of(tmp_path)
    assert page.count("svg") == 5 and not re.search(r"\bnan\b", page.text.lower())
    assert check_result(result).task_forgetting() == [None, pytest.approx(0.1)]


def test_a_run_that_has_only_begun_is_reported_as_it_stands(tmp_path):
    nothing = {key: None for key, value in make_result(1).items() if isinstance(value, float)}
    result = make_result(1, **nothing, class_mean_floor=None, beats_class_mean_floor=None, completed=False)
    result.update(tasks=[], accuracy_matrix=[], stage_accuracy=[], steps=0, class_names=[], forward_passes=0)
    (tmp_path / "result.json").write_text(json.dumps(result))
    page = page_of(tmp_path)
    assert "This run is not finished" in page.text and "There is no events.jsonl" in page.text
    assert page.count("svg") == 0
    assert "Not finished" in summary(result)


def test_a_stopped_run_counts_only_the_tasks_that_it_finished(tmp_path):
    part = scores = make_result(2)
    keys = ("accuracy_matrix", "stage_accuracy", "average_accuracy", "last_accuracy", "forgetting")
    part = {key: scores[key] for key in keys}
    result = make_run(tmp_path, 5, **part, class_mean_floor=scores["class_mean_floor"], completed=False)
    assert headline(check_result(result)).startswith("After 2 tasks and 4 classes")
    assert page_of(tmp_path).count("svg") == 5


def test_losses_of_any_size_are_drawn_without_a_warning(tmp_path):
    make_run(tmp_path, 2)
    losses = [1e-9, 1e11, -5.0, 1e300, 0, True, None, "x", 10**400]
    write_events(
        tmp_path,
        *({"event": "step", "step": k, "task": 0, "loss": loss} for k, loss in enumerate(losses)),
        b'{"event": "step", "step": 20, "task": 0, "loss": NaN, "rss_mib": Infinity}\n',
        b'{"event": "step", "step": 1e400, "task": 0, "loss": 1}\n',
        {"event": "step", "step": -1, "loss": 1},
        {"event": "step", "step": 2**70, "loss": 1},
    )
    log = read_log(tmp_path)
    assert [bucket.first for bucket in log.loss.buckets] == [0, 1, 2, 4]
    assert log.rss_mib.buckets == [] and log.unreadable_lines == 0
    assert page_of(tmp_path).count("svg") == 4  # no memory was logged


def test_the_page_replaces_the_old_one_or_says_why_not(tmp_path):
    make_run(tmp_path, 1)
    (tmp_path / "report.html").write_text("old")
    assert write_report(tmp_path).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    with pytest.raises(InputError):
        write_report(tmp_path, tmp_path / "no" / "such" / "report.html")


# Curves.


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
            file.write(
                f'{{"event":"step","step":{step},"task":{step // 10_000},"loss":1.0,"rss_mib":{rss}}}\n'
            )
    log = read_log(tmp_path)
    assert 500 < len(log.rss_mib.buckets) <= CURVE_POINTS
    assert max(bucket.high for bucket in log.rss_mib.buckets) == 777.0
    assert log.task_starts == [(0, 0), (10_000, 1), (20_000, 2)]


def test_a_resumed_run_counts_the_later_record_of_a_step(tmp_path):
    first = [{"event": "step", "step": k, "task": k // 3, "loss": 1.0} for k in range(6)]
    second = [{"event": "step", "step": k, "task": k // 3, "loss": 2.0} for k in range(2, 7)]
    write_events(tmp_path, {"event": "run_started"}, *first, {"event": "run_started"}, *second)
    log = read_log(tmp_path)
    assert [(b.first, b.mean) for b in log.loss.buckets] == [(0, 1), (1, 1), *((k, 2) for k in range(2, 7))]
    assert log.task_starts == [(0, 0), (3, 1), (6, 2)]
    assert log.starts == 2


def test_lists_of_skipped_pictures_and_notes_are_bounded_and_counted(tmp_path):
    make_run(tmp_path, 1)
    write_events(
        tmp_path,
        *({"event": "image_skipped", "path": f"{k}.png", "reason": "truncated"} for k in range(130)),
        *({"event": "note", "text": "n" * 5000} for _ in range(60)),
        {"event": "micro_batch_halved", "from": 8, "to": 4, "reason": "no memory"},
    )
    log = read_log(tmp_path)
    assert (len(log.skipped), log.skipped_count) == (LISTED_LINES, 130)
    assert (len(log.notes), log.note_count) == (LISTED_LINES, 61)
    assert max(map(len, log.notes)) <= 300
    text = page_of(tmp_path).text
    assert "Skipped pictures (130)" in text and "49.png: truncated" in text and "and 80 more" in text


# The terminal.


@pytest.mark.parametrize("tasks", [1, 2, 5, 8, 9, 40])
@pytest.mark.parametrize("width", [20, 60, 100, 200])
def test_the_summary_fits_a_terminal_and_holds_the_numbers(tasks, width):
    result = make_result(tasks)
    lines = summary(result, width).splitlines()
    assert 12 <= len(lines) <= 36 and (width < 100 or len(lines) <= 25)
    assert max(map(len, lines)) <= max(60, width)
    text = "\n".join(lines)
    assert text.isascii()
    flat = " ".join(text.split())
    last = result["accuracy_matrix"][-1]
    assert f"{100 * last[0]:.1f}" in lines[-1 - lines[::-1].index("") - 1]
    assert f"{100 * result['last_accuracy']:.1f} %" in flat and "431 MiB" in flat and "0.550 s a step" in flat
    assert ("tasks shown" in flat) == (tasks > 8 or (tasks > 5 and width <= 60))


def test_the_summary_survives_names_that_are_no_ascii_or_drive_a_terminal():
    text = summary(make_result(2, backbone="\x1b[31mред\u202e", device_profile="\ud800"))
    assert text.isascii() and "\x1b" not in text


def test_the_summary_of_a_run_without_test_pictures_has_no_matrix():
    text = summary(make_result(3, tested=False))
    assert (
        "no task has test pictures" in text and not re.search(r"\bnan\b", text.lower()) and "None" not in text
    )


def test_printable_leaves_words_and_takes_control_characters():
    assert printable("naïve 猫 می‌خواهم") == "naïve 猫 می‌خواهم"
    assert printable("a\nb\x1b\u202e\ud800") == "a\ufffdb\ufffd\ufffd\ufffd"
    assert printable("x" * 400) == "x" * 299 + "…"


# Attacks.


def test_a_folder_without_a_run_says_what_to_do(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="run edge-zofc learn first"):
            write_report(folder)


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


def test_a_torn_last_line_is_nothing_and_other_bad_lines_are_counted(tmp_path):
    make_run(tmp_path, 1)
    good = {"event": "step", "step": 0, "task": 0, "loss": 0.5}
    bad = [b"\xff\xfe\n", b"not json\n", b"[1]\n", b"\n", b"[" * 50_000 + b"\n", b"9" * 5000 + b"\n"]
    huge = b"\x00" * (3 << 20) + b"\n"
    write_events(tmp_path, good, *bad, huge, {**good, "step": 1}, b'{"event": "step", "st')
    log = read_log(tmp_path)
    assert [bucket.first for bucket in log.loss.buckets] == [0, 1]
    assert log.unreadable_lines == len(bad) + 1
    assert "7 lines of events.jsonl could not be read" in page_of(tmp_path).text


@settings(max_examples=30)
@given(st.binary(max_size=400))
def test_no_bytes_in_the_log_stop_the_reader(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("run")
    (folder / "events.jsonl").write_bytes(content)
    read_log(folder)


def test_events_with_values_of_any_kind_are_passed_over(tmp_path):
    odd = [None, True, -1, 1e308, "x", [], {}, [[[]]]]
    kinds = [
        "step",
        "image_skipped",
        "note",
        "micro_batch_halved",
        "stopped",
        "run_started",
        "evaluated",
        7,
        None,
    ]
    keys = ("step", "task", "loss", "rss_mib", "path", "reason", "text", "from", "to", "signal")
    events = [{"event": kind, **dict.fromkeys(keys, value)} for kind in kinds for value in odd]
    make_run(tmp_path, 1)
    write_events(tmp_path, *events)
    page_of(tmp_path)


def test_a_pipe_or_a_link_in_place_of_the_log_is_refused(tmp_path):
    make_run(tmp_path, 1)
    (tmp_path / "events.jsonl").rename(tmp_path / "elsewhere")
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedFileError):
        write_report(tmp_path)
