"""A run and its bundle in other places than where the run began."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from runs import final_bits, go
from small import write_small_bundle

from edge_zofc.cli.main import main
from edge_zofc.engine.history import read_history
from edge_zofc.engine.run import learn_run
from edge_zofc.engine.setup import LearnRequest
from edge_zofc.errors import InputError
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.settings import folder_place, read_settings


@pytest.mark.parametrize(
    ("run", "bundle", "kept"),
    [
        ("/a/run", "/a/bundle", "../bundle"),
        ("/a/runs/one", "/a/bundle", "../../bundle"),
        ("/a/run", "/a/bundles/small", "../bundles/small"),
        ("/a/b/run", "/a/c/bundle", "/a/c/bundle"),
        ("/run", "/bundle", "/bundle"),
    ],
)
def test_a_place_is_relative_where_one_parent_holds_both(run: str, bundle: str, kept: str) -> None:
    """FAULTS B2."""
    assert folder_place(Path(run), Path(bundle)) == kept


@pytest.fixture
def home(small_bundle: Bundle, small_stream: Path, tmp_path: Path) -> Path:
    """A folder with ``bundle/`` and ``run/``, one task learnt."""
    home = tmp_path / "home"
    shutil.copytree(small_bundle.folder, home / "bundle")
    shutil.copytree(small_stream / "000_task", home / "stream/000_task")
    go(read_bundle(home / "bundle"), home / "stream", home / "run")
    return home


def commands(run: Path, stream: Path, *more: str) -> list[list[str]]:
    picture = str(next(stream.rglob("*.png")))
    return [
        ["history", str(run), *more],
        ["predict", str(run), picture, *more],
        ["eval", str(run), "--stream", str(stream), *more],
        ["deploy", str(run), str(run.parent / "out.onnx"), *more],
        ["report", str(run)],
        ["rollback", str(run), "--to-task", "0", *more],
        ["learn", "--run", str(run), "--stream", str(stream), *more],
    ]


def test_every_command_finds_the_bundle_that_moved_with_the_run(home: Path, small_stream: Path) -> None:
    """FAULTS B2: both moved together, and no --bundle is named."""
    moved = home.rename(home.parent / "elsewhere")
    for words in commands(moved / "run", moved / "stream"):
        assert main(words) == 0, words
    assert read_settings(moved / "run").bundle_folder == "../bundle"


def test_an_absolute_place_of_an_older_version_gives_way_to_the_bundle_beside(home: Path) -> None:
    """FAULTS B2: settings that an earlier version wrote, moved."""
    path = home / "run/settings.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "bundle_folder": str(home / "bundle")}))
    assert read_history(home / "run")["bundle"] == str(home / "bundle")
    moved = home.rename(home.parent / "elsewhere")
    for words in commands(moved / "run", moved / "stream"):
        assert main(words) == 0, words
    assert read_settings(moved / "run").bundle_folder == "../bundle"  # learn wrote it back


def test_a_bundle_that_moved_alone_is_named_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """FAULTS B2: --bundle works with every command, and learn keeps the new place."""
    far = home.parent / "far/away/bundle"
    far.parent.mkdir(parents=True)
    (home / "bundle").rename(far)
    run, stream = home / "run", home / "stream"
    assert main(["history", str(run)]) == 2
    assert "say where it is with --bundle" in capsys.readouterr().err
    for words in commands(run, stream, "--bundle", str(far)):
        if words[0] != "report":
            assert main(words) == 0, words
    assert read_settings(run).bundle_folder == str(far)
    for words in commands(run, stream):
        assert main(words) == 0, words


def test_another_bundle_beside_the_run_is_passed_over(home: Path, small_stream: Path) -> None:
    """FAULTS B2: the identity decides, not the name."""
    far = home.parent / "far/away/bundle"
    far.parent.mkdir(parents=True)
    (home / "bundle").rename(far)
    learn_run(LearnRequest(far, home / "stream", home / "run"), lambda trainer, loss: None)
    write_small_bundle(home / "bundle", "w8")
    before = final_bits(home / "run")
    assert read_history(home / "run")["bundle"] == str(far)
    learn_run(LearnRequest(None, home / "stream", home / "run"), lambda trainer, loss: None)
    assert final_bits(home / "run") == before
    with pytest.raises(InputError, match="another bundle"):
        read_history(home / "run", home / "bundle")
