"""Whatever instant a run ends at – killed, or its power cut – the resumed run ends with the same bits."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import Forks
from kill_points import CALLS, Killed, KillPoints
from PIL import Image
from power_cut import Disk, RecordingFiles, disks_after_cut, lay_out
from runs import BY_HEAD, end_state, final_bits, go
from small import write_small_bundle, write_small_stream

from edge_zofc.cli.main import main
from edge_zofc.engine import pixel_store
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.writing import DISK

SHORT = {**BY_HEAD, "epochs": 2, "batch_size": 4, "queries": 1}
SNAPSHOT_SECONDS = {"lda": 30.0, "cosine": -1.0}
"""How old a snapshot gets, by head: runs of the one go on from where a task began, runs of the other from any step."""


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of two classes, 4 + 2 pictures each."""
    return write_small_stream(tmp_path_factory.mktemp("kill") / "stream", tasks=2, train=4, test=2, alike=True)


Record = Callable[[str, object], None]
"""pytest's ``record_property``: what ``--junitxml`` keeps of a test."""


def learn(bundle: Bundle, stream: Path, run: Path, head: str = "lda") -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge_zofc.engine.trainer.SNAPSHOT_SECONDS", SNAPSHOT_SECONDS[head])
        go(bundle, stream, run, changes={**SHORT, "head": head})


@pytest.fixture(scope="module")
def whole(small_bundle: Bundle, stream: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """End states of uninterrupted runs by head, and how many touches the runs make."""
    found: dict[str, Any] = {}
    for head in ("lda", "cosine"):
        with pytest.MonkeyPatch.context() as patch:
            points = KillPoints(patch)
            run = tmp_path_factory.mktemp("whole") / head
            learn(small_bundle, stream, run, head)
        found[head] = end_state(run)
        # Were the loss 0, the adapter would stay where it was and nothing could be lost.
        assert final_bits(run)[0] != small_bundle.initial_adapter().tobytes()
        found[head + " touches"] = points.count
    return found


def kill_once(bundle: Bundle, stream: Path, run: Path, at: int, torn: bool, head: str) -> bool:
    """Learn until the ``at``-th touch; whether it came so far."""
    with pytest.MonkeyPatch.context() as patch:
        KillPoints(patch, at, torn)
        try:
            learn(bundle, stream, run, head)
        except Killed:
            return True
    return False


# --- every instant ---------------------------------------------------------------------------------------


def check_every(bundle: Bundle, stream: Path, whole: dict[str, Any], tmp_path: Path, head: str, step: int) -> int:
    """Kill at each ``step``-th touch, resume, compare; how many kills there were."""
    points = range(1, whole[head + " touches"] + 1, step)
    for at in points:
        run = tmp_path / f"{head}-{at}"
        assert kill_once(bundle, stream, run, at, at % 2 == 0, head)
        learn(bundle, stream, run, head)
        assert end_state(run) == whole[head], f"killed at touch {at}"
        shutil.rmtree(run)
    return len(points)


def test_a_run_killed_at_an_instant_goes_on_to_the_same_bits(
    small_bundle: Bundle, stream: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    assert whole["lda touches"] > 100
    assert check_every(small_bundle, stream, whole, tmp_path, "lda", 29) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("head", ["lda", "cosine"])
def test_a_run_killed_at_any_instant_goes_on_to_the_same_bits(
    small_bundle: Bundle, stream: Path, whole: dict[str, Any], tmp_path: Path, head: str, record_property: Record
) -> None:
    kills = check_every(small_bundle, stream, whole, tmp_path, head, 1)
    record_property("kills", kills)
    assert kills == whole[head + " touches"]


def test_a_run_killed_again_and_again_gets_there(
    small_bundle: Bundle, stream: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    """Each resumed run is killed a little later in its own life: also while it recovers."""
    at, kills = 3, 0
    while kill_once(small_bundle, stream, tmp_path / "run", at, kills % 2 == 0, "lda"):
        at, kills = at + 11, kills + 1
    assert kills >= 5
    assert end_state(tmp_path / "run") == whole["lda"]


# --- the power --------------------------------------------------------------------------------------------


def cuts_of_a_run(bundle: Bundle, stream: Path, root: Path, head: str, each: int) -> Iterator[tuple[int, Disk]]:
    """What a power cut may leave of a run: after every call, the least, the most and ``each`` in between."""
    with pytest.MonkeyPatch.context() as patch:
        recording = RecordingFiles(root)
        for name in CALLS:
            patch.setattr(DISK, name, getattr(recording, name), raising=False)
        learn(bundle, stream, root / "run", head)
    chance = random.Random(4)
    for done, group in itertools.groupby(disks_after_cut(recording.log), key=lambda found: found[0]):
        disks = [disk for _, disk in group]
        middle = chance.sample(disks[1:-1], min(each, len(disks[1:-1])))
        for disk in [disks[0], *middle, disks[-1]] if len(disks) > 1 else disks:
            yield done, disk


def check_cuts(
    bundle: Bundle, stream: Path, whole: dict[str, Any], tmp_path: Path, head: str, each: int, every: int
) -> tuple[int, int]:
    """Resume from each ``every``-th of the distinct disks; how many there were, and calls that a cut came after."""
    (tmp_path / "recorded").mkdir()
    seen, done = set[int](), 0
    for done, disk in cuts_of_a_run(bundle, stream, tmp_path / "recorded", head, each):
        number = hash(frozenset(disk.items()))
        if number in seen:
            continue
        seen.add(number)
        if (len(seen) - 1) % every == 0:
            folder = lay_out(disk, tmp_path / "cut")
            learn(bundle, stream, folder / "run", head)
            assert end_state(folder / "run") == whole[head], f"the power was cut after call {done}"
            shutil.rmtree(folder)
    return len(seen), done


def test_what_a_power_cut_leaves_goes_on_to_the_same_bits(
    small_bundle: Bundle, stream: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    assert check_cuts(small_bundle, stream, whole, tmp_path, "lda", each=1, every=37)[0] > 200


@pytest.mark.slow
@pytest.mark.parametrize(("head", "least"), [("lda", 300), ("cosine", 500)])
def test_what_a_power_cut_leaves_after_any_call_goes_on_to_the_same_bits(
    small_bundle: Bundle,
    stream: Path,
    whole: dict[str, Any],
    tmp_path: Path,
    head: str,
    least: int,
    record_property: Record,
) -> None:
    disks, calls = check_cuts(small_bundle, stream, whole, tmp_path, head, each=2, every=1)
    record_property("disks", disks)
    record_property("prefixes of the calls", calls)
    assert disks > least


# --- kill -9 ----------------------------------------------------------------------------------------------


def words(bundle: Bundle, stream: Path, run: Path, *more: str) -> list[str]:
    """A ``learn`` of 80 steps, a third of a second after the libraries are loaded."""
    found = ["learn", "--bundle", bundle.folder, "--stream", stream, "--run", run, "--loss", "head", "--epochs", "20",
             "--batch-size", "4", "--queries", "1", "--micro-batch", "4", "--device-profile", "cpu-2gib"]  # fmt: skip
    return [*map(str, found), *more]


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Forks]:
    found = Forks(tmp_path, snapshot_seconds=0.02)  # some ten in a run
    yield found
    found.close()


STOPPED = {-signal.SIGTERM, 128 + signal.SIGTERM}
"""How a run ends at SIGTERM: before it begins to learn and after."""


def kill_until_done(forks: Forks, arguments: list[str], chance: random.Random, limit: int) -> int:
    """Kill at random moments, at most ``limit`` times, then let it end. Returns how often ``kill -9`` ended it.

    One in four is asked to stop instead. Moments span a run's whole length and crowd at its start, since a resumed
    run has less and less to do.
    """
    kills = 0
    while kills < limit:
        child, how = forks.start(arguments), chance.choice([signal.SIGKILL] * 3 + [signal.SIGTERM])
        time.sleep(chance.random() ** 2 * 0.8)
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(child, how)
        ended = forks.end()
        if ended == 0:
            return kills
        # Any other end is an error, not a kill.
        assert ended == -signal.SIGKILL if how == signal.SIGKILL else ended in STOPPED
        kills += how == signal.SIGKILL
    forks.start(arguments)
    assert forks.end() == 0
    return kills


def check_kills(forks: Forks, bundle: Bundle, stream: Path, tmp_path: Path, least: int, *more: str) -> tuple[int, int]:
    """Whole runs with kills until there were ``least`` of them; each ends as the one that was never killed.

    Returns how many kills and whole runs there were.
    """
    forks.start(words(bundle, stream, tmp_path / "whole", *more))
    assert forks.end() == 0
    assert final_bits(tmp_path / "whole")[0] != bundle.initial_adapter().tobytes()
    expected, chance, kills = end_state(tmp_path / "whole"), random.Random(5), 0
    for number in itertools.count():
        if kills >= least:
            return kills, number
        run = tmp_path / str(number)
        kills += kill_until_done(forks, words(bundle, stream, run, *more), chance, least - kills)
        assert end_state(run) == expected
    raise AssertionError


def test_kill_9_at_random_moments_loses_nothing(
    forks: Forks, small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    assert check_kills(forks, small_bundle, stream, tmp_path, 10)[0] >= 10


@pytest.mark.slow
@pytest.mark.parametrize("head", ["lda", "cosine"])
def test_two_hundred_kills_lose_nothing(
    forks: Forks, small_bundle: Bundle, stream: Path, tmp_path: Path, head: str, record_property: Record
) -> None:
    # So little memory that the cosine head's optimiser is numpy's: torch takes longer to load than the run.
    more = ("--head", head, "--memory-budget", "250MiB")
    kills, runs = check_kills(forks, small_bundle, stream, tmp_path, 200, *more)
    record_property("kills", kills)
    record_property("whole runs", runs)
    assert kills >= 200


# --- two at once ------------------------------------------------------------------------------------------


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """``edge-zofc`` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "edge_zofc", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def test_a_second_process_is_refused_in_one_sentence_until_the_first_is_dead(
    small_bundle: Bundle, stream: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first = start(words(small_bundle, stream, run))
    events = run / "events.jsonl"
    while not (events.exists() and "step" in events.read_text()):
        assert first.poll() is None
        time.sleep(0.005)
    os.kill(first.pid, signal.SIGSTOP)  # it stays in the middle of its run, however slow this machine is
    second = start(words(small_bundle, stream, run))
    _, shown = second.communicate(timeout=60)
    assert second.returncode == 2
    assert shown.strip() == (
        f"edge-zofc: {run} is in use by process {first.pid}; wait until it ends or stop it, then try again."
    )
    assert main(["rollback", str(run), "--to-task", "0"]) == 2
    first.kill()
    first.communicate()
    third = start(words(small_bundle, stream, run))
    _, shown = third.communicate(timeout=120)
    assert third.returncode == 0, shown


# --- a process that lives shorter than a pass -------------------------------------------------------------------


@pytest.mark.parametrize("head", ["lda", "cosine"])
def test_a_device_cut_every_few_pictures_still_advances(
    small_bundle: Bundle, stream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    """FAULTS B4: each process decodes a micro-batch and a little more, far less than a task's beginning takes."""
    real, decoded = pixel_store.decode_test, [0]

    def load_and_die(*given: Any, **named: Any) -> Any:
        decoded[0] += 1
        if decoded[0] % 7 == 0:
            raise Killed
        return real(*given, **named)

    learn(small_bundle, stream, tmp_path / "whole", head)
    monkeypatch.setattr(pixel_store, "decode_test", load_and_die)
    for processes in itertools.count(1):
        with contextlib.suppress(Killed):
            learn(small_bundle, stream, tmp_path / "run", head)
            break
        assert processes < 100
    assert processes > 5
    monkeypatch.undo()
    assert end_state(tmp_path / "run") == end_state(tmp_path / "whole")


@pytest.mark.slow
def test_a_device_cut_every_two_seconds_gets_through_a_beginning_of_twenty(tmp_path: Path) -> None:
    """FAULTS B4, with real processes: a task whose beginning alone takes some 20 seconds."""
    bundle, stream = write_small_bundle(tmp_path / "bundle"), tmp_path / "stream"
    noise = np.random.default_rng(0).integers(0, 256, (2, 2500, 3500, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png", compress_level=1)
        for part, count in (("train", 40), ("test", 2)):
            place = stream / "000_task" / part / f"class{number}"
            place.mkdir(parents=True)
            for index in range(count):
                (place / f"{index:02d}.png").symlink_to(tmp_path / f"{number}.png")
    more = ["--epochs", "0", "--micro-batch", "4", "--device-profile", "cpu-2gib"]
    base = ["learn", "--bundle", str(bundle.folder), "--stream", str(stream), *more, "--run"]
    began = time.monotonic()
    with start([*base, str(tmp_path / "whole")]) as process:
        assert process.wait() == 0
    whole_seconds, kills = time.monotonic() - began, 0
    while True:
        with start([*base, str(tmp_path / "run")]) as process:
            try:
                assert process.wait(timeout=2) == 0
                break
            except subprocess.TimeoutExpired:
                process.kill()
        kills += 1
        assert kills < 20 * whole_seconds
    assert kills > whole_seconds / 4
    assert end_state(tmp_path / "run") == end_state(tmp_path / "whole")
