"""At the end of a run, its model as a folder that stands by itself: what recipes that start from this run take over.

Such a folder names the architecture and holds the text tokenizer, so that nobody has to train the tokenizer again to go on from the
run. How it is written is handed over.
"""

from collections.abc import Callable
from typing import Any

import lightning

from lightning_modules.callbacks.quiet import Quiet


class SavedModel(Quiet):
    """Writes the trained model once, by the first rank.

    Args:
        write: called with the model and `step`, the number of steps that it was trained.
    """

    def __init__(self, write: Callable[..., Any]) -> None:
        self.write = write

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write."""
        if trainer.is_global_zero and not trainer.fast_dev_run:
            self.write(pl_module.model, step=trainer.global_step)
