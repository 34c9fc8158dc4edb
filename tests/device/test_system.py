"""The kernel's files are understood, and the measurement sees what was taken."""

import json
import mmap
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from cgroup import cpu_cgroup
from hypothesis import given
from hypothesis import strategies as st

from edge_zofc.device.system import Board, PeakSampler, Usage, board, cgroup_cpus, cgroup_limit_bytes, data_bytes, usage

MIB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


# ---- boards that only exist in a folder


@pytest.fixture(autouse=True)
def real_proc_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "PROCFS_PATH", "/proc")


def fake_root(tmp_path: Path, **files: str) -> Path:
    psutil.PROCFS_PATH = str(tmp_path / "proc")
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


MEMINFO = "MemTotal: 1000000 kB\nMemFree: 5 kB\nMemAvailable: 600000 kB\nHugePages_Total: 0\n" + "".join(
    f"{name}: 1 kB\n" for name in ("Buffers", "Cached", "SReclaimable", "Shmem", "Active", "Inactive", "Slab")
)
V1_MOUNT = "35 31 0:32 / /cg/memory rw,relatime - cgroup cgroup rw,memory\n31 1 0:1 / / rw - ext4 /dev/x rw\n"
V2_MOUNT = "41 31 0:38 / /cg rw,relatime shared:9 - cgroup2 cgroup2 rw\n"


def test_a_board_is_read_from_the_kernels_files(tmp_path: Path) -> None:
    root = fake_root(tmp_path, proc__meminfo=MEMINFO)
    (root / "proc/device-tree").mkdir()
    (root / "proc/device-tree/model").write_bytes(b"Raspberry Pi 4 Model B Rev 1.4\0")
    found = board(root)
    assert found.model == "Raspberry Pi 4 Model B Rev 1.4"
    assert (found.mem_total_bytes, found.mem_available_bytes) == (1_024_000_000, 614_400_000)
    assert found.cgroup_limit_bytes is None


@pytest.mark.parametrize("part", ["mem_total_bytes", "mem_available_bytes", "usable_bytes"])
def test_the_real_board_has_some_memory(part: str) -> None:
    assert getattr(board(), part) > 100 * MIB


def test_the_smallest_limit_of_a_v1_tree_counts(tmp_path: Path) -> None:
    root = fake_root(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n",
        proc__self__mountinfo=V1_MOUNT,
    )
    for folder, value in (("a/b", "9223372036854771712"), ("a", "500000000"), ("", "700000000")):
        path = root / "cg/memory" / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / "memory.limit_in_bytes").write_text(value + "\n")
    assert cgroup_limit_bytes(root) == 500_000_000


@pytest.mark.parametrize(("text", "limit"), [("max\n", None), ("400000000\n", 400_000_000), ("", None), ("-1", None)])
def test_a_v2_limit_is_read_and_max_is_none(tmp_path: Path, text: str, limit: int | None) -> None:
    root = fake_root(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/user/x\n", proc__self__mountinfo=V2_MOUNT)
    (root / "cg/user/x").mkdir(parents=True)
    (root / "cg/user/x/memory.max").write_text(text)
    assert cgroup_limit_bytes(root) == limit


def test_a_container_that_sees_its_own_cgroup_as_the_top_is_understood(tmp_path: Path) -> None:
    root = fake_root(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="0::/docker/abc\n",
        proc__self__mountinfo=V2_MOUNT.replace(" / /cg", " /docker/abc /cg"),
    )
    (root / "cg").mkdir()
    (root / "cg/memory.max").write_text("300000000")
    assert cgroup_limit_bytes(root) == 300_000_000


def test_a_limit_above_the_machines_memory_is_none(tmp_path: Path) -> None:
    root = fake_root(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/\n", proc__self__mountinfo=V2_MOUNT)
    (root / "cg").mkdir()
    (root / "cg/memory.max").write_text("3000000000000")
    assert cgroup_limit_bytes(root) is None


@pytest.mark.parametrize(
    ("quotas", "cpus"),
    [
        ({"a/b": (50_000, 100_000), "a": (400_000, 100_000), "": (-1, 100_000)}, 0.5),
        ({"a/b": (-1, 100_000), "a": (300_000, 200_000), "": (200_000, 100_000)}, 1.5),
        ({"a/b": (-1, 100_000), "a": (-1, 100_000), "": (-1, 100_000)}, None),
        ({"a/b": (50_000, 0)}, None),
    ],
)
def test_the_strictest_cpu_quota_of_a_v1_tree_counts(
    tmp_path: Path, quotas: dict[str, tuple[int, int]], cpus: float | None
) -> None:
    """FAULTS B9: the cpu controller has a mount and a path of its own."""
    mounts = V1_MOUNT + "36 31 0:33 / /cg/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    root = fake_root(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="4:memory:/elsewhere\n3:cpuset:/\n2:cpu,cpuacct:/a/b\n0::/\n",
        proc__self__mountinfo=mounts,
    )
    for folder, (quota, period) in quotas.items():
        path = root / "cg/cpu,cpuacct" / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (path / "cpu.cfs_period_us").write_text(f"{period}\n")
    assert cgroup_cpus(root) == cpus


@pytest.mark.parametrize(
    ("texts", "cpus"),
    [
        ({"user/x": "max 100000\n", "user": "25000 100000\n"}, 0.25),
        ({"user/x": "150000 100000\n", "user": "max 100000\n"}, 1.5),
        ({"user/x": "max 100000\n"}, None),
        ({"user/x": "", "user": "12\n", "": "-5 100000\n"}, None),
    ],
)
def test_the_strictest_cpu_quota_of_a_v2_tree_counts(tmp_path: Path, texts: dict[str, str], cpus: float | None) -> None:
    """FAULTS B9: cpu.max holds quota and period."""
    root = fake_root(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/user/x\n", proc__self__mountinfo=V2_MOUNT)
    (root / "cg/user/x").mkdir(parents=True)
    for folder, text in texts.items():
        (root / "cg" / folder / "cpu.max").write_text(text)
    assert cgroup_cpus(root) == cpus


@pytest.mark.parametrize(("cpus", "usable"), [(None, 4), (0.25, 1), (1.0, 1), (1.5, 2), (3.01, 4), (64.0, 4)])
def test_a_quota_is_rounded_up_to_whole_threads(cpus: float | None, usable: int) -> None:
    """FAULTS B9: half a CPU is one thread, and a quota above the CPUs is none."""
    assert Board("", "any", 4, 1000 * MIB, 500 * MIB, None, cpus).usable_cpus == usable


@linux
def test_a_real_quota_of_half_a_cpu_gives_one_thread(tmp_path: Path) -> None:
    """FAULTS B9: the kernel's own files, read by a child inside a cgroup with a quota."""
    program = (
        "import json; from edge_zofc.device.system import board; from edge_zofc.device.profiles import load_profile;"
        "print(json.dumps([board().cgroup_cpus, load_profile('auto').threads]))"
    )
    with cpu_cgroup(0.5) as enter:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, preexec_fn=enter)
    assert json.loads(done.stdout) == [0.5, 1]


@given(st.text(max_size=60), st.text(max_size=80))
def test_unreadable_kernel_files_never_raise(
    tmp_path_factory: pytest.TempPathFactory, cgroup: str, mountinfo: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "fuzz"
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/meminfo").write_text(MEMINFO)
    (root / "proc/self/cgroup").write_bytes(cgroup.encode("utf-8", "replace"))
    (root / "proc/self/mountinfo").write_bytes(mountinfo.encode("utf-8", "replace"))
    assert cgroup_limit_bytes(root) is None
    assert cgroup_cpus(root) is None


# ---- what this process uses


def fresh(size: int) -> np.ndarray:
    """``size`` bytes that no allocator had before: malloc may hand out pages that it kept."""
    array = np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    array[:] = 1
    return array


@linux
def test_an_array_of_64_mib_is_seen_and_its_peak_is_kept() -> None:
    with PeakSampler() as sampler:
        before = sampler.now()
        array = fresh(64 * MIB)
        during = sampler.now()
        del array
        after = sampler.peak()
    assert before.anonymous_bytes is not None
    assert during.anonymous_bytes is not None
    assert after.anonymous_bytes is not None
    assert during.anonymous_bytes - before.anonymous_bytes == pytest.approx(64 * MIB, rel=0.05)
    assert after.anonymous_bytes >= during.anonymous_bytes
    assert after.rss_bytes >= during.rss_bytes


@linux
def test_the_thread_sees_what_nobody_asked_about() -> None:
    with PeakSampler(interval_seconds=0.005) as sampler:
        start = sampler.now()
        enough = (start.anonymous_bytes or 0) + 40 * MIB
        array = fresh(48 * MIB)
        waiting_until = time.monotonic() + 20  # a busy machine may let the thread wait
        while (sampler._peak.anonymous_bytes or 0) < enough and time.monotonic() < waiting_until:
            time.sleep(0.15)
        del array
    assert (sampler.peak().anonymous_bytes or 0) >= enough


@linux
def test_mapped_files_are_told_apart_from_arrays(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(32 * MIB))
    before = usage()
    mapped = np.memmap(path, np.uint8, "r")
    assert int(mapped.sum()) == 0
    after = usage()
    assert after.file_bytes - before.file_bytes == pytest.approx(32 * MIB, rel=0.1)  # type: ignore[operator]
    assert after.rss_bytes == after.anonymous_bytes + after.file_bytes  # type: ignore[operator]


def test_a_sampler_may_be_started_and_stopped_twice() -> None:
    sampler = PeakSampler()
    for _ in range(2):
        sampler.start()
        sampler.start()
        sampler.stop()
        sampler.stop()
    assert sampler.peak().rss_bytes > MIB


def test_without_proc_the_parts_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=2 * MIB))
    monkeypatch.setattr("edge_zofc.device.system._process", lambda number: elsewhere)
    monkeypatch.setattr("edge_zofc.device.system._STATUS", Path("/nowhere/status"))
    found = usage()
    assert isinstance(found, Usage)
    assert found.rss_bytes > MIB
    assert found.anonymous_bytes is None
    assert PeakSampler().peak().file_bytes is None
    assert data_bytes() is None
