"""What the page says of classes: the worst first, a matrix that adds up, names of any script, bounded lengths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_runs import make_result, make_run, mistakes
from pages import page_of

from edge_zofc.report.classes import MOST_CARDS, MOST_ROWS, cards, matrix
from edge_zofc.report.summary import summary
from edge_zofc.storage.result import check_result

NAMES = ["\U0001f600\u200d\U0001f525", "\u732b" * 50, "\u05d7\u05ea\u05d5\u05dc <b>", "w" * 300, "a & b", "\u202eevil"]


def test_the_least_accurate_class_stands_first_and_an_untested_one_last() -> None:
    result = make_result(2)
    result["confusion"] = [[1, 2, 5], [2, 0, 3]]
    result["classes"] = [
        {"train_images": 9, "test_images": 10, "accuracy": 1.0},
        {"train_images": 8, "test_images": 10, "accuracy": 0.5},
        {"train_images": 7, "test_images": 10, "accuracy": 0.7},
        {"train_images": 6, "test_images": 0, "accuracy": None},
    ]
    found = cards(check_result(result))
    assert [card.class_id for card in found] == [1, 2, 0, 3]
    assert (found[0].often, found[0].times, found[0].train, found[0].test) == (2, 5, 8, 10)
    assert found[2].often is None


@pytest.mark.parametrize("tasks", [1, 8, 20, 50, 120])
def test_a_row_of_the_matrix_has_all_columns_and_its_test_pictures(tasks: int) -> None:
    result = check_result(make_result(tasks))
    found = matrix(result)
    assert found is not None
    ids = list(found.rows)
    assert len(ids) == min(2 * tasks, MOST_ROWS) and found.left_out == max(0, 2 * tasks - MOST_ROWS)
    assert ids == sorted(ids)
    for class_id, cells in found.rows.items():
        assert sum(cell.span for cell in cells) == len(ids)
        shown = sum(cell.count for cell in cells)
        assert shown == result.classes[class_id].test_images if not found.left_out else shown <= 36
        column = 0
        for cell in cells:
            assert not cell.count or ids[column] == cell.named_id
            column += cell.span


@pytest.mark.parametrize("changes", [{"confusion": None}, mistakes(4, tested=False)])
def test_what_was_not_measured_has_no_matrix(tmp_path: Path, changes: dict[str, object]) -> None:
    result = make_run(tmp_path, 2, **changes)
    assert matrix(check_result(result)) is None
    text = page_of(tmp_path).text
    assert "Which class is taken for which" not in text and "Classes" in text


def test_a_result_of_an_earlier_version_says_so_and_keeps_its_page(tmp_path: Path) -> None:
    new = ("classes", "confusion", "wrong_pictures", "next_steps")
    result = {key: value for key, value in make_run(tmp_path, 2).items() if key not in new}
    (tmp_path / "result.json").write_text(json.dumps(result))
    text = page_of(tmp_path).text
    assert "an earlier edge-zofc wrote it" in text and "What to do next" not in text and "What it cost" in text


def test_names_of_any_script_are_whole_escaped_and_bounded(tmp_path: Path) -> None:
    make_run(tmp_path, 3, class_names=NAMES)
    page = page_of(tmp_path)
    assert "b" not in {tag for tag, _ in page.tags}
    for name in (NAMES[0], NAMES[1], NAMES[2], NAMES[4], "\ufffdevil"):
        assert name in page.text
    assert "w" * 59 + "\u2026" in page.text and "w" * 250 not in page.text
    assert page.count("bdi") > 12


def test_more_classes_than_a_page_has_room_for_are_counted(tmp_path: Path) -> None:
    make_run(tmp_path, 150)
    page = page_of(tmp_path)
    assert f"{300 - MOST_CARDS} more classes are in result.json" in page.text
    assert f"Shown are the {MOST_ROWS} classes with the most mistakes of 300" in page.text
    assert (tmp_path / "report.html").stat().st_size < 1_500_000


def test_a_run_without_a_mistake_says_so(tmp_path: Path) -> None:
    counted = [{"train_images": 9, "test_images": 10, "accuracy": 1.0}] * 4
    make_run(tmp_path, 2, classes=counted, confusion=[], next_steps=[])
    text = page_of(tmp_path).text
    assert "No test picture was named wrongly." in text and "What to do next" not in text


def test_the_next_step_ends_the_page_and_the_terminal(tmp_path: Path) -> None:
    sentence = "Take more pictures of <b>\u732b</b> and pear: 9 of 40."
    result = make_run(tmp_path, 2, next_steps=[sentence])
    page = page_of(tmp_path)
    assert sentence in page.text.split("What to do next")[1]
    assert "Next: Take more pictures of <b>\\u732b</b> and pear: 9 of 40." in " ".join(summary(result).split())
    assert summary(result).isascii()
