"""checkpoint.py: the format by literal bytes, damage at every byte, power cuts, what is kept and what is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from power_cut import RecordingFiles, disks_after_cut, lay_out
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tmpfs import small_tmpfs

from edge_zofc.algorithm import symmetric
from edge_zofc.algorithm.symmetric import Packed
from edge_zofc.errors import DamagedFileError, DivergedError, DoesNotFitError, EdgeZofcError, InputError
from edge_zofc.storage import checkpoint
from edge_zofc.storage.checkpoint import Snapshot
from edge_zofc.storage.writing import Files

ONE = Snapshot({"b": np.array([1.0, -2.0], np.float32), "a": np.array([[3]], np.int64)}, {"step": 1})

LITERAL_HEADER = (
    b'{"__metadata__":{"sha256":"'
    + b"0" * 64
    + b'","format":"edge-zofc snapshot 2","state":"{\\"step\\": 1}"},'
    + b'"a":{"dtype":"I64","shape":[1,1],"data_offsets":[0,8]},'
    + b'"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}'
)
LITERAL_DATA = b"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x3f\x00\x00\x00\xc0"


def numbered(step: int) -> Snapshot:
    return Snapshot({"theta": np.full(3, step, np.float32)}, {"step": step})


def same(one: Snapshot, two: Snapshot) -> bool:
    return (
        one.metadata == two.metadata
        and one.arrays.keys() == two.arrays.keys()
        and all(
            (array.dtype, array.shape, array.tobytes())
            == (two.arrays[name].dtype, two.arrays[name].shape, two.arrays[name].tobytes())
            for name, array in one.arrays.items()
        )
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sealed(header: bytes, data: bytes = b"") -> bytes:
    """A file with a right SHA-256 whatever it says, as an attacker would make it."""
    raw = len(header).to_bytes(8, "little") + header + data
    return raw[:35] + hashlib.sha256(raw).hexdigest().encode() + raw[99:]


def verdict(path: Path, raw: bytes) -> Snapshot | EdgeZofcError:
    path.write_bytes(raw)
    try:
        return checkpoint.load(path)
    except EdgeZofcError as error:
        assert "\n" not in str(error) and str(error).endswith(".") and len(str(error)) < 600
        return error


# --- the format -----------------------------------------------------------------------------------------


def test_a_snapshot_has_the_literal_bytes_of_the_specification(tmp_path):
    raw = checkpoint.save(tmp_path, ONE).read_bytes()
    padding = b" " * (-len(LITERAL_HEADER) % 8)
    assert raw == sealed(LITERAL_HEADER + padding, LITERAL_DATA)
    assert raw[35:99] == b"7af46fedc6a3ac5638877a18f3e8a34f7fda7fbb656c3ac5fcad457ce09d812a"
    assert checkpoint.file_bytes(ONE) == len(raw)


def test_any_safetensors_reader_opens_it(tmp_path):
    path = checkpoint.save(tmp_path, ONE)
    assert same(Snapshot(load_file(path), {"step": 1}), ONE)
    with safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()["state"]) == {"step": 1}


def test_what_is_saved_is_loaded(tmp_path):
    assert same(checkpoint.load(checkpoint.save(tmp_path, ONE)), ONE)


def test_a_packed_matrix_is_whole_in_the_file_and_nowhere_else(tmp_path):
    """Two of 1280 x 1280 took 25 MiB more at the peak of a run."""
    size = 512
    matrix = np.arange(size**2, dtype=np.float64).reshape(size, size)
    matrix += matrix.T
    lazy = Snapshot({**ONE.arrays}, ONE.metadata, {"aa": Packed(symmetric.pack(matrix), size)})
    tracemalloc.start()
    path = checkpoint.save(tmp_path, lazy)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < matrix.nbytes / 2
    eager = Snapshot({**ONE.arrays, "aa": matrix}, ONE.metadata)
    assert path.read_bytes() == checkpoint.save(tmp_path, eager).read_bytes()
    assert checkpoint.file_bytes(lazy) == path.stat().st_size


def test_a_packed_matrix_that_is_not_finite_is_refused(tmp_path):
    with pytest.raises(DivergedError, match="moment holds values that are not finite"):
        checkpoint.save(tmp_path, Snapshot({}, {}, {"moment": Packed(np.array([np.nan]), 1)}))
    assert names(tmp_path) == []


dtypes = st.sampled_from(["float32", "float64", "int32", "int64", "uint8", "uint32", "uint64", "bool"])
arrays = dtypes.flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else None,
    )
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), arrays, max_size=4), st.dictionaries(st.text(), json_values))
def test_any_state_comes_back(tmp_path_factory, found, metadata):
    state = Snapshot(found, metadata)
    path = checkpoint.save_task(tmp_path_factory.mktemp("any"), 0, state, UnsyncedFiles())
    assert same(checkpoint.load(path), state)


class UnsyncedFiles(Files):
    """Where the disk's pace is not what is tested."""

    def fsync(self, handle):
        pass

    def fsync_folder(self, path):
        pass


def test_layout_in_memory_does_not_change_the_bytes_and_names_from_the_disk_survive(tmp_path):
    plain = Snapshot({"x": np.arange(6, dtype=np.float32).reshape(2, 3)}, {"classes": ["caf\udce9"]})
    strided = Snapshot({"x": np.asfortranarray(plain.arrays["x"]).astype(">f4")}, plain.metadata)
    one = checkpoint.save_task(tmp_path, 1, plain).read_bytes()
    assert checkpoint.save_task(tmp_path, 2, strided).read_bytes() == one
    assert checkpoint.load_task(tmp_path, 2).metadata == plain.metadata


# --- what is kept ---------------------------------------------------------------------------------------


def test_the_last_three_are_kept_and_those_of_tasks_forever(tmp_path):
    assert checkpoint.load_latest(tmp_path) is None
    assert checkpoint.load_latest(tmp_path / "missing") is None
    for step in range(6):
        checkpoint.save(tmp_path, numbered(step))
        if step % 2 == 0:
            checkpoint.save_task(tmp_path, step // 2, numbered(step))
    assert names(tmp_path) == [
        *[f"snapshot-0000000{serial}.safetensors" for serial in (3, 4, 5)],
        *[f"task-00{task}.safetensors" for task in range(3)],
    ]
    found = checkpoint.load_latest(tmp_path)
    assert found is not None and same(found.snapshot, numbered(5)) and found.notes == ()
    assert checkpoint.tasks(tmp_path) == [0, 1, 2]
    assert same(checkpoint.load_task(tmp_path, 1), numbered(2))
    checkpoint.save(tmp_path, numbered(6), keep=1)
    assert names(tmp_path)[0] == "snapshot-00000006.safetensors" and len(names(tmp_path)) == 4
    with pytest.raises(InputError, match=r"no end of task 3; the tasks with one are \[0, 1, 2\]"):
        checkpoint.load_task(tmp_path, 3)
    with pytest.raises(ValueError, match="at least one"):
        checkpoint.save(tmp_path, numbered(7), keep=0)


def test_names_that_are_not_ours_are_neither_read_nor_removed(tmp_path):
    strange = [
        "snapshot-1.safetensors",
        "snapshot-000000009.safetensors",
        "snapshot-٠٠٠٠٠٠٠١.safetensors",
        "snapshot-99999999.safetensors.old",
        "snapshot-" + "9" * 30 + ".safetensors",
        "task-1.safetensors",
        ".tmp-1-snapshot-00000009.safetensors",
    ]
    for name in strange:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / os.fsdecode(b"snapshot-\xff.safetensors")).write_bytes(b"")
    for step in range(5):
        assert checkpoint.save(tmp_path, numbered(step)).name == f"snapshot-0000000{step}.safetensors"
    assert set(strange) < set(names(tmp_path)) and checkpoint.tasks(tmp_path) == []


def test_a_hundred_million_snapshots_do_not_run_out_of_names(tmp_path):
    for serial in (99_999_999, 100_000_000):
        checkpoint.save(tmp_path, numbered(serial)).rename(tmp_path / f"snapshot-{serial:08d}.safetensors")
    path = checkpoint.save(tmp_path, numbered(3))
    assert path.name == "snapshot-100000001.safetensors"
    found = checkpoint.load_latest(tmp_path)
    assert found is not None and found.path == path


# --- damage ---------------------------------------------------------------------------------------------


def test_a_damaged_newest_is_told_and_the_one_before_is_used(tmp_path):
    for step in range(3):
        newest = checkpoint.save(tmp_path, numbered(step))
    newest.write_bytes(newest.read_bytes()[:-1])
    found = checkpoint.load_latest(tmp_path)
    assert found is not None and same(found.snapshot, numbered(1))
    assert len(found.notes) == 1 and "snapshot-00000002" in found.notes[0]
    assert checkpoint.save(tmp_path, numbered(2)).name == "snapshot-00000003.safetensors"
    found = checkpoint.load_latest(tmp_path)
    assert found is not None and same(found.snapshot, numbered(2)) and found.notes == ()


def test_when_none_is_whole_it_is_an_error_with_the_way_out(tmp_path):
    for step in range(3):
        checkpoint.save(tmp_path, numbered(step)).write_bytes(b"")
    with pytest.raises(DamagedFileError, match=r"None of the 3 snapshots .* rollback"):
        checkpoint.load_latest(tmp_path)


def test_cut_off_at_any_byte_it_is_damaged(tmp_path):
    raw = checkpoint.save(tmp_path, ONE).read_bytes()
    for length in range(len(raw)):
        assert isinstance(verdict(tmp_path / "cut", raw[:length]), DamagedFileError)
    assert isinstance(verdict(tmp_path / "cut", raw + b"\0"), DamagedFileError)


def test_any_wrong_byte_is_damage(tmp_path):
    raw = checkpoint.save(tmp_path, ONE).read_bytes()
    for at in range(len(raw)):
        for change in (0x01, 0x20, 0xFF):
            wrong = bytearray(raw)
            wrong[at] ^= change
            assert isinstance(verdict(tmp_path / "wrong", bytes(wrong)), DamagedFileError)


META = b'{"__metadata__":{"sha256":"' + b"0" * 64 + b'","format":"edge-zofc snapshot 1","state":"%s"}%s}'


@pytest.mark.parametrize(
    ("state", "entries", "data"),
    [
        (b"{", b"", b""),
        (b"[1]", b"", b""),
        (b"1", b"", b""),
        (b'{\\"loss\\": NaN}', b"", b""),
        (b'{\\"loss\\": -Infinity}', b"", b""),
        (b"[" * 100_000, b"", b""),
        (b"1" * 5000, b"", b""),
        (b"{}", b"", b"x"),
        (b"{}", b',"a":1', b""),
        (b"{}", b',"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', b""),
        (b"{}", b',"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}', bytes(8)),
        (b"{}", b',"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}', bytes(4)),
        (b"{}", b',"a":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}', bytes(4)),
        (b"{}", b',"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}', bytes(4)),
        (b"{}", b',"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', b"\x00\x00\xc0\x7f"),
        (b"{}", b',"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', b"\x00\x00\x80\xff"),
        (b"{}", b',"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}', bytes(4)),
        (b"{}", b',"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}', bytes(4)),
        (b"{}", b',"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}', bytes(4)),
        (b"{}", b',"a":{"dtype":"nonsense","shape":[4],"data_offsets":[0,4]}', bytes(4)),
    ],
)
def test_impossible_content_is_refused_even_with_a_right_hash(tmp_path, state, entries, data):
    outcome = verdict(tmp_path / "x", sealed(META % (state, entries), data))
    assert isinstance(outcome, DamagedFileError) and "is not a snapshot" in str(outcome)


def test_impossible_header_lengths_are_refused_even_with_a_right_hash(tmp_path):
    good = sealed(META % (b"{}", b""))
    assert isinstance(verdict(tmp_path / "x", good), Snapshot)
    for length in (0, 1, len(good) - 9, len(good) + 1, 2**31, 2**63, 2**64 - 1):
        raw = length.to_bytes(8, "little") + good[8:35] + b"0" * 64 + good[99:]
        raw = raw[:35] + hashlib.sha256(raw).hexdigest().encode() + raw[99:]
        outcome = verdict(tmp_path / "x", raw)
        assert isinstance(outcome, DamagedFileError) and "is not a snapshot" in str(outcome)


def test_a_newer_format_is_told_and_not_passed_over(tmp_path):
    checkpoint.save(tmp_path, numbered(0))
    raw = sealed((META % (b"{}", b"")).replace(b"snapshot 1", b"snapshot 3"))
    (tmp_path / "snapshot-00000001.safetensors").write_bytes(raw)
    with pytest.raises(InputError, match="update edge-zofc"):
        checkpoint.load_latest(tmp_path)


@given(st.binary(max_size=300))
def test_random_bytes_are_never_a_snapshot(tmp_path_factory, noise):
    assert isinstance(verdict(tmp_path_factory.mktemp("noise") / "x", noise), DamagedFileError)


def test_another_safetensors_file_a_link_a_pipe_and_a_folder_are_refused(tmp_path):
    save_file(ONE.arrays, tmp_path / "other")
    (tmp_path / "link").symlink_to(checkpoint.save(tmp_path, ONE))
    os.mkfifo(tmp_path / "pipe")
    for name in ("other", "link", "pipe", "."):
        with pytest.raises(DamagedFileError):
            checkpoint.load(tmp_path / name)
    with pytest.raises(InputError, match="could not be read"):
        checkpoint.load(tmp_path / "missing")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(checkpoint.MAX_SNAPSHOT_BYTES + 1)
    with pytest.raises(DamagedFileError, match="at most 268435456"):
        checkpoint.load(tmp_path / "huge")


def test_a_file_larger_than_the_memory_is_told(tmp_path, monkeypatch):
    def no_memory(raw):
        raise MemoryError

    path = checkpoint.save(tmp_path, ONE)
    monkeypatch.setattr(checkpoint, "safetensors_load", no_memory)
    with pytest.raises(DoesNotFitError, match="does not fit into memory"):
        checkpoint.load(path)


# --- what is not saved ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_state_that_is_not_finite_is_never_saved(tmp_path, value):
    good = checkpoint.save(tmp_path, ONE)
    for dtype in (np.float32, np.float64):
        with pytest.raises(DivergedError, match="rows holds values that are not finite"):
            checkpoint.save(tmp_path, Snapshot({"rows": np.array([1, value], dtype)}, {}))
    with pytest.raises(DivergedError, match="cannot be saved"):
        checkpoint.save(tmp_path, Snapshot({}, {"loss": value}))
    assert names(tmp_path) == [good.name]


def test_what_no_state_holds_is_a_defect_of_the_caller(tmp_path):
    for name, array in (("x", np.zeros(1, np.complex64)), ("x", np.array(["a"])), ("__metadata__", np.zeros(1))):
        with pytest.raises(ValueError, match="cannot be in a snapshot"):
            checkpoint.save(tmp_path, Snapshot({name: array}, {}))
    assert names(tmp_path) == []


def test_a_state_above_the_limit_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_SNAPSHOT_BYTES", 250)
    with pytest.raises(DoesNotFitError, match="where 250 are the limit"):
        checkpoint.save(tmp_path, ONE)
    assert names(tmp_path) == []


# --- power cuts and full disks --------------------------------------------------------------------------


def test_a_power_cut_anywhere_leaves_the_newest_promised_state_or_the_next(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    files = RecordingFiles(run)
    promised = [(0, -1)]
    for step in range(5):
        checkpoint.save(run, numbered(step), keep=2, files=files)
        promised.append((next(n for n in range(len(files.log), 0, -1) if files.log[n - 1][0] == "fsync_folder"), step))
    for number, (done, disk) in enumerate(disks_after_cut(files.log)):
        least = [step for at, step in promised if at <= done][-1]
        found = checkpoint.load_latest(lay_out(disk, tmp_path / f"cut{number}"))
        step = -1 if found is None else found.snapshot.metadata["step"]
        assert step in (least, least + 1) and (found is None or found.notes == ())
        assert len(checkpoint._numbers(tmp_path / f"cut{number}", "snapshot")) <= 3


def test_the_model_disk_would_notice_a_snapshot_without_fsync(tmp_path):
    (tmp_path / "run").mkdir()
    files = RecordingFiles(tmp_path / "run", forgetful="fsync")
    path = checkpoint.save(tmp_path / "run", ONE, files=files)
    last = [disk for done, disk in disks_after_cut(files.log) if done == len(files.log)]
    assert any(isinstance(verdict(tmp_path / "cut", disk[path.name]), DamagedFileError) for disk in last)


@pytest.mark.parametrize("call", ["create", "write", "fsync", "rename", "fsync_folder", "unlink"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.ENOENT])
def test_whichever_call_fails_the_last_good_state_is_still_there(tmp_path, call, number):
    def fail(self, *arguments):
        raise OSError(number, os.strerror(number))

    broken = type("Broken", (Files,), {call: fail})()
    for step in range(3):
        checkpoint.save(tmp_path, numbered(step))
    with pytest.raises(EdgeZofcError) as caught:
        checkpoint.save(tmp_path, numbered(3), files=broken)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    found = checkpoint.load_latest(tmp_path)
    assert found is not None and found.snapshot.metadata["step"] in (2, 3) and found.notes == ()
    checkpoint.save(tmp_path, numbered(4))
    found = checkpoint.load_latest(tmp_path)
    assert found is not None and found.snapshot.metadata["step"] == 4
    assert len(checkpoint._numbers(tmp_path, "snapshot")) == 3


def test_on_a_full_tmpfs_the_last_state_stays_and_saving_goes_on_when_there_is_room(tmp_path):
    with small_tmpfs(tmp_path):
        small, large = (Snapshot({"x": np.zeros(size, np.uint8)}, {}) for size in (60_000, 120_000))
        checkpoint.save(tmp_path, small)
        (tmp_path / "filler").write_bytes(bytes(100_000))
        with pytest.raises(DoesNotFitError, match=r"The disk is full: .*run the same command again"):
            checkpoint.save(tmp_path, large)
        found = checkpoint.load_latest(tmp_path)
        assert found is not None and same(found.snapshot, small)
        assert names(tmp_path) == ["filler", "snapshot-00000000.safetensors"]
        (tmp_path / "filler").unlink()
        found = checkpoint.load(checkpoint.save(tmp_path, large))
        assert same(found, large)
