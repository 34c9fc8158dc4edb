"""Work that happens as a whole or not at all: a task's beginning, a step, a task's end.

An allocation can fail anywhere. Then the whole state is put back, the next thriftier session opened and the work done
again: half the micro-batch, then one adapter at a time, then without the arena.

What may surprise: a signal, too, puts the state back. What is saved then is what was there before the work, so that no
counter of ``result.json`` counts anything twice once the work is done again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from edge_zofc.device.memory_limit import give_freed_memory_back
from edge_zofc.engine.trainer import Session
from edge_zofc.errors import DoesNotFitError, Stopped
from edge_zofc.inference.backbone import Backbone, BackboneOptions

log = logging.getLogger("edge_zofc")


def with_room(session: Session, work: Callable[..., None], *arguments: object) -> None:
    """Do ``work(session, *arguments)``, which must write its journal record last.

    Raises DoesNotFitError, with the state saved, when memory runs out and nothing is left to halve; Stopped, with the
    state put back, when a signal comes.
    """
    while True:
        before = session.state.to_snapshot()
        try:
            reason = _out_of_memory(work, session, *arguments)
        except Stopped:
            session.state.restore(before)
            raise
        if reason is None:
            return
        session.backbone.close()
        session.state.restore(before)
        _reopen_smaller(session, reason)


def _reopen_smaller(session: Session, reason: str) -> None:
    """Open the next thriftier session that there is memory for. Raises as ``with_room``."""
    old, why = session.backbone.options, reason
    while (smaller := _smaller(old)) is not None:
        session.events.write(
            "micro_batch_halved", **{"from": old.micro_batch, "to": smaller.micro_batch}, reason=why
        )
        log.warning(
            "Memory ran out: going on with micro-batch %d, %d adapter(s) a run%s.",
            *(smaller.micro_batch, smaller.parallel_adapters, "" if smaller.arena else ", arena off"),
        )
        if not smaller.arena:
            give_freed_memory_back()
        why_not = _out_of_memory(_open, session, smaller)
        if why_not is None:
            return
        old, why = smaller, why_not
    session.save()
    raise DoesNotFitError(
        f"An allocation failed with one picture and one adapter at a time ({why}); the state is saved: give a "
        "larger --memory-budget, or export with a smaller precision or image size."
    )


def _open(session: Session, options: BackboneOptions) -> None:
    session.backbone = Backbone(session.bundle, options)


def _smaller(options: BackboneOptions) -> BackboneOptions | None:
    """Half the micro-batch; once that is 1, one adapter at a time; then without the arena; None after that."""
    if options.micro_batch > 1:
        return replace(options, micro_batch=options.micro_batch // 2)
    if options.parallel_adapters > 1:
        return replace(options, parallel_adapters=1)
    if options.arena:
        return replace(options, arena=False)
    return None


def _out_of_memory(work: Callable[..., None], *arguments: object) -> str | None:
    """Do ``work``; returns why memory ran out, or None.

    The exception ends here: its traceback would keep alive what the failed work had allocated, the session too.
    """
    try:
        work(*arguments)
    except MemoryError as error:
        return str(error) or "out of memory"
    return None
