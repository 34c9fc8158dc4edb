"""Whole runs on disks that are full, read-only, forbidden or gone; and what a run takes against what was predicted."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forks import Forks
from judge import check_sentence, tree
from kill_points import CALLS
from runs import BY_HEAD, end_state, go, quiet
from small import write_small_stream

from edge_zofc.algorithm.options import make_options
from edge_zofc.data.stream import read_stream
from edge_zofc.engine.disk_plan import predict_disk
from edge_zofc.engine.trainer import TaskSize, Trainer
from edge_zofc.engine.work import task_sizes
from edge_zofc.errors import DamagedFileError, DoesNotFitError, EdgeZofcError, InputError
from edge_zofc.storage import checkpoint
from edge_zofc.storage.bundle import Bundle
from edge_zofc.storage.run_folder import EventLog
from edge_zofc.storage.writing import DISK, Files

SHORT = {**BY_HEAD, "epochs": 2, "batch_size": 4, "queries": 1}
FORCES = ("create", "open_append", "write", "fsync", "rename", "make_folder")


def learn(bundle: Bundle, stream: Path, run: Path, on_step: Callable[..., None] = quiet) -> None:
    go(bundle, stream, run, on_step, changes=SHORT)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of two classes, 4 + 2 pictures each."""
    return write_small_stream(tmp_path_factory.mktemp("disk") / "stream", tasks=2, train=4, test=2, alike=True)


@pytest.fixture(scope="module")
def whole(small_bundle: Bundle, stream: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that had all the disk it wanted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    learn(small_bundle, stream, run)
    return run


# --- every single failure -------------------------------------------------------------------------------------


class Failing:
    """The ``at``-th change of the disk, and every later one, fails with ``number``; 0 only counts.

    ``half``: a write that fails leaves half of its bytes, as a full disk does.
    """

    def __init__(self, patch: pytest.MonkeyPatch, number: int, at: int = 0, half: bool = False) -> None:
        self.number, self.at, self.half, self.count = number, at, half, 0
        for name in CALLS:
            if name in FORCES:
                patch.setattr(DISK, name, self._around(name), raising=False)
        patch.setattr(EventLog, "write", self._event)

    def _fails(self) -> bool:
        self.count += 1
        return bool(self.at) and self.count >= self.at

    def _around(self, name: str) -> Callable[..., Any]:
        real = getattr(Files, name)

        def call(*given: Any) -> Any:
            if not self._fails():
                return real(DISK, *given)
            if name == "write" and self.half:
                data = bytes(given[1])
                real(DISK, given[0], data[: len(data) // 2])
            raise OSError(self.number, os.strerror(self.number))

        return call

    def _event(self, *given: Any, **named: Any) -> None:
        self._fails()  # a log that cannot be written is one failure among the others, seen on the tmpfs below


def check_failures(bundle: Bundle, stream: Path, whole: Path, tmp_path: Path, number: int, step: int) -> int:
    """Fail from each ``step``-th change on; the run then goes on to the whole run's bits. Returns how many did."""
    with pytest.MonkeyPatch.context() as patch:
        counted = Failing(patch, number)
        learn(bundle, stream, tmp_path / "counted")
    expected, kind = end_state(whole), {errno.ENOSPC: DoesNotFitError, errno.EIO: DamagedFileError}
    points = range(1, counted.count + 1, step)
    for at in points:
        run = tmp_path / f"{number}-{at}"
        with pytest.MonkeyPatch.context() as patch:
            Failing(patch, number, at, half=at % 2 == 0)
            try:
                learn(bundle, stream, run)
            except EdgeZofcError as error:
                assert isinstance(error, kind.get(number, InputError))
                check_sentence(str(error))
            # No else: of a run's last changes some are events, which are not written here.
        learn(bundle, stream, run)
        assert end_state(run) == expected, f"failed from change {at} on"
        shutil.rmtree(run)
    return len(points)


def test_a_disk_that_is_full_from_some_moment_on_costs_nothing_but_time(
    small_bundle: Bundle, stream: Path, whole: Path, tmp_path: Path
) -> None:
    assert check_failures(small_bundle, stream, whole, tmp_path, errno.ENOSPC, 23) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.ENOENT], ids=os.strerror)
def test_a_disk_that_fails_from_any_moment_on_costs_nothing_but_time(
    small_bundle: Bundle, stream: Path, whole: Path, tmp_path: Path, number: int
) -> None:
    assert check_failures(small_bundle, stream, whole, tmp_path, number, 1) > 100


# --- real disks --------------------------------------------------------------------------------------------


def mount(*words: str | Path) -> None:
    """Mount, or skip the test with the reason."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """An empty folder to mount on; what is mounted there goes away again."""
    folder = tmp_path / "mount"
    folder.mkdir()
    yield folder
    while subprocess.run(["umount", "-l", str(folder)], capture_output=True).returncode == 0:
        pass


@pytest.mark.parametrize("start_kib", [4, 20, 40, 84, 120])
def test_on_a_small_tmpfs_a_run_goes_on_each_time_that_it_gets_a_little_more_room(
    small_bundle: Bundle, stream: Path, whole: Path, place: Path, start_kib: int
) -> None:
    mount("-t", "tmpfs", "-o", f"size={start_kib}k", "tmpfs", place)
    run, size_kib, refused = place / "run", start_kib, 0
    while True:
        try:
            learn(small_bundle, stream, run)
            break
        except DoesNotFitError as error:
            check_sentence(str(error))
            assert "The disk is full" in str(error)
            refused, size_kib = refused + 1, size_kib + 36
            mount("-o", f"remount,size={size_kib}k", place)
    assert refused >= 1
    assert end_state(run) == end_state(whole)


def test_a_read_only_disk_is_a_sentence_and_leaves_the_run_alone(
    small_bundle: Bundle, stream: Path, whole: Path, place: Path
) -> None:
    later = write_small_stream(place.parent / "later", tasks=3, train=4, test=2, alike=True)
    shutil.copytree(whole, place.parent / "disk/run")
    mount("--bind", place.parent / "disk", place)
    mount("-o", "remount,ro,bind", place)
    before = tree(place)
    for run in (place / "run", place / "new"):
        with pytest.raises(InputError, match="read-only") as found:
            learn(small_bundle, later, run)
        check_sentence(str(found.value))
    assert tree(place) == before
    assert checkpoint.load_latest(place / "run/state") is not None


def test_a_disk_that_is_unplugged_in_the_middle_is_a_sentence_and_nothing_is_written_in_its_place(
    small_bundle: Bundle, stream: Path, whole: Path, place: Path
) -> None:
    (place.parent / "disk").mkdir()
    mount("--bind", place.parent / "disk", place)

    def unplug(session: Trainer, loss: float) -> None:
        if session.state.progress.step == 3:
            subprocess.run(["umount", "-l", str(place)], check=True)

    with pytest.raises(InputError, match="is mounted") as found:
        learn(small_bundle, stream, place / "run", unplug)
    check_sentence(str(found.value))
    assert list(place.iterdir()) == []
    mount("--bind", place.parent / "disk", place)
    learn(small_bundle, stream, place / "run")
    assert end_state(place / "run") == end_state(whole)


def test_without_permission_a_command_ends_in_a_sentence(
    small_bundle: Bundle, stream: Path, whole: Path, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        shutil.copytree(small_bundle.folder, root / "bundle")
        shutil.copytree(stream, root / "stream")
        shutil.copytree(whole, root / "run")
        settings = root / "run/settings.json"
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "bundle_folder": f"{root}/bundle"}))
        secret = root / "secret"
        shutil.copytree(whole, secret)
        secret.chmod(0o700)
        forks, before = Forks(tmp_path), tree(root)
        try:
            words = ["--bundle", f"{root}/bundle", "--stream", f"{root}/stream", "--device-profile", "cpu-2gib"]
            for arguments in (
                ["learn", *words, "--run", f"{root}/run"],
                ["learn", *words, "--run", f"{root}/new"],
                ["learn", *words, "--run", f"{root}/secret"],
                ["learn", *words, "--run", f"{root}/secret/deeper"],
                ["rollback", f"{root}/run", "--to-task", "0"],
                ["history", f"{root}/secret"],
            ):
                ended = forks.run(arguments, seconds=30, user=65534)
                assert "Traceback" not in ended.err, ended.err
                assert ended.code == 2, (arguments, ended.err)
                assert "permission" in ended.err.splitlines()[-1], ended.err
                check_sentence(ended.err.splitlines()[-1])
            # Reading is allowed, so it works.
            assert forks.run(["history", f"{root}/run"], seconds=30, user=65534).code == 0
        finally:
            forks.close()
        assert tree(root) == before


# --- what is predicted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["lda", "cosine"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_prediction_is_a_little_above_what_a_run_takes(
    small_bundle: Bundle, stream: Path, tmp_path: Path, head: str, optimizer: str
) -> None:
    changes = {**SHORT, "head": head, "optimizer": optimizer}
    go(small_bundle, stream, tmp_path / "run", changes=changes)
    found_stream = read_stream(stream)
    sizes = task_sizes(found_stream, found_stream.tasks)
    found = predict_disk(small_bundle.manifest.sizes, make_options("edge", changes), sizes)
    predicted = {item.name: item.bytes for item in found.items}
    run = tmp_path / "run"

    def taken(pattern: str) -> int:
        return sum(path.stat().st_size for path in run.glob(pattern))

    assert predicted["journal"] == taken("journal.bin")
    # With the training pictures of the task at work, and a piece's header for each picture.
    assert 0.3 * predicted["features"] <= taken("features/*") <= predicted["features"]
    assert 0.7 * predicted["task ends"] <= taken("state/task-*") <= predicted["task ends"]
    # While a snapshot is written there is one more than are kept.
    assert 0.7 * predicted["snapshots"] * 3 / 4 <= taken("state/snapshot-*") <= predicted["snapshots"]
    assert 0.3 * predicted["events"] <= taken("events.jsonl") <= predicted["events"]
    assert sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) <= found.bytes


def test_a_month_of_steps_keeps_three_snapshots_and_two_logs(small_bundle: Bundle) -> None:
    """Ten tasks of a million pictures, 50 a step: 200,000 steps of 40 bytes; nothing else grows with the steps."""
    options = make_options("edge", {**BY_HEAD, "batch_size": 50, "queries": 4})
    found = predict_disk(small_bundle.manifest.sizes, options, [TaskSize(2, 1_000_000, 10)] * 10)
    items = {item.name: item.bytes for item in found.items}
    assert found.steps == 10 * 20_000
    assert items["journal"] == 108 + 40 * (found.steps + 20)
    assert items["events"] == 300 * (found.steps + 80) < 64 << 20
    long = predict_disk(small_bundle.manifest.sizes, options, [TaskSize(2, 1_000_000_000, 10)])
    assert {item.name: item.bytes for item in long.items}["events"] == 64 << 20
