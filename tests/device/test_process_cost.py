"""What a process costs is measured in children, kept, and estimated where there is no room to measure."""

import ctypes
import mmap
import os
import sys
import tempfile
from pathlib import Path

import pytest

from edge_zofc.device import process_cost
from edge_zofc.device.process_cost import BaseCost, Cost
from edge_zofc.device.system import Board, usage

MIB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_the_base_is_measured_in_a_child_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_cost, "torch_estimate", lambda: None)
    first = process_cost.measure_base(("numpy",), tmp_path)
    assert first.measured
    assert first.torch is None
    assert 5 * MIB < first.process.anonymous_bytes + first.process.file_bytes < 120 * MIB
    monkeypatch.setattr(process_cost, "_in_child", lambda *_: pytest.fail("measured twice"))
    assert process_cost.measure_base(("numpy",), tmp_path) == first


@linux
def test_of_two_measurements_the_smaller_one_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS B8: without torch twice, then with it twice; between the two the libraries are read anew."""
    costs = iter([Cost(1, 40, 3), Cost(1, 2, 3), Cost(10, 400, 30), Cost(11, 250, 31)])
    forgotten: list[str] = []
    monkeypatch.setattr(process_cost, "torch_estimate", lambda: Cost(9, 9, 9))
    monkeypatch.setattr(process_cost, "_in_child", lambda *_: (next(costs), ["/lib/one.so"]))
    monkeypatch.setattr(process_cost, "_forget", forgotten.append)
    found = process_cost.measure_base(("numpy",), tmp_path)
    assert found.process == Cost(1, 2, 3)
    assert found.torch == Cost(10, 248, 28)
    assert forgotten == ["/lib/one.so"] * 2


@linux
def test_the_child_tells_which_libraries_it_mapped() -> None:
    found = process_cost._in_child(("numpy",), "")
    assert found is not None
    assert any("_multiarray_umath" in library for library in found[1])
    assert all(library.startswith("/") and ".so" in library for library in found[1])


@linux
def test_what_was_just_written_is_read_anew(tmp_path: Path) -> None:
    """FAULTS B8: pages of a new file leave the cache, dirty ones too."""
    path = tmp_path / "library.so"
    path.write_bytes(bytes(1 << 20))
    before = _cached_bytes(path)
    process_cost._forget(str(path))
    assert before == 1 << 20
    assert _cached_bytes(path) == 0
    process_cost._forget(str(tmp_path / "nowhere"))


def _cached_bytes(path: Path) -> int:
    """How much of a file is in the page cache, by mincore(2)."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE) as mapped,
    ):
        buffer = ctypes.c_char.from_buffer(mapped)
        pages = len(mapped) // mmap.PAGESIZE
        found = (ctypes.c_ubyte * pages)()
        assert ctypes.CDLL(None).mincore(ctypes.byref(buffer), ctypes.c_size_t(len(mapped)), found) == 0
        del buffer
    return sum(flag & 1 for flag in found) * mmap.PAGESIZE


@linux
@pytest.mark.parametrize(
    "content", [b"", b"\xff\0", b"[]", b"5", b'{"process": [1, 2]}', b'{"process": [1, 2, -3], "torch": null}']
)
def test_a_damaged_cache_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(process_cost, "torch_estimate", lambda: None)
    monkeypatch.setattr(process_cost, "_in_child", lambda *_: (Cost(1, 2, 3), []))
    (tmp_path / f"base-cost-{process_cost._key(('numpy',))}.json").write_bytes(content)
    assert process_cost.measure_base(("numpy",), tmp_path) == BaseCost(process=Cost(1, 2, 3), torch=None)


def test_a_crowded_machine_is_not_measured_but_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crowded = Board("", "any", 1, 4000 * MIB, 3000 * MIB, usage().rss_bytes + 50 * MIB)
    monkeypatch.setattr(process_cost, "board", lambda: crowded)
    monkeypatch.setattr(process_cost, "_in_child", lambda *_: pytest.fail("measured"))
    assert not process_cost.measure_base(cache_folder=tmp_path).measured


def test_a_child_that_fails_leaves_the_estimate(tmp_path: Path) -> None:
    found = process_cost.measure_base(("no_such_module_anywhere",), tmp_path)
    assert not found.measured
    assert found.process == process_cost.PROCESS_ESTIMATE
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS B9: it is kept elsewhere, not measured anew at each start."""
    children: list[int] = []
    monkeypatch.setattr(process_cost, "torch_estimate", lambda: None)
    monkeypatch.setattr(process_cost, "_in_child", lambda *_: children.append(1) or (Cost(1, 2, 3), []))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "file").write_text("")
    for _ in range(3):
        assert process_cost.measure_base((), tmp_path / "file" / "below").measured
    assert len(children) == 2  # of the first start


@pytest.mark.parametrize("planted", ["link", "open"])
def test_where_nothing_can_be_kept_an_estimate_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    """FAULTS B9: nothing is measured; a folder that others may write is not trusted, nor is a link."""
    monkeypatch.setattr(process_cost, "_in_child", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = tmp_path / f"edge-zofc-{os.getuid()}"
    if planted == "link":
        place.symlink_to(tmp_path)
    else:
        place.mkdir()
        place.chmod(0o777)
    (tmp_path / "file").write_text("")
    assert not process_cost.measure_base((), tmp_path / "file" / "below").measured
