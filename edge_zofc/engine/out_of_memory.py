"""Work that happens as a whole or not at all: a task's beginning, a step, a task's end.

An allocation can fail anywhere. Then the whole state is put back, the next thriftier session opened and the work done
again: half the micro-batch, then one adapter at a time, then without the arena. A signal puts the state back too. What
is saved then is what was there before the work, so that no counter of ``result.json`` counts anything twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge_zofc.device.memory_limit import give_freed_memory_back
from edge_zofc.engine.trainer import Trainer
from edge_zofc.errors import ArenaFullError, DoesNotFitError, Stopped

log = logging.getLogger("edge_zofc")


def retry_smaller(trainer: Trainer, work: Callable[..., None], *arguments: object) -> None:
    """Do ``work(trainer, *arguments)``, which must write its journal record last.

    Raises DoesNotFitError, with the state saved, when memory runs out and nothing is left to halve; Stopped, with the
    state put back, when a signal comes.
    """
    while True:
        before = trainer.state.to_snapshot()
        try:
            reason = _out_of_memory(work, trainer, *arguments)
        except Stopped:
            trainer.state.restore(before)
            raise
        if reason is None:
            return
        trainer.backbone.close()
        trainer.state.restore(before)
        _reopen_smaller(trainer, reason)


def _reopen_smaller(trainer: Trainer, reason: MemoryError) -> None:
    """Open the next thriftier session that there is memory for. Raises as ``retry_smaller``."""
    old, why = trainer.backbone.placement, reason
    while (smaller := old.smaller()) is not None:
        sizes = {"from": old.micro_batch, "to": smaller.micro_batch}
        trainer.events.write("micro_batch_halved", **sizes, reason=str(why))
        log.warning(
            "Memory ran out: going on with micro-batch %d, %d adapter(s) a run%s.",
            *(smaller.micro_batch, smaller.parallel_queries, "" if smaller.arena else ", arena off"),
        )
        if not smaller.arena:
            give_freed_memory_back()
        why_not = _out_of_memory(trainer.open_backbone, smaller)
        if why_not is None:
            return
        old, why = smaller, why_not
    trainer.save()
    way_out = why.WAY_OUT if isinstance(why, ArenaFullError) else "give a larger --memory-budget"
    raise DoesNotFitError(
        f"An allocation failed with one picture and one adapter at a time ({why}); the state is saved: {way_out}, "
        "or export with a smaller precision or image size."
    )


def _out_of_memory(work: Callable[..., None], *arguments: object) -> MemoryError | None:
    """Do ``work``; returns why memory ran out, or None.

    The exception itself ends here, and a new one is returned: its traceback would keep alive what the failed work had
    allocated, the session too.
    """
    try:
        work(*arguments)
    except MemoryError as error:
        kind = ArenaFullError if isinstance(error, ArenaFullError) else MemoryError
        return kind(str(error) or "out of memory")
    return None
