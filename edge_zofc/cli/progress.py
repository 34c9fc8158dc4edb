"""How far a run is, on stderr: a bar on a terminal, one line a task elsewhere."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

from tqdm import tqdm

from edge_zofc.data.stream import list_samples
from edge_zofc.engine.trainer import Session

log = logging.getLogger("edge_zofc")


class StepProgress:
    """Give ``step`` to the loop; one bar a task."""

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None
        self._task = -1

    def step(self, session: Session, loss: float) -> None:
        """One step was done; ``loss`` is the batch's under theta."""
        number = len(session.state.progress.tasks) - 1
        if number != self._task:
            self._begin(session, number)
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            self._bar.update()

    def _begin(self, session: Session, number: int) -> None:
        self._close()
        self._task = number
        name = session.state.current_task.name
        if not sys.stderr.isatty():
            log.info("learning task %s", name)
            return
        by_name = {task.name: task for task in session.stream.tasks}
        pictures = len(list_samples(session.stream, by_name[name], "train"))
        steps = -(-pictures // session.options.batch_size) * session.options.epochs
        done = session.state.current_task.steps - 1
        self._bar = tqdm(total=steps, initial=done, desc=name, unit="step", file=sys.stderr, leave=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def __enter__(self) -> StepProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
