"""The pictures that a run learnt from, where they still lie."""

from __future__ import annotations

from pathlib import Path

from runs import go
from small import write_small_stream

from edge_zofc.engine.own_pictures import own_pictures
from edge_zofc.fleet.sharing import learnt_of, share_of
from edge_zofc.learner import Learner
from edge_zofc.storage.bundle import Bundle


def test_what_was_forgotten_is_left_out_and_names_are_those_that_are_shown(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    stream = write_small_stream(tmp_path / "stream", tasks=1)
    go(small_bundle, stream, tmp_path / "run", changes={"adapter": "off"})
    with Learner.open(tmp_path / "run", bundle=small_bundle.folder) as learner:
        learner.rename("class00", "cup")
        learner.forget("class01")
    found, told = learnt_of(tmp_path / "run", small_bundle.folder), list[str]()
    names = share_of(tmp_path / "run", "d0", 8, small_bundle.folder).share.class_names
    pictures = own_pictures(tmp_path / "run", found.state, found.view, names, told.append)
    assert (pictures.names, len(pictures.paths), told) == (("cup",), 8, [])
    assert {path.parent.name for path in pictures.paths} == {"class00"}
    (stream / "000_task").rename(tmp_path / "elsewhere")
    pictures = own_pictures(tmp_path / "run", found.state, found.view, names, told.append)
    assert not pictures.paths and any("is not in" in line or "gone" in line or "no stream" in line for line in told)
