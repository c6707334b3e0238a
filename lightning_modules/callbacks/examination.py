"""What a part can do, measured while it trains and at the end.

The recipe gives a callable that measures (lightning_modules/jobs/bases.py, learning.py); the model is put to rest meanwhile, so that
measuring never changes what is trained or saved.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
from torch import nn

from lightning_modules.callbacks.quiet import Quiet
from lightning_modules.callbacks.sample_gallery import at_rest
from lightning_modules.callbacks.throughput import paused_clocks
from plait.atomic import write_json

BEFORE = "before"


class Examination(Quiet):
    """Examines the model.

    Args:
        folder: run folder; what `examine` writes goes to `examination/` in it.
        examine: (model, folder) -> figure name -> value.
        every_n_steps: optimiser steps between two examinations; 0 examines only the finished model.
        has_before: examine the model before its first step as well, into `examination/before.json`.
    """

    def __init__(
        self,
        folder: str | Path,
        examine: Callable[[nn.Module, Path], Mapping[str, Any]],
        every_n_steps: int = 0,
        has_before: bool = False,
    ) -> None:
        self.folder, self.examine = Path(folder) / "examination", examine
        self.every_n_steps, self.has_before = every_n_steps, has_before

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Examine what training begins with; a run that goes on has done so."""
        if self.has_before and trainer.is_global_zero and trainer.global_step == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / f"{BEFORE}.json", self._look(trainer, pl_module))

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Examine, if it is due and this is not the last step."""
        is_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        is_due = is_step and self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if is_due and trainer.is_global_zero and not pl_module.is_finished:
            self._log(trainer, self._look(trainer, pl_module))

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Examine the finished model, unless training was stopped before its last step."""
        if trainer.is_global_zero and pl_module.is_finished:
            self._log(trainer, self._look(trainer, pl_module))

    def _look(self, trainer: lightning.Trainer, pl_module: Any) -> dict[str, float]:
        with paused_clocks(trainer), at_rest(pl_module.model):
            summary = self.examine(pl_module.model, self.folder)
        return {name: value for name, value in summary.items() if isinstance(value, int | float)}

    def _log(self, trainer: lightning.Trainer, figures: Mapping[str, float]) -> None:
        figures = {f"examination/{name}": value for name, value in figures.items()}
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=max(trainer.global_step - 1, 0))
