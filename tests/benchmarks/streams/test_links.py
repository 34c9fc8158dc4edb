"""A stream of links, and a validation part of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmark_problem import write_stream

from edge_zofc.benchmarks.streams.links import link, link_samples
from edge_zofc.benchmarks.streams.validation import set_aside
from edge_zofc.data.stream import list_samples, read_stream


def test_a_link_is_absolute_and_never_replaces_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "picture.png").write_bytes(b"p")
    monkeypatch.chdir(tmp_path)
    link(Path("picture.png"), Path("a/b"))
    assert (tmp_path / "a/b/picture.png").readlink() == tmp_path / "picture.png"
    with pytest.raises(FileExistsError):
        link(Path("picture.png"), Path("a/b"))


def test_samples_keep_their_classes_and_every_fourth_of_a_class_is_set_aside(tmp_path: Path) -> None:
    stream = read_stream(write_stream(tmp_path / "stream"))
    train, held = set_aside(list_samples(stream, stream.tasks[0], "train"))
    assert (len(train), [sample.path.name for sample in held]) == (18, ["03.png", "07.png", "11.png"] * 2)
    for part, samples in (("train", train), ("test", held)):
        link_samples(stream, samples, tmp_path / "out" / "000_task" / part)
    out = read_stream(tmp_path / "out")
    assert out.class_names == tuple(stream.class_names[i] for i in stream.tasks[0].class_ids)
    assert len(list_samples(out, out.tasks[0], "test")) == 6
