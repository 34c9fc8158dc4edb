"""A run that is shown pictures: what it knows, forgetting to the bit, renaming, taking back, closing, kills."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import FAST, go
from small import picture, write_small_stream

from edge_zofc.algorithm.statistics import Statistics
from edge_zofc.engine.begin import begin_run
from edge_zofc.engine.class_parts import CLASSES, class_of, keys_of, load_part
from edge_zofc.engine.predict import open_run, run_bundle
from edge_zofc.engine.teaching import Teaching
from edge_zofc.errors import DamagedFileError, DoesNotFitError, InputError, RunLockedError
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.lesson_log import UNDO_DEPTH
from edge_zofc.storage.run_folder import RunFolder

LDA = {**FAST, "head": "lda"}


def files(class_number: int, count: int, first: int = 0) -> list[bytes]:
    """Pictures of a class, as bytes of PNG files."""
    found = []
    for index in range(first, first + count):
        file = io.BytesIO()
        picture(class_number, index).save(file, "PNG")
        found.append(file.getvalue())
    return found


@contextmanager
def opened(folder: Path) -> Iterator[Teaching]:
    run = RunFolder(folder)
    settings_ = run.settings()
    teaching = Teaching(run, run_bundle(run, settings_, None), settings_)
    try:
        yield teaching
    finally:
        teaching.close()


def begin(bundle: Bundle, folder: Path) -> Path:
    begin_run(RunFolder(folder), bundle, "cpu-2gib", None, {"adapter": "off"})
    return folder


def bits(run: Teaching) -> tuple[tuple[str, ...], bytes, bytes]:
    assert run.head.biases is not None
    return run.class_names, run.head.rows.tobytes(), run.head.biases.tobytes()


@pytest.fixture(scope="module")
def learnt(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learnt three tasks of two classes with an adapter that moved."""
    folder = tmp_path_factory.mktemp("learnt")
    go(small_bundle, write_small_stream(folder / "stream", alike=True), folder / "run", changes=LDA)
    return folder / "run"


@pytest.fixture
def run(learnt: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(learnt, tmp_path / "run"))


def test_a_new_run_knows_what_it_was_shown_at_once_and_after_it_is_opened_again(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    folder = begin(small_bundle, tmp_path / "run")
    with opened(folder) as run:
        for number in (0, 3):
            assert run.teach(files(number, 4), f"thing {number}") == ([4 * (number > 0) + n for n in (1, 2, 3, 4)], [])
        features = [run.features_of(data, "x") for number in (0, 3) for data in files(number, 3, first=20)]
        named = [run.class_names[i] for i in run.head.logits(np.stack(features)).argmax(axis=-1)]
        assert named == ["thing 0"] * 3 + ["thing 3"] * 3
        known = bits(run)
    with opened(folder) as run:
        assert bits(run) == known
    shutil.rmtree(folder / "lesson" / "features")
    with opened(folder) as run:  # computed again from the pictures
        assert bits(run) == known
    assert open_run(folder).class_names == ("thing 0", "thing 3")


def test_what_is_shown_joins_what_was_learnt_and_predict_knows_it(run: Path) -> None:
    before = open_run(run)
    with opened(run) as teaching:
        teaching.teach(files(9, 3), "new thing")
        teaching.teach(files(0, 1, first=30), before.class_names[0])
        assert teaching.class_names == (*before.class_names, "new thing")
        assert teaching.knowledge is not None
        assert teaching.knowledge.statistics.counts.tolist() == [9, *[8] * 5, 3]
    after = open_run(run)
    assert after.class_names == (*before.class_names, "new thing")
    assert not np.array_equal(after.head.rows[0], before.head.rows[0])


ADAPTERS = {
    "off": {"adapter": "off"},
    "auto": {"adapter": "auto", "estimator": "spsa", "steps": 6, "batch_size": 8, "queries": 2, "adapter_lr": 0.01},
}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_forgetting_a_learnt_class_leaves_the_head_of_a_run_that_never_saw_it(
    small_bundle: Bundle, tmp_path: Path, adapter: str
) -> None:
    """To the bit: the class joins in a later task than the one that the adapter moves in."""
    stream = write_small_stream(tmp_path / "stream", tasks=2, classes=4, alike=True)
    go(small_bundle, stream, tmp_path / "all", changes=ADAPTERS[adapter])
    gone = min(path.name for path in (stream / "001_task" / "train").iterdir())
    with opened(tmp_path / "all") as whole:
        assert np.array_equal(whole.theta, whole.bundle.initial_adapter()) == (adapter == "off")
        theta = whole.theta.copy()
        whole.forget(gone)
        found = bits(whole)
    for part in ("train", "test"):
        shutil.rmtree(stream / "001_task" / part / gone)
    go(small_bundle, stream, tmp_path / "without", changes=ADAPTERS[adapter])
    with opened(tmp_path / "without") as never:
        assert np.array_equal(theta, never.theta)
        assert bits(never) == found


@pytest.mark.parametrize("changes", [LDA, *ADAPTERS.values()], ids=["on", *ADAPTERS])
def test_what_all_classes_gave_is_what_the_run_knows(
    small_bundle: Bundle, tmp_path: Path, changes: dict[str, object]
) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=2, classes=4, alike=True)
    go(small_bundle, stream, tmp_path / "run", changes=changes)
    with opened(tmp_path / "run") as run:
        assert run.state.statistics is not None
        left = run.state.statistics
        for key in keys_of(run.state.finished_tasks, range(8)):
            part = load_part(tmp_path / "run", key, not np.array_equal(run.theta, run.bundle.initial_adapter()), 32)
            sums, counts = np.zeros_like(left.sums), np.zeros_like(left.counts)
            sums[class_of(key)], counts[class_of(key)] = part.sums[0], part.counts[0]
            left = left.minus(Statistics(sums, counts, part.moment))
        assert not left.sums.any()
        assert not left.counts.any()
        assert not left.moment.any()


def test_forgetting_what_was_shown_is_as_if_it_had_never_been(run: Path) -> None:
    with opened(run) as teaching:
        teaching.teach(files(9, 3), "new thing")
        before = bits(teaching)
        teaching.teach(files(11, 3), "other thing")
        teaching.forget("other thing")
        assert bits(teaching) == before
        assert len(list((run / "lesson" / "pictures").iterdir())) == 6  # it can be taken back


def test_the_files_of_what_was_forgotten_leave_the_disk_once_it_cannot_be_taken_back(run: Path) -> None:
    with opened(run) as teaching:
        teaching.teach(files(9, 1), "new thing")
        teaching.forget("new thing")
        for count in range(UNDO_DEPTH):
            teaching.rename(teaching.class_names[0], f"name {count}")
        assert list((run / "lesson" / "pictures").iterdir()) == []
        for _ in range(UNDO_DEPTH):
            teaching.undo()
        with pytest.raises(InputError, match="nothing to take back"):
            teaching.undo()  # the forgetting itself
        assert "new thing" not in teaching.class_names


def test_a_burst_over_several_calls_is_one_and_one_undo_takes_it_back(run: Path) -> None:
    with opened(run) as teaching:
        before, pictures = bits(teaching), files(9, UNDO_DEPTH + 5)
        teaching.rename(teaching.class_names[0], "cup")
        (first,), _ = teaching.teach(pictures[:1], "new thing")
        for data in pictures[1:]:
            teaching.teach([data], "new thing", burst=first)
        teaching.teach(files(10, 1), "new thing")
        assert {picture.burst for picture in teaching.pictures()} == {first, first + len(pictures)}
        assert teaching.undo().files == (f"{first + len(pictures):06}.png",)
        assert len(teaching.undo().files) == len(pictures)
        assert teaching.undo().kind == "rename" and bits(teaching) == before
        with pytest.raises(InputError, match="no burst"):
            teaching.teach(files(9, 1), "new thing", burst=10**6)


def test_a_name_may_be_given_to_another_thing_after_a_renaming(run: Path) -> None:
    with opened(run) as teaching:
        old = teaching.class_names[0]
        teaching.rename(old, "cup")
        teaching.teach(files(9, 3), old)
        assert teaching.class_names == ("cup", *teaching.class_names[1:-1], old)
        task = teaching.close_lesson()
        assert [path.name for path in (run / "lesson" / "tasks" / task / "train").iterdir()] == [f"{old} 2"]
        assert teaching.class_names[-1] == old


def test_a_class_that_is_called_like_another_one_becomes_part_of_it(run: Path) -> None:
    with opened(run) as teaching:
        first, second = teaching.class_names[:2]
        teaching.rename(first, second)
        assert teaching.class_names[0] == second
        assert second not in teaching.class_names[1:]
        assert teaching.knowledge is not None
        assert teaching.knowledge.statistics.counts[0] == 16


def test_pictures_move_and_go_by_their_numbers(run: Path) -> None:
    with opened(run) as teaching:
        numbers, _ = teaching.teach(files(9, 3), "new thing")
        teaching.move(numbers[:1], "another")
        teaching.remove(numbers[1:2])
        assert [(p.serial, p.name) for p in teaching.pictures()] == [(1, "another"), (3, "new thing")]
        for wrong in (numbers[1], 99):
            with pytest.raises(InputError, match="There is no picture"):
                teaching.move([wrong], "x")
        with pytest.raises(InputError, match="No picture"):
            teaching.remove([])


def test_a_closed_lesson_is_a_task_that_learn_learns_and_that_counts_once(run: Path, small_bundle: Bundle) -> None:
    with opened(run) as teaching:
        teaching.teach(files(9, 5), "new thing")
        teaching.teach(files(9, 2, first=10), "new thing", test=True)
        teaching.teach(files(0, 3, first=30), teaching.class_names[0])
        before = bits(teaching)
        assert teaching.close_lesson() == "001_lesson"
        assert bits(teaching) == before
        assert teaching.pictures() == []
        with pytest.raises(InputError, match="nothing to take back"):
            teaching.undo()
        with pytest.raises(InputError, match="not learnt yet"):
            teaching.forget("new thing")
    with opened(run) as teaching:
        assert bits(teaching) == before
        result = go(small_bundle, run / "lesson" / "tasks", run, changes={})
        assert result["tasks"][-1]["name"] == "001_lesson"
        assert teaching.refresh()
        assert teaching.knowledge is not None
        assert teaching.knowledge.statistics.counts.tolist() == [11, *[8] * 5, 5]
        teaching.forget("new thing")
        assert "new thing" not in teaching.class_names


def test_a_cut_between_the_closing_and_the_folder_is_made_good(run: Path) -> None:
    with opened(run) as teaching:
        teaching.teach(files(9, 2), "new thing")
        kept = shutil.copytree(run / "lesson" / "pictures", run / "kept")
        task = teaching.close_lesson()
        known = bits(teaching)
    shutil.rmtree(run / "lesson" / "tasks")
    shutil.copytree(kept, run / "lesson" / "pictures", dirs_exist_ok=True)
    with opened(run) as teaching:
        assert bits(teaching) == known
        teaching.teach(files(11, 1), "x")
    assert (run / "lesson" / "tasks" / task / "READY").exists()


def test_two_processes_do_not_teach_one_run(run: Path) -> None:
    with opened(run) as one, opened(run) as two:
        one.teach(files(9, 1), "new thing")
        with pytest.raises(RunLockedError, match="in use by process"):
            two.teach(files(9, 1), "new thing")
        assert two.class_names != one.class_names  # it may go on answering


@pytest.mark.parametrize("name", ["", " ", "a/b", "..", "-x", "x" * 65, "a\nb", "é" * 60 + "\u202e"])
def test_a_name_that_cannot_be_one_is_refused_before_anything_is_kept(run: Path, name: str) -> None:
    with opened(run) as teaching:
        with pytest.raises(InputError, match="cannot be the name"):
            teaching.teach(files(9, 1), name)
        assert teaching.pictures() == []


def test_an_unreadable_picture_is_told_and_the_others_are_kept(run: Path) -> None:
    with opened(run) as teaching:
        numbers, skipped = teaching.teach([b"no picture", *files(9, 2)], "new thing")
        assert (numbers, len(skipped)) == ([1, 2], 1)
        assert "picture 1 " in skipped[0]


def test_an_unknown_class_is_named_with_those_that_are_known(run: Path) -> None:
    with opened(run) as teaching, pytest.raises(InputError, match="There is no class 'nothing'; the classes are"):
        teaching.forget("nothing")


def test_a_run_with_a_cosine_head_cannot_be_shown_pictures(small_bundle: Bundle, tmp_path: Path) -> None:
    go(small_bundle, write_small_stream(tmp_path / "s", tasks=1), tmp_path / "run", changes={**FAST, "head": "cosine"})
    with opened(tmp_path / "run") as teaching, pytest.raises(InputError, match="--head lda"):
        teaching.teach(files(9, 1), "x")


def test_a_class_whose_parts_were_not_kept_is_refused_and_nothing_changes(run: Path) -> None:
    shutil.rmtree(run / CLASSES)
    with opened(run) as teaching:
        before = bits(teaching)
        with pytest.raises(InputError, match="was not kept"):
            teaching.forget(teaching.class_names[0])
        assert bits(teaching)[0] == before[0]


def test_a_damaged_part_is_told(run: Path) -> None:
    for path in (run / CLASSES).iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with opened(run) as teaching, pytest.raises(DamagedFileError, match="SHA-256"):
        teaching.forget(teaching.class_names[0])


def test_a_full_log_is_one_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_zofc.storage.lesson_log.MAX_LOG_BYTES", 100)
    with opened(run) as teaching, pytest.raises(DoesNotFitError, match="is full"):
        for count in range(3):
            teaching.teach(files(9, 1, first=count), "new thing")


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["teach", "forget", "rename", "undo", "test"]), st.integers(0, 3), st.integers(0, 3)),
    max_size=8,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS)
def test_whatever_is_done_the_head_is_that_of_the_pictures_that_count(
    small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int, int]]
) -> None:
    """The same bits after it is opened again, and as a run that was shown those pictures alone, in their order."""
    folder = begin(small_bundle, tmp_path_factory.mktemp("any") / "run")
    with opened(folder) as run:
        for kind, one, other in operations:
            try:
                if kind in ("teach", "test"):
                    run.teach(files(one, 2), f"class {one}", test=kind == "test")
                elif kind == "forget":
                    run.forget(f"class {one}")
                elif kind == "rename":
                    run.rename(f"class {one}", f"class {other}")
                else:
                    run.undo()
            except InputError:  # no such class, nothing to take back
                continue
        found = bits(run) if run.class_names else None
        counting = [(picture.name, picture.path.read_bytes()) for picture in run.pictures() if not picture.test]
    with opened(folder) as again:
        assert (bits(again) if again.class_names else None) == found
    with opened(begin(small_bundle, tmp_path_factory.mktemp("any") / "run")) as fresh:
        for name, data in counting:
            fresh.teach([data], name)
        assert (bits(fresh) if fresh.class_names else None) == found
