"""The memory limit: holds this very process to what its memory plan allows.

Of a GPU the session's arena is limited by its profile's ``gpu_mem_limit``; torch's head runs on the CPU and takes none.

RLIMIT_DATA sees neither file-backed memory nor what is really touched. It counts private *writable mappings*, thread
stacks and onnxruntime's mapping of the weights included. Those reservations are added to the limit, so it is looser
than the budget by what ``MemoryPlan.reserved_bytes`` says.
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
_MMAP_THRESHOLD_BYTES = 64 << 10


def enforce(plan: MemoryPlan, *, accelerator: bool = False) -> int | None:
    """Limit this process's RLIMIT_DATA so that its memory stays within the plan's budget; returns the limit.

    Call it before the session opens and torch is imported. The limit is VmData now, plus what anonymous memory
    may still grow to within the budget, plus the plan's reservations; a hard limit already set is kept.
    With the arena off it also makes malloc return freed blocks at once (glibc). A failed allocation is then a
    MemoryError. Returns None, with the reason logged, where it cannot: not Linux, or ``accelerator`` True
    (a CUDA process reserves more address space than any such limit).
    """
    if not plan.placement.arena:
        give_freed_memory_back()
    # OpenBLAS reserves its buffer (32 MiB here) at the first product, and ends the process where it cannot: now, then.
    # Its kernels for small matrices (up to a million multiplications with AVX-512) take none, so a large one.
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


def give_freed_memory_back() -> bool:
    """Make glibc's malloc map every block from 64 KiB up, so that a freed one goes back at once.

    Left alone, malloc raises its threshold with each large free and keeps the memory: activations of a ViT-B
    run stayed at 111 MiB where 42 were in use. Returns False where malloc is not glibc's.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES) == 1
