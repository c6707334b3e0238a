"""The curves of a run that trains in a cell of a notebook, redrawn in place while it does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_modules.callbacks.quiet import Quiet
from lightning_modules.tracking.screen import Screen, draw_curves
from plait.runs import Run


class LiveCurve(Quiet):
    """Draws what the run has logged; a run that goes on shows its curve from the first step.

    Args:
        folder: run folder.
        keys: of the metrics that are drawn.
        every_n_steps: optimiser steps between two drawings; each takes about a tenth of a second.
    """

    def __init__(self, folder: str | Path, keys: Sequence[str] = ("train/loss",), every_n_steps: int = 5) -> None:
        self.folder, self.keys, self.every_n_steps = Path(folder), keys, every_n_steps
        self.screen = Screen()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Draw, if it is due."""
        is_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if is_step and trainer.global_step % self.every_n_steps == 0:
            self._draw(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw all of it."""
        self._draw(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Draw what there is: a cell that was stopped shows how far it came."""
        self._draw(trainer)

    def _draw(self, trainer: Any) -> None:
        if trainer.is_global_zero:
            note = f"{self.folder.name}: step {trainer.global_step} of {trainer.max_steps}"
            self.screen.show(draw_curves({self.folder.name: Run(self.folder).metrics}, self.keys, note))
