"""The exponential moving average of the weights (Lightning's), which a step that was not taken leaves alone."""

from typing import Any

import lightning
from lightning.pytorch.callbacks import EMAWeightAveraging


class MovingAverage(EMAWeightAveraging):
    """As Lightning's; it waits for a step that was taken."""

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Average, after a step that changed something."""
        if pl_module.guard.has_skipped:
            self._latest_update_step = trainer.global_step  # what Lightning compares the step with: this one has been seen
        else:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
