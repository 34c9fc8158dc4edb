"""What memory this process uses, now and at its peak, anonymous and file-backed apart.

Anonymous memory (arrays, activations, prepacked weights) has to be there; file-backed memory (libraries, mapped
weights) the kernel can drop and read again. Both count into the resident set (RSS).

What may surprise: the peak RSS is the kernel's own high-water mark, exact but since the process began; the two
parts have no such mark and are sampled every 20 ms, so their peaks may lie at different moments and a shorter
spike may be missed.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_STATM = Path("/proc/self/statm")
_STATUS = Path("/proc/self/status")
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Usage:
    """Resident bytes: all, anonymous, file-backed (shared memory included). None where the platform does
    not tell (anything but Linux).
    """

    rss_bytes: int
    anonymous_bytes: int | None
    file_bytes: int | None


def usage() -> Usage:
    """What this process has resident now."""
    try:
        fields = _STATM.read_bytes().split()
    except OSError:
        import psutil

        return Usage(int(psutil.Process().memory_info().rss), None, None)
    return _from_statm(fields)


def stack_bytes() -> int:
    """Address space that a new thread's stack reserves (8 MiB where it is not limited)."""
    if not sys.platform.startswith("linux"):
        return 0
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return 8 << 20 if soft == resource.RLIM_INFINITY else min(soft, 64 << 20)


def data_bytes() -> int | None:
    """VmData, what RLIMIT_DATA limits: private writable mappings, reserved or touched; None but on Linux."""
    return _status_bytes().get("VmData")


def _from_statm(fields: list[bytes]) -> Usage:
    # proc_pid_statm(5): size, resident, shared (file-backed and shmem), ... in pages.
    page = os.sysconf("SC_PAGE_SIZE")
    resident, shared = int(fields[1]) * page, int(fields[2]) * page
    return Usage(resident, resident - shared, shared)


def _status_bytes() -> dict[str, int]:
    """The sizes in /proc/self/status in bytes by name; empty where there is none."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return {}
    return {
        name: int(rest.split()[0]) << 10
        for name, _, rest in (s.partition(":") for s in lines)
        if "kB" in rest
    }


class PeakSampler:
    """Samples this process's memory on a daemon thread between ``start`` and ``stop`` (or as a context).

        with PeakSampler() as sampler:
            work()
        sampler.peak()

    ``peak`` and ``now`` may be called at any time, from any thread.
    """

    def __init__(self, interval_seconds: float = SAMPLE_SECONDS) -> None:
        self._interval_seconds = interval_seconds
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._peak = usage()

    def __enter__(self) -> PeakSampler:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin sampling; a second call changes nothing."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end the thread."""
        self.now()
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def now(self) -> Usage:
        """Resident bytes at this moment; they count into the peak."""
        found = usage()
        with self._lock:
            self._peak = Usage(
                max(self._peak.rss_bytes, found.rss_bytes),
                larger(self._peak.anonymous_bytes, found.anonymous_bytes),
                larger(self._peak.file_bytes, found.file_bytes),
            )
        return found

    def peak(self) -> Usage:
        """The largest of each number so far; RSS since the process began, where the kernel keeps a mark."""
        self.now()
        with self._lock:
            sampled = self._peak
        high_water = _status_bytes().get("VmHWM", 0)
        return Usage(max(sampled.rss_bytes, high_water), sampled.anonymous_bytes, sampled.file_bytes)

    def _run(self) -> None:
        while not self._stop.wait(self._interval_seconds):
            self.now()


def larger(first: int | None, second: int | None) -> int | None:
    """The larger of two measurements, either of which may be unknown."""
    return second if first is None else first if second is None else max(first, second)


def mib(count: int | None) -> float | None:
    """Mebibytes to two decimals, as results and events give them; None stays None."""
    return None if count is None else round(count / 2**20, 2)
