"""How far a run is, on stderr: a bar on a terminal, one line a task elsewhere."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

from tqdm import tqdm

from edge_zofc.engine.trainer import Trainer

log = logging.getLogger("edge_zofc")


class ProgressBar:
    """Give ``step`` to the loop; one bar a task."""

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None
        self._task = -1

    def step(self, trainer: Trainer, loss: float) -> None:
        """One step was done; ``loss`` is the batch's under theta."""
        number = len(trainer.state.progress.tasks) - 1
        if number != self._task:
            self._begin(trainer, number)
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            self._bar.update()

    def _begin(self, trainer: Trainer, number: int) -> None:
        self._close()
        self._task, task = number, trainer.state.current_task
        if not sys.stderr.isatty():
            log.info("learning task %s", task.name)
            return
        pictures = task.train_images + task.skipped_images
        steps = -(-pictures // trainer.options.batch_size) * trainer.options.epochs
        self._bar = tqdm(total=steps, initial=task.steps - 1, desc=task.name, unit="step", file=sys.stderr)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
