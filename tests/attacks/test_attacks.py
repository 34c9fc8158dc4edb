"""Every reader under attack: each input ends in the right error class, in one sentence, in time, and writes nothing."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import named_bundle  # noqa: F401 - registers its attacks, as the next three do
import named_pictures  # noqa: F401
import named_places  # noqa: F401
import named_run  # noqa: F401
import pytest
from changes import as_json, cuts, flips, noise, wild_fields
from forks import Forks
from judge import SECONDS, bounded_memory, check_sentence, tree, verdict
from named import FLEET, NAMED, Named, arguments
from runs import FAST, go, quiet
from shares import write_share
from small import write_small_stream
from victim import Victim
from victims import PROFILE, all_victims

from edge_zofc.engine.run import learn_run
from edge_zofc.engine.setup import LearnRequest
from edge_zofc.errors import DamagedFileError
from edge_zofc.fleet.merging import merge
from edge_zofc.learner import Learner
from edge_zofc.storage.bundle import Bundle, read_bundle
from edge_zofc.storage.manifest import FILES

NAMES = (
    "manifest", "backbone.onnx", "backbone.onnx.data", "adapter.safetensors", "probe.safetensors", "journal",
    "balanced journal", "gradient journal", "snapshot", "snapshot state", "moved snapshot", "moved snapshot state",
    "settings.json", "result.json", "events.jsonl", "features", "pixels", "share", "about.json", "lesson", "part",
    "large part", "profile", "jpeg", "progressive", "png", "palette", "apng", "webp", "lossless",
)  # fmt: skip


FEW, EVERY = 200, 1 << 20
"""At how many places a file is cut and flipped in the ordinary tests, and in the slow ones: at every byte."""


def generated(victim: Victim, most: int) -> Iterator[tuple[str, bytes, set[int]]]:
    """(what was done, the file's bytes, the exit codes it may end in)."""
    good = victim.file.read_bytes()
    for source in (cuts(good, most), flips(good, most), noise(good, 100)):
        for what, raw in source:
            if raw != good:
                yield what, raw, victim.codes
    value = json.loads(good) if victim.file.suffix == ".json" else None
    if value is not None:
        for what, changed in itertools.islice(wild_fields(value), 0, None, 1 if most == EVERY else 3):
            yield what, as_json(changed), victim.codes
    if victim.seal is not None:
        for source in (cuts(good, most), flips(good, most, seed=7), noise(good, 100)):
            for what, raw in source:
                yield f"sealed: {what}", victim.seal(raw), victim.sealed_codes


def attack(victim: Victim, most: int) -> Counter[int]:
    """Every generated input of one reader; how many ended in which exit code."""
    good, ends = victim.file.read_bytes(), Counter[int]()
    manifest = victim.file.parent / "bundle.json"
    spared = manifest.read_bytes() if manifest.exists() else b""
    for what, raw, codes in generated(victim, most):
        victim.file.write_bytes(raw)
        ends[verdict(victim.read, codes, f"{victim}: {what}")] += 1
        if spared and victim.file != manifest:
            manifest.write_bytes(spared)  # a seal may have changed it
    victim.file.write_bytes(good)
    return ends


def check(tmp_path: Path, name: str, most: int) -> Counter[int]:
    """Attack one reader. Nothing but the attacked file is written to, and the process does not grow."""
    (tmp_path / "victims").mkdir()
    (victim,) = (found for found in all_victims(tmp_path / "victims") if found.name == name)
    assert verdict(victim.read, {0}, "the good file") == 0
    before = tree(tmp_path).keys()
    with bounded_memory():
        ends = attack(victim, most)
    assert tree(tmp_path).keys() == before
    return ends


@pytest.mark.parametrize("name", NAMES)
def test_a_file_changed_in_any_way_is_read_or_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    assert sum(check(tmp_path, name, FEW).values()) > 50


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_file_changed_at_every_byte_is_read_or_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    assert sum(check(tmp_path, name, EVERY).values()) > 80


def test_there_are_more_than_ten_thousand_inputs(tmp_path: Path) -> None:
    count = sum(1 for victim in all_victims(tmp_path) for _ in generated(victim, FEW))
    assert count > 10_000


# --- through the command line ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    found = Forks(tmp_path_factory.mktemp("texts"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def world(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, a stream of two tasks, a run that has learnt the first, a fleet, and a folder that is nobody's."""
    root = tmp_path_factory.mktemp("good") / "world"
    write_small_stream(root / "stream", tasks=2)
    shutil.copytree(small_bundle.folder, root / "bundle")
    (root / "outside").mkdir()
    (root / "outside/secret.txt").write_text("secret\n" * 1000)
    (root / "board.toml").write_bytes(PROFILE)
    later = (root / "stream/001_task").rename(root / "later")
    go(read_bundle(root / "bundle"), root / "stream", root / "run", changes={**FAST, "epochs": 1})
    later.rename(root / "stream/001_task")
    with Learner.open(root / "run") as learner:
        learner.teach(next((root / "stream/001_task/train/class03").iterdir()), "shown")
    write_share(root, small_bundle, "d7").rename(root / "d7.share")
    merge(root / "bundle", [root / "d7.share"], root / "fleet")
    return root


def check_command(forks: Forks, world: Path, typed: str, codes: frozenset[int]) -> None:
    """Type a command under a memory cap; hold its end, its words and what it wrote to the promise."""
    own = (world / "run", world / "fleet") if "fleet" in typed else (world / "run",)
    before = tree(world, own)
    ended = forks.run(arguments(world, typed), seconds=SECONDS, data_bytes=1 << 30)
    assert "Traceback" not in ended.err, ended.err
    assert ended.code in codes, (ended.code, ended.err)
    assert tree(world, own) == before, "something outside of the run folder was changed"
    if ended.code and "predict" in typed and not ended.err:
        assert " is " in ended.out or " has " in ended.out or " cannot " in ended.out, ended.out
    elif ended.code:
        last = ended.err.splitlines()[-1] if ended.err else ended.out.splitlines()[-1]
        check_sentence(last)


def test_the_world_is_good(forks: Forks, world: Path, tmp_path: Path) -> None:
    for typed in ("history", "report", "predict", "eval", "plan", "replay", "new", "rollback", "learn", *FLEET):
        copied = Path(shutil.copytree(world, tmp_path / typed / "world"))
        if typed == "new":
            shutil.rmtree(copied / "run")
        _retarget(copied)
        check_command(forks, copied, typed, frozenset({0}))


def _retarget(world: Path) -> None:
    """Let the run know where its bundle is now."""
    path = world / "run/settings.json"
    if path.exists():
        path.write_text(json.dumps({**json.loads(path.read_text()), "bundle_folder": str(world / "bundle")}))


@pytest.mark.parametrize(
    "attack", [pytest.param(a, id=str(a), marks=[pytest.mark.slow] if a.is_slow else []) for a in NAMED]
)
def test_a_named_attack_ends_in_its_exit_code_and_one_sentence(
    forks: Forks, world: Path, tmp_path: Path, attack: Named
) -> None:
    copied = Path(shutil.copytree(world, tmp_path / "world"))
    if attack.typed == "new":
        shutil.rmtree(copied / "run")
    _retarget(copied)
    attack.spoil(copied)
    check_command(forks, copied, attack.typed, attack.codes)


def test_a_wrong_hash_is_refused_before_onnxruntime_sees_the_graph(
    small_bundle: Bundle, small_stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(
        "edge_zofc.inference.graph.ort.InferenceSession", lambda *given, **named: opened.append(given[0])
    )
    for name in FILES:
        folder = Path(shutil.copytree(small_bundle.folder, tmp_path / name / "bundle"))
        raw = bytearray((folder / name).read_bytes())
        raw[len(raw) // 2] ^= 1
        (folder / name).write_bytes(raw)
        with pytest.raises(DamagedFileError, match="SHA-256"):
            learn_run(LearnRequest(folder, small_stream, tmp_path / name / "run"), quiet)
        assert not (tmp_path / name / "run").exists()
    assert opened == []
