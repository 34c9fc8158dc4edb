"""The page holds every number, points nowhere and obeys nothing that came out of a file."""

from __future__ import annotations

import json
import re

import pytest
from made_runs import make_result, make_run, moved, write_events
from pages import Page, page_of

from edge_zofc.errors import DamagedFileError
from edge_zofc.report.curves import LISTED_LINES, read_log
from edge_zofc.report.summary import summary, write_report
from edge_zofc.report.text import adapter_rows, adapter_sentence, headline
from edge_zofc.storage.result import check_result

REFERENCES = {"href", "src", "xlink:href", "action", "data", "poster", "srcset", "formaction", "background"}


@pytest.mark.parametrize(("tasks", "charts"), [(1, 3), (2, 5), (5, 5), (40, 5)])
def test_the_page_is_one_file_that_points_nowhere(tmp_path, tasks, charts):
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
    assert page.count("svg") == charts
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
    for words in ("431.2 MiB", "300.4 MiB", "131.9 MiB", "462.0 MiB", "512.0 MiB", "0.550 s", "24,000 (240 a step)"):
        assert words in text
    for row in result["accuracy_matrix"]:
        assert " ".join(f"{100 * value:.1f}" for value in row) in text
    assert result["forgetting_definition"] in text
    for words in ("vit_tiny_patch16_96", "cpu-512mib", "one-sided", "1993", "option batch_size 48"):
        assert words in text


@pytest.mark.parametrize("state", ["moved", "rests", "start"])
def test_the_adapter_has_a_section_and_a_table_where_it_left_its_start(tmp_path, state):
    changes = moved(3, state) if state != "start" else {"adapter": {"state": state}}
    result = check_result(make_run(tmp_path, 3, **changes))
    text = page_of(tmp_path).text
    assert f"Adapter {adapter_sentence(result)}" in text
    assert ("Points won" in text) is (state != "start")
    for row in adapter_rows(result):
        assert " ".join(row) in text


def test_where_nobody_asked_the_page_says_nothing_of_the_adapter(tmp_path):
    make_run(tmp_path, 3)
    assert "Adapter" not in page_of(tmp_path).text


def test_the_same_run_gives_the_same_page(tmp_path):
    make_run(tmp_path, 3)
    first = write_report(tmp_path).read_bytes()
    assert write_report(tmp_path, tmp_path / "other.html").read_bytes() == first


def test_names_from_files_are_shown_and_never_obeyed(tmp_path):
    bad = "<script>alert(1)</script>"
    quote = "\"' onload=alert(2) x='"
    result = make_result(2, stream=bad, backbone=quote, preset="&lt;b&gt;", options={bad: quote}, device_profile=bad)
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


def test_a_name_that_looks_like_a_template_stays_a_name(tmp_path):
    names = ["{{ 7 * 7 }}", "{% for x in y %}", "{# gone #}", "{{ run.__class__ }}"]
    make_run(tmp_path, 2, stream=names[0], class_names=names, options={names[1]: names[2]})
    text = page_of(tmp_path).text
    assert "49" not in text.split("preset")[0]
    assert text.count(names[0]) >= 3 and all(name in text for name in names)


def test_every_value_of_the_page_is_one_clean_line_of_bounded_length(tmp_path):
    """The template shows `run.stream` and its like as they are: the environment makes them printable."""
    long = "x\x1b[31m\n" + "y" * 5000
    make_run(tmp_path, 1, stream=long, backbone=long, preset=long, edge_zofc=long, forgetting_definition=long)
    markup = write_report(tmp_path).read_text(encoding="utf-8")
    assert "\x1b" not in markup and "x\ufffd[31m\ufffd" in markup and "y" * 300 not in markup


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
    result.update(
        tasks=[],
        accuracy_matrix=[],
        stage_accuracy=[],
        steps=0,
        class_names=[],
        forward_passes=0,
        classes=[],
        confusion=None,
    )
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


def test_events_with_values_of_any_kind_are_passed_over(tmp_path):
    odd = [None, True, -1, 1e308, "x", [], {}, [[[]]]]
    kinds = ["step", "image_skipped", "note", "micro_batch_halved", "stopped", "run_started", "evaluated", 7, None]
    keys = ("step", "task", "loss", "rss_mib", "path", "reason", "text", "from", "to", "signal")
    events = [{"event": kind, **dict.fromkeys(keys, value)} for kind in kinds for value in odd]
    make_run(tmp_path, 1)
    write_events(tmp_path, *events)
    page_of(tmp_path)
