"""What a finished part can do, measured once at the end of its training and written beside it.

The recipe gives a callable that measures (lightning_modules/jobs/bases.py); the model is put to rest meanwhile, so that measuring
never changes what is saved.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
from torch import nn

from lightning_modules.callbacks.quiet import Quiet
from lightning_modules.callbacks.sample_gallery import at_rest
from lightning_modules.callbacks.throughput import paused_clocks


class ExaminationAtEnd(Quiet):
    """Examines the finished model.

    Args:
        folder: run folder; figures go to `examination/` in it.
        examine: (model, folder) -> figure name -> value.
    """

    def __init__(self, folder: str | Path, examine: Callable[[nn.Module, Path], Mapping[str, Any]]) -> None:
        self.folder, self.examine = Path(folder) / "examination", examine

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Measure, unless training was stopped before its last step."""
        if trainer.global_step < pl_module.max_steps or not trainer.is_global_zero:
            return
        with paused_clocks(trainer), at_rest(pl_module.model):
            summary = self.examine(pl_module.model, self.folder)
        figures = {f"examination/{name}": value for name, value in summary.items() if isinstance(value, int | float)}
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=max(trainer.global_step - 1, 0))
