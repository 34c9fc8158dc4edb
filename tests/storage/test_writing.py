"""writing.py: what a power cut, a kill and a full disk leave; a lock that no crash leaves behind."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from power_cut import RecordingFiles, disks_after_cut
from tmpfs import small_tmpfs

from edge_zofc.errors import DamagedFileError, DoesNotFitError, InputError, RunLockedError
from edge_zofc.storage import writing
from edge_zofc.storage.lock import RunLock
from edge_zofc.storage.reading import open_plain
from edge_zofc.storage.writing import AppendFile, Files, replace_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class FailingFiles(Files):
    """Raises ``number`` at the ``at``-th call that changes the disk; a write first puts half down."""

    def __init__(self, at: int, number: int = errno.ENOSPC) -> None:
        self.left = at
        self.number = number

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(self.number, os.strerror(self.number))

    def create(self, path):
        self._count()
        return super().create(path)

    def write(self, handle, data):
        if self.left == 1:
            super().write(handle, memoryview(data)[: len(data) // 2])
        self._count()
        super().write(handle, data)

    def fsync(self, handle):
        self._count()
        super().fsync(handle)

    def rename(self, source, target):
        self._count()
        super().rename(source, target)


# --- write_atomic ---------------------------------------------------------------------------------------


def test_the_file_holds_the_bytes_and_nothing_else_is_left(tmp_path):
    writing.write_atomic(tmp_path / "a", b"one")
    writing.write_atomic(tmp_path / "a", [b"t", memoryview(b"wo")])
    assert (tmp_path / "a").read_bytes() == b"two"
    assert names(tmp_path) == ["a"]


def test_the_calls_are_made_in_the_one_order_that_survives_a_power_cut(tmp_path):
    files = RecordingFiles(tmp_path)
    writing.write_atomic(tmp_path / "a", b"one", files)
    temporary = f".tmp-{os.getpid()}-a"
    assert files.log == [
        ("create", temporary, 1),
        ("write", 1, b"one"),
        ("fsync", 1),
        ("rename", temporary, "a"),
        ("fsync_folder", "."),
    ]


def whole_or_absent(log):
    """Whether every cut leaves 'a' whole, and never older than what a finished write promised."""
    for done, disk in disks_after_cut(log):
        finished = sum(call[0] == "fsync_folder" for call in log[:done])
        if disk.get("a") not in [None, b"one", b"twotwo"][finished:]:
            return False
    return True


def test_a_power_cut_leaves_the_old_file_or_the_new_one(tmp_path):
    files = RecordingFiles(tmp_path)
    writing.write_atomic(tmp_path / "a", b"one", files)
    writing.write_atomic(tmp_path / "a", b"twotwo", files)
    assert whole_or_absent(files.log)


@pytest.mark.parametrize("forgotten", ["fsync"])
def test_the_model_disk_would_notice_a_missing_fsync(tmp_path, forgotten):
    files = RecordingFiles(tmp_path, forgetful=forgotten)
    writing.write_atomic(tmp_path / "a", b"one", files)
    assert not whole_or_absent(files.log)


def test_the_model_disk_would_notice_a_missing_folder_fsync(tmp_path):
    files = RecordingFiles(tmp_path, forgetful="fsync_folder")
    writing.write_atomic(tmp_path / "a", b"one", files)
    assert any("a" not in disk for done, disk in disks_after_cut(files.log) if done == len(files.log))


@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_and_says_how_to_go_on(tmp_path, at, number):
    writing.write_atomic(tmp_path / "a", b"old")
    with pytest.raises(DoesNotFitError, match=r".*/a could.* KiB, then run the same command again\.$"):
        writing.write_atomic(tmp_path / "a", b"new", FailingFiles(at, number))
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.EROFS, InputError, "mount its file system writable"),
        (errno.EACCES, InputError, "permission"),
        (errno.ENOENT, InputError, "disk is mounted"),
        (errno.EIO, DamagedFileError, "I/O error"),
        (errno.EMFILE, InputError, "too many open files"),
    ],
)
def test_every_failure_is_one_sentence_of_the_right_kind(tmp_path, number, error, words):
    with pytest.raises(error, match=words) as caught:
        writing.write_atomic(tmp_path / "a", b"new", FailingFiles(1, number))
    assert type(caught.value) is error
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_a_vanished_folder_is_told(tmp_path):
    with pytest.raises(InputError, match="disk is mounted"):
        writing.write_atomic(tmp_path / "gone" / "a", b"x")


def test_a_link_is_replaced_and_what_it_points_to_is_left_alone(tmp_path):
    (tmp_path / "outside").write_bytes(b"mine")
    (tmp_path / "a").symlink_to(tmp_path / "outside")
    writing.write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "outside").read_bytes() == b"mine"
    assert (tmp_path / "a").read_bytes() == b"new" and not (tmp_path / "a").is_symlink()


def test_ctrl_c_in_the_middle_leaves_no_temporary_file(tmp_path):
    class Interrupted(Files):
        def fsync(self, handle):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writing.write_atomic(tmp_path / "a", b"half", Interrupted())
    assert names(tmp_path) == []


def test_a_tiny_tmpfs_fills_up_keeps_the_old_file_and_goes_on_when_there_is_room(tmp_path):
    with small_tmpfs(tmp_path):
        writing.write_atomic(tmp_path / "a", b"old")
        (tmp_path / "filler").write_bytes(bytes(128 << 10))
        with pytest.raises(DoesNotFitError, match="The disk is full"):
            writing.write_atomic(tmp_path / "a", bytes(200 << 10))
        assert names(tmp_path) == ["a", "filler"]
        assert (tmp_path / "a").read_bytes() == b"old"
        (tmp_path / "filler").unlink()
        writing.write_atomic(tmp_path / "a", bytes(200 << 10))
        with closing(AppendFile(tmp_path / "a", 200 << 10)) as log:
            with pytest.raises(DoesNotFitError, match="free at least"):
                for _ in range(100):
                    log.append(bytes(4000))
            assert (tmp_path / "a").stat().st_size == log.size_bytes
        assert (log.size_bytes - (200 << 10)) % 4000 == 0
        writing.write_atomic(tmp_path / "b", b"")  # a name alone needs no block
        remount = ["mount", "-o", "remount,ro", str(tmp_path)]
        if subprocess.run(remount, capture_output=True, check=False).returncode == 0:
            with pytest.raises(InputError, match="mount its file system writable"):
                writing.write_atomic(tmp_path / "a", b"new")
            with pytest.raises(InputError, match="mount its file system writable"):
                RunLock(tmp_path)


# --- folders, leftovers, rotation -----------------------------------------------------------------------


def test_folders_are_made_from_the_top_and_each_is_synced(tmp_path):
    files = RecordingFiles(tmp_path)
    writing.make_folder(tmp_path / "run" / "state", files)
    assert (tmp_path / "run" / "state").is_dir()
    assert [call for call in files.log if call[0] == "fsync_folder"][-2:] == [
        ("fsync_folder", "."),
        ("fsync_folder", "run"),
    ]
    writing.make_folder(tmp_path / "run" / "state")


def test_a_folder_that_was_not_synced_takes_what_lies_in_it_along(tmp_path):
    """Of the model disk, which a missing fsync of the folder above would otherwise get past."""
    for folder, make in (("lost", lambda files: files.make_folder), ("kept", lambda files: writing.make_folder)):
        files = RecordingFiles(tmp_path)
        make(files)(tmp_path / folder, *([files] if folder == "kept" else []))
        writing.write_atomic(tmp_path / folder / "a", b"one", files)
        ends = [disk for done, disk in disks_after_cut(files.log) if done == len(files.log)]
        assert ({} in ends) == (folder == "lost")
        assert {f"{folder}/": b"", f"{folder}/a": b"one"} in ends


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path):
    (tmp_path / "run").write_bytes(b"")
    with pytest.raises(InputError, match="could not be made"):
        writing.make_folder(tmp_path / "run")
    with pytest.raises(InputError, match="could not be made"):
        writing.make_folder(tmp_path / "run" / "state")


def test_sweep_removes_leftovers_and_nothing_else(tmp_path):
    for name in (".tmp-12-a", ".tmp-", "a", "tmp-b", ".tmpx"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".tmp-folder").mkdir()
    (tmp_path / ".tmp-link").symlink_to(tmp_path / "a")
    assert writing.sweep(tmp_path) == [".tmp-", ".tmp-12-a", ".tmp-link"]
    assert names(tmp_path) == [".tmp-folder", ".tmpx", "a", "tmp-b"]


def test_a_log_is_rotated_past_its_limit_and_takes_at_most_two_files(tmp_path):
    log = tmp_path / "events.jsonl"
    assert not writing.rotate(log, 3)
    for content in (b"old!", b"new!"):
        log.write_bytes(content)
        assert not writing.rotate(log, 4)
        assert writing.rotate(log, 3)
    assert names(tmp_path) == ["events.jsonl.1"]
    assert (tmp_path / "events.jsonl.1").read_bytes() == b"new!"


# --- AppendFile -----------------------------------------------------------------------------------------


def test_appended_pieces_lie_one_after_the_other(tmp_path):
    (tmp_path / "log").write_bytes(b"ab??")
    with closing(AppendFile(tmp_path / "log", 2)) as log:
        log.append(b"cd")
        log.append(b"e")
        assert log.size_bytes == 5
    assert (tmp_path / "log").read_bytes() == b"abcde"
    with pytest.raises(ValueError, match="closed"):
        log.append(b"f")


def test_a_file_shorter_than_what_is_in_use_is_damaged(tmp_path):
    (tmp_path / "log").write_bytes(b"ab")
    with pytest.raises(DamagedFileError, match="2 bytes, fewer than the 3 in use"):
        AppendFile(tmp_path / "log", 3)


def test_a_power_cut_keeps_every_append_that_returned_and_tears_only_the_last(tmp_path):
    files = RecordingFiles(tmp_path)
    writing.write_atomic(tmp_path / "log", b"HH", files)
    start = len(files.log)
    with closing(AppendFile(tmp_path / "log", 2, files)) as log:
        opened = len(files.log)
        for piece in (b"abc", b"def"):
            log.append(piece)
    with closing(AppendFile(tmp_path / "log", 5, files)) as log:
        log.append(b"XYZ")
    promises = {start: b"HH", opened: b"HH", opened + 2: b"HHabc", opened + 4: b"HHabcdef"}
    for done, disk in disks_after_cut(files.log):
        if done >= start:
            promised = promises[max(at for at in promises if at <= done)]
            assert disk["log"].startswith(promised) or done > opened + 4
            assert disk["log"].startswith(b"HHabc") or len(disk["log"]) <= 5
            assert len(disk["log"]) <= 8
    assert (tmp_path / "log").read_bytes() == b"HHabcXYZ"


def test_opening_makes_durable_what_a_killed_process_had_only_written(tmp_path):
    files = RecordingFiles(tmp_path, forgetful="fsync_folder")  # killed between rename and fsync
    writing.write_atomic(tmp_path / "log", b"HH", files)
    files.write(handle := files.open_append(tmp_path / "log"), b"abc")  # killed between write and fsync
    os.close(handle)
    assert {} in [disk for _, disk in disks_after_cut(files.log)]
    files.forgetful = ""
    AppendFile(tmp_path / "log", 5, files).close()
    assert [disk for done, disk in disks_after_cut(files.log) if done == len(files.log)] == [{"log": b"HHabc"}]


@pytest.mark.parametrize("at", [2, 3, 4, 5])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failed_append_is_cut_off_again_and_closes_the_file(tmp_path, at, number):
    (tmp_path / "log").write_bytes(b"HH")
    log = AppendFile(tmp_path / "log", 2, FailingFiles(at, number))  # the first call is its fsync
    with pytest.raises((DoesNotFitError, DamagedFileError)):
        for piece in (b"abcd", b"efgh"):
            log.append(piece)
    assert (tmp_path / "log").read_bytes() == (b"HH" if at < 4 else b"HHabcd")
    with pytest.raises(ValueError, match="failed append closes it"):
        log.append(b"ijkl")


def test_no_file_handle_is_left_open(tmp_path):
    before = len(names(Path("/proc/self/fd")))
    writing.write_atomic(tmp_path / "a", b"one")
    for at in range(1, 5):
        with contextlib.suppress(DoesNotFitError):
            writing.write_atomic(tmp_path / "a", b"two", FailingFiles(at))
    with pytest.raises(DamagedFileError):
        AppendFile(tmp_path / "a", 9)
    with pytest.raises(DamagedFileError):
        open_plain(tmp_path)
    with RunLock(tmp_path), pytest.raises(RunLockedError):
        RunLock(tmp_path)
    assert len(names(Path("/proc/self/fd"))) == before


def test_new_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        writing.write_atomic(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_folder_takes_another_ones_place_with_everything_on_the_disk_before_its_name(tmp_path: Path) -> None:
    class Recorder(Files):
        def __init__(self) -> None:
            self.calls: list[str] = []

        def fsync(self, handle: int) -> None:
            self.calls.append("fsync")
            super().fsync(handle)

        def fsync_folder(self, path: Path) -> None:
            self.calls.append(f"folder {path.name}")
            super().fsync_folder(path)

        def rename(self, source: Path, target: Path) -> None:
            self.calls.append(f"rename {source.name}")
            super().rename(source, target)

    made, target, files = tmp_path / ".made", tmp_path / "target", Recorder()
    (made / "inner").mkdir(parents=True)
    (made / "inner" / "file").write_text("new")
    (made / "link").symlink_to("inner/file")
    target.mkdir()
    (target / "old").write_text("old")
    replace_folder(made, target, files)
    assert (target / "inner" / "file").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target"]
    assert not (target / "old").exists()
    assert files.calls.count("fsync") == 1
    assert files.calls[-3:] == ["rename target", "rename .made", f"folder {tmp_path.name}"]
    assert {"folder inner", "folder .made"} <= set(files.calls[:-3])


def test_a_folder_that_cannot_get_its_name_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    with pytest.raises(InputError, match="nowhere/target could not be written"):
        replace_folder(tmp_path / "made", tmp_path / "nowhere" / "target")
    assert (tmp_path / "made").is_dir()


def test_a_folder_that_cannot_be_replaced_keeps_its_name_and_what_is_in_it(tmp_path: Path) -> None:
    for name in ("made", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with pytest.raises(DoesNotFitError, match="target could not be written"):
        replace_folder(tmp_path / "made", tmp_path / "target", FailingFiles(3))  # an fsync, then two renames
    assert names(tmp_path) == ["made", "target"]
    assert (tmp_path / "target" / "file").read_text() == "target"
    assert (tmp_path / "made" / "file").read_text() == "made"
