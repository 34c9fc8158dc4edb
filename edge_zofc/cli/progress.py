"""How far a run is, on stderr: a bar on a terminal, one line a task elsewhere."""

from __future__ import annotations

import logging
import sys

from tqdm import tqdm

from edge_zofc.engine.trainer import Trainer

log = logging.getLogger("edge_zofc")


class ProgressBar:
    """Give ``step`` to the loop; one bar a task."""

    def __init__(self) -> None:
        # None off a terminal: tqdm starts a thread even for a bar that is disabled.
        self._bar: tqdm[None] | None = None
        self._task = -1

    def step(self, trainer: Trainer, loss: float) -> None:
        """One step was done; ``loss`` is the batch's under theta."""
        number = len(trainer.state.progress.tasks) - 1
        if number != self._task:
            self.close()
            self._task, self._bar = number, _bar(trainer)
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            self._bar.update()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def _bar(trainer: Trainer) -> tqdm[None] | None:
    task = trainer.state.current_task
    if not sys.stderr.isatty():
        log.info("learning task %s", task.name)
        return None
    steps = -(-(task.train_images + task.skipped_images) // trainer.options.batch_size) * trainer.options.epochs
    return tqdm(total=steps, initial=task.steps - 1, desc=task.name, unit="step", file=sys.stderr)
