"""The progress bar: optimiser steps out of all, the loss, and what a user can act on. Nothing is shown where nobody watches."""

from typing import Any

import lightning
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from lightning_modules.callbacks.quiet import Quiet

FEW_BATCHES = 10


class Progress(Quiet, TQDMProgressBar):
    """Lightning's bar over the steps of the whole stage instead of the batches of an epoch.

    Args:
        refresh_rate: batches between two updates.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)

    @property
    def train_description(self) -> str:
        """What is counted."""
        return "steps"

    def init_validation_tqdm(self) -> Tqdm:
        """A bar for a validation that one has to wait for; a short one does not flicker by."""
        return super().init_validation_tqdm() if sum(self.trainer.num_val_batches) > FEW_BATCHES else Tqdm(disable=True)

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Open the bar where training stands: Lightning begins no epoch where it goes on in the middle of one."""
        super().on_train_start(trainer)
        if trainer.max_steps > 0:
            self.on_train_epoch_start(trainer)

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Count steps of the stage."""
        if trainer.max_steps <= 0:
            return super().on_train_epoch_start(trainer)
        bar = self.train_progress_bar
        bar.reset(trainer.max_steps)
        bar.initial = bar.n = trainer.global_step
        return None

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *_: Any) -> None:
        """Move on by whole optimiser steps."""
        bar = self.train_progress_bar
        if trainer.max_steps <= 0:
            return super().on_train_batch_end(trainer, pl_module, *_)
        if trainer.global_step % self.refresh_rate == 0 or trainer.global_step == trainer.max_steps:
            bar.n = trainer.global_step
            bar.set_postfix(self.get_metrics(trainer, pl_module))
        return None

    def get_metrics(self, trainer: lightning.Trainer, pl_module: Any) -> dict[str, Any]:
        """The metrics that were logged for the bar, without Lightning's version number."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}
