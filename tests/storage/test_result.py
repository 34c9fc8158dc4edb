"""``result.json``: what stands in it agrees, an earlier file opens, and a forged one ends in one sentence."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_result

from edge_zofc.algorithm.paired import gain
from edge_zofc.errors import DamagedFileError
from edge_zofc.storage.result import MOST_CELLS, check_result, read_result, stream_folder

NEW = ("classes", "confusion", "wrong_pictures", "next_steps", "stream_folder")
WON = {"pictures": 8, "right_frozen": 5, "right_moved": 6, "gain": 0.125, "low": -0.1, "high": 0.3}
PICTURES = {"class_id": 0, "named_id": 1, "paths": ["001_a/test/x/1.png"]}


def test_a_file_without_the_counts_opens_as_before() -> None:
    old = {key: value for key, value in make_result(2).items() if key not in NEW}
    found = check_result(json.dumps(old).encode())
    assert (found.classes, found.confusion, found.wrong_pictures, found.next_steps) == ([], None, [], [])
    assert found.stream_folder is None and stream_folder(found, Path("run")) is None


def test_the_counts_come_back_from_the_file_as_they_were(tmp_path: Path) -> None:
    made = make_result(2, wrong_pictures=[PICTURES])
    (tmp_path / "result.json").write_text(json.dumps(made))
    again = read_result(tmp_path).model_dump(mode="json")
    assert {key: again[key] for key in NEW[:4]} == {key: made[key] for key in NEW[:4]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": ["digit 0"] * 4}, "a class stands in it twice"),
        ({"classes": []}, "more than were tested"),
        ({"classes": make_result(1)["classes"]}, "2 classes are counted of 4"),
        ({"confusion": [[0, 4, 1]]}, "no mistake of 4"),
        ({"confusion": [[4, 0, 1]]}, "no mistake of 4"),
        ({"confusion": [[1, 1, 1]]}, "no mistake"),
        ({"confusion": [[0, 1, 0]]}, "no mistake"),
        ({"confusion": [[0, 1, 37]]}, "37 wrong pictures"),
        ({"confusion": [[0, 1, 30], [0, 2, 30]]}, "60 wrong pictures"),
        ({"confusion": [[0, 1]]}, "at least 3"),
        ({"confusion": [[0, 1, 1, 1]]}, "at most 3"),
        ({"confusion": [[0, 1, -1]]}, "greater than or equal to 0"),
        ({"confusion": [[0, 1, 1.5]]}, "integer"),
        ({"confusion": [[0, 1, True]]}, "integer"),
        ({"confusion": [[0, 1, 1]] * (MOST_CELLS + 1)}, f"at most {MOST_CELLS}"),
        ({"confusion": "all"}, "Input should be a valid"),
        ({"classes": [{"train_images": 1, "test_images": 1, "accuracy": 1.01}] * 4}, "less than or equal to 1"),
        ({"classes": [{"train_images": -1, "test_images": 1}] * 4}, "greater than or equal to 0"),
        ({"wrong_pictures": [{**PICTURES, "named_id": 4}]}, "beyond the 4"),
        ({"wrong_pictures": [{**PICTURES, "paths": ["/etc/passwd"]}]}, "leaves the stream"),
        ({"wrong_pictures": [{**PICTURES, "paths": ["001_a/../../secret.png"]}]}, "leaves the stream"),
        ({"wrong_pictures": [{**PICTURES, "paths": ["a\0b"]}]}, "leaves the stream"),
        ({"wrong_pictures": [{**PICTURES, "paths": ["a" * 1001]}]}, "at most 1000"),
        ({"wrong_pictures": [{**PICTURES, "paths": ["a"] * 21}]}, "at most 20"),
        ({"wrong_pictures": [PICTURES] * 101}, "at most 100"),
        ({"next_steps": ["more"] * 11}, "at most 10"),
        ({"next_steps": [7]}, "string"),
        ({"stream_folder": 7}, "string"),
        ({"adapter": {"state": "flew"}}, "'moved', 'rests' or 'start'"),
        ({"adapter": {"state": "moved", "held_out": {**WON, "right_moved": 9}}}, "more than the 8 pictures"),
        (
            {"adapter": {"state": "moved", "tested": {**WON, "right_frozen": 6}}},
            "the gain is 0.125, not that of 6 and 6",
        ),
        ({"adapter": {"state": "moved", "tested": {**WON, "low": 0.2}}}, "outside of its interval"),
        ({"adapter": {"state": "moved", "tested": {**WON, "high": 4.0}}}, "less than or equal to 3"),
    ],
)
def test_a_forged_count_is_refused_with_one_sentence(changes: dict[str, Any], words: str) -> None:
    made = {**copy.deepcopy(make_result(2)), **changes}
    for data in (json.dumps(made).encode(), made):
        with pytest.raises(DamagedFileError, match=r"result\.json is damaged at") as caught:
            check_result(data)
        assert words in str(caught.value)


@pytest.mark.parametrize("counts", [(0, 0, 0), (7, 3, 5), (3, 1, 0), (10**6, 333_333, 333_334)])
def test_every_gain_that_is_computed_is_read(counts: tuple[int, int, int]) -> None:
    pictures, frozen, moved = counts
    value, low, high = gain(frozen, moved, pictures)
    won = {"pictures": pictures, "right_frozen": frozen, "right_moved": moved, "gain": value, "low": low, "high": high}
    found = check_result(json.dumps(make_result(1, adapter={"state": "rests", "held_out": won})).encode())
    assert found.adapter is not None and found.adapter.held_out is not None
    assert found.adapter.held_out.model_dump() == won


def test_the_streams_folder_moves_with_the_run(tmp_path: Path) -> None:
    beside, far = (check_result(make_result(1, stream_folder=place)) for place in ("../camera", "/mnt/camera"))
    assert stream_folder(beside, tmp_path / "run") == tmp_path / "camera"
    assert stream_folder(far, tmp_path / "run") == Path("/mnt/camera")
    assert stream_folder(check_result(make_result(1, stream_folder="a\0b")), tmp_path) is None
