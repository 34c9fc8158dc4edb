"""What ``plan`` prints."""

from __future__ import annotations

from edge_zofc.device.memory_plan import MemoryPlan
from edge_zofc.engine.disk_plan import DiskPlan
from edge_zofc.engine.work import TimePlan
from edge_zofc.report.text import table


def plan_text(found: MemoryPlan, disk: DiskPlan, time: TimePlan | None, tasks: int, width: int) -> str:
    """Tables of memory, disk and time for a terminal of ``width`` columns; ``tasks``: those of the stream."""
    memory = [("anonymous", "file-backed", "MiB")]
    memory += [(_mib(i.anonymous_bytes), _mib(i.file_bytes), f"{i.name}: {i.note}") for i in found.items]
    together = f"predicted peak: {_mib(found.peak_bytes)} MiB together"
    memory.append((_mib(found.anonymous_bytes), _mib(found.file_bytes), together))
    memory.append((_mib(found.budget_bytes), "", "budget"))
    what = f"{tasks} tasks, {disk.steps} steps" if tasks else "before any task; give --stream for its tasks"
    files = [("KiB", "disk"), *((f"{i.bytes / 1024:.1f}", f"{i.name}: {i.note}".rstrip(": ")) for i in disk.items)]
    files.append((f"{disk.bytes / 1024:.1f}", f"together: {what}"))
    parts = [table(memory, "rrl", width), table([(found.reason,)], "l", width), table(files, "rl", width)]
    if time is not None:
        rows = [(f"{time.image_forwards}", "image-forwards at most: pictures x adapters through the graph")]
        if time.seconds is not None and time.seconds_a_forward is not None:
            rows.append((f"{1000 * time.seconds_a_forward:.1f}", "ms each on this machine, decoding included"))
            rows.append((f"{time.seconds / 60:.1f}", "minutes in all"))
        parts.append(table([("", "time"), *rows], "rl", width))
    return "\n\n".join(parts)


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f}"
