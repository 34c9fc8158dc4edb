"""The memory limit: holds this very process to what its memory plan allows.

RLIMIT_DATA does not count file-backed memory. It counts private *writable mappings*, touched or not: thread stacks and
onnxruntime's mapping of the weights too. ``MemoryPlan.reserved_bytes`` is added for them, so the limit is looser than
the budget. A GPU's memory is limited by its profile's ``gpu_mem_limit``.
"""

from __future__ import annotations

import ctypes
import logging
import sys

import numpy as np

from edge_zofc.device.memory_plan import MemoryPlan
from edge_zofc.device.system import data_bytes, usage

log = logging.getLogger("edge_zofc")

_M_MMAP_THRESHOLD = -3  # malloc.h of glibc
SMALL_BYTES, LARGE_BYTES = 64 << 10, 4 << 20


def enforce(plan: MemoryPlan, *, accelerator: bool = False) -> int | None:
    """Limit this process's RLIMIT_DATA so that its memory stays within the plan's budget; returns the limit.

    Call it before the session opens and torch is imported. The limit is VmData now, plus what anonymous memory may grow
    by within the budget, plus the plan's reservations; a hard limit already set is kept. A failed allocation is then a
    MemoryError. Freed matrices go back at once; with the arena off smaller blocks do, too. Returns None, with the
    reason logged, where it cannot: not Linux, or ``accelerator`` True (a CUDA process reserves more address space than
    any such limit).
    """
    give_freed_memory_back(LARGE_BYTES if plan.placement.arena else SMALL_BYTES)
    # OpenBLAS reserves its buffer (32 MiB) at the first product of large matrices (more than a million multiplications
    # with AVX-512), and ends the process where it cannot. So it reserves it now.
    large = np.ones((256, 256))
    _ = large @ large
    mapped, here = data_bytes(), usage()
    if accelerator or mapped is None or here.anonymous_bytes is None:
        why = "an accelerator's driver reserves address space" if accelerator else "this is not Linux"
        log.warning("The memory budget is planned but not enforced by RLIMIT_DATA: %s.", why)
        return None
    import resource

    growth = plan.budget_bytes - plan.file_bytes - here.anonymous_bytes
    limit = mapped + max(growth, 0) + plan.reserved_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return limit


def give_freed_memory_back(least: int = SMALL_BYTES) -> bool:
    """Make glibc's malloc map every block of ``least`` bytes or more, so that a freed one goes back at once.

    Otherwise malloc raises its threshold with each large free and keeps the memory: activations of a ViT-B run stayed
    at 111 MiB where 42 were in use, and matrices of 1280 x 1280 took 20 MiB more than were ever alive. Returns False
    where malloc is not glibc's.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, least) == 1
