"""How far a run is, on stderr: a bar on a terminal, a line a task and a minute elsewhere."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

from edge_zofc.engine.trainer import Trainer
from edge_zofc.engine.work import forwards_left

log = logging.getLogger("edge_zofc")

LINE_SECONDS = 60.0


class ProgressBar:
    """Give ``forwards`` to the loop; one bar over every pass of all pending tasks, in image-forwards."""

    def __init__(self) -> None:
        self._done, self._total = 0, 0
        self._where: tuple[int, str] | None = None
        self._began = self._told = time.monotonic()
        # None off a terminal: tqdm starts a thread even for a bar that is disabled.
        self._bar: tqdm[None] | None = None

    def forwards(self, trainer: Trainer, count: int) -> None:
        """So many image-forwards were done."""
        progress = trainer.state.progress
        where = len(progress.tasks), progress.phase
        if where != self._where:
            self._enter(trainer, where)
        self._done += count
        self._total = max(self._total, self._done)
        memory = f"{trainer.usage.now().rss_bytes >> 20}/{trainer.budget_bytes >> 20} MiB"
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.set_postfix_str(memory, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._told >= LINE_SECONDS:
            self._tell(memory)

    def _enter(self, trainer: Trainer, where: tuple[int, str]) -> None:
        """A task began, or its training did or ended: what is left is known anew, as a pass may not be needed."""
        self._where, self._total = where, self._done + forwards_left(trainer)
        pending = trainer.pending_tasks()
        name = pending[0].name if pending else ""
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(total=self._total, unit="fwd", unit_scale=True, file=sys.stderr, dynamic_ncols=True)
            self._bar.set_description(name, refresh=False)
        elif where[1] == "idle":
            log.info("learning task %s", name)

    def _tell(self, memory: str) -> None:
        self._told = time.monotonic()
        rate = self._done / max(self._told - self._began, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        log.info(
            "%.0f %%: %d of %d image-forwards, %.0f a second, about %.0f minutes left, %s",
            *(100 * self._done / self._total, self._done, self._total, rate, left / 60, memory),
        )

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
