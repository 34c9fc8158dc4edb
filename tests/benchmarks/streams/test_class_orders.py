"""Another class order of a stream is the one that ``split`` would have written, from the same pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from benchmark_problem import COLOURS, write_stream

from edge_zofc.benchmarks.accuracy import run
from edge_zofc.benchmarks.streams import class_orders
from edge_zofc.data.split import split_image_folder
from edge_zofc.data.stream import list_samples, read_stream
from edge_zofc.errors import InputError


def names_by_task(root: Path) -> list[list[str]]:
    stream = read_stream(root)
    return [[stream.class_names[i] for i in task.class_ids] for task in stream.tasks]


def pictures(root: Path) -> set[tuple[str, Path]]:
    stream = read_stream(root)
    samples = [s for t in stream.tasks for part in ("train", "test") for s in list_samples(stream, t, part)]  # type: ignore[arg-type]
    return {(stream.class_names[s.class_id], s.path.resolve()) for s in samples}


def settings(root: Path, class_order: str = "by-seed") -> dict[str, str]:
    return {"stream": str(root), "class_order": class_order}


def test_a_seeds_order_is_that_of_split_with_the_same_seed(tmp_path: Path) -> None:
    given = write_stream(tmp_path / "stream")
    flat = tmp_path / "flat"
    for index, name in enumerate(COLOURS):
        for part in ("train", "test"):
            (flat / part).mkdir(parents=True, exist_ok=True)
            (flat / part / name).symlink_to(given / f"{index // 2:03}_task" / part / name)
    for seed in (1994, 1995, 7):
        split_image_folder(flat, tmp_path / f"split{seed}", 2, seed)
        out = class_orders.in_order(given, seed, tmp_path / "streams" / f"seed{seed}")
        assert names_by_task(out) == names_by_task(tmp_path / f"split{seed}")
        assert pictures(out) == pictures(given)
    assert sorted(path.name for path in (tmp_path / "streams").iterdir()) == ["seed1994", "seed1995", "seed7"]


def test_the_first_seed_learns_the_stream_as_it_is_and_the_others_their_own_order(tmp_path: Path) -> None:
    given, out = write_stream(tmp_path / "stream"), tmp_path / "out"
    assert run.stream_of(1993, settings(given), out) == given
    second = run.stream_of(1994, settings(given), out)
    assert second == out / "streams" / "seed1994"
    assert run.stream_of(1994, settings(given), out) == second
    assert run.stream_of(1994, settings(given, "stream"), out) == given


def test_a_stream_whose_classes_come_back_has_no_other_order(tmp_path: Path) -> None:
    given = write_stream(tmp_path / "stream")
    (given / "002_again" / "train").mkdir(parents=True)
    (given / "002_again" / "train" / "red").symlink_to(given / "001_task" / "train" / "red")
    assert not class_orders.has_other_orders(given)
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    words = ["--stream", str(given), "--out", str(tmp_path / "out"), "--methods", "simplecil", "--seeds", "2"]
    with pytest.raises(InputError, match="give --class-order stream"):
        run.main(parser.parse_args(words))
