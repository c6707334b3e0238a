"""The checkpoint from which a run goes on: `checkpoints/last.ckpt`, replaced ten times in a stage and more often in a long one, on a
stop and at the end.

Of a stage at most a tenth is lost, and of a long one some minutes: it saves every n steps and every few minutes, whichever comes first.
What is due by the clock waits until saving has cost no more than a twentieth of the time. It saves just before the next step begins,
when the validation and the samples of the last one are done: a resumed run writes the same rows as one that never stopped. It does not
know the format (checkpoint_io.py) nor what makes a resume exact (resume.py). For keeping the best by a metric, add Lightning's own
ModelCheckpoint.
"""

import signal
import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_modules.callbacks.quiet import Quiet
from lightning_modules.processes.interruption import StopSignals

SAVES = 10
"""in a stage, at least"""
MOST_COST = 0.05
"""share of the time that may go into saves that are due by the clock"""


class LastCheckpoint(Quiet, ModelCheckpoint):
    """Keeps last.ckpt, and stops cleanly on Ctrl-C.

    Args:
        folder: run folder.
        every_n_steps: optimiser steps between two saves; None takes a tenth of the stage, 0 saves only on a stop and at the end.
        every_n_minutes: between two saves; None does not look at the clock.
    """

    def __init__(self, folder: str | Path, every_n_steps: int | None = None, every_n_minutes: float | None = 10.0) -> None:
        super().__init__(dirpath=Path(folder) / "checkpoints", filename="last", save_top_k=0, save_last=False)
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self._signals = StopSignals()
        self._saved_step = 0
        self._every = 0
        self._saved_at = self._save_duration_s = 0.0
        self._is_due = False
        self._is_between_steps = False

    @property
    def path(self) -> str:
        """Where it saves."""
        return str(Path(self.dirpath) / "last.ckpt")

    @property
    def state_key(self) -> str:
        """One per run folder."""
        return "LastCheckpoint"

    def state_dict(self) -> dict[str, Any]:
        """Nothing to remember: a run folder may be moved."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to remember."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen for a stop."""
        self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()
        self._every = max(1, trainer.max_steps // SAVES) if self.every_n_steps is None else self.every_n_steps
        self._signals.install()

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Save what is due, and stop if that was asked for; only between two optimiser steps."""
        if batch_idx % trainer.accumulate_grad_batches:
            return
        request = self._signals.requested
        stops, is_due = request is not None, self._is_due or self._is_due_by_the_clock()
        if trainer.world_size > 1 and _is_so_for_any(trainer, stops or is_due):  # one question in most steps
            stops, is_due = _is_so_for_any(trainer, stops), True
        if is_due or stops:
            self._save(trainer)
        if stops:
            self._signals.pass_on(request or signal.SIGTERM)
        self._is_between_steps = False

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note that a save is due; it is done when the validation of this step is over."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._is_between_steps = True
            self._is_due |= self._every > 0 and trainer.global_step % self._every == 0

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Nothing: epochs have no meaning here."""

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Nothing: what is due is saved before the next step."""

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the end."""
        self._signals.restore()
        self._save(trainer)

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Save, if the failure came between two steps (in a validation, say) and no other rank has to join in."""
        self._signals.restore()
        if self._is_between_steps and trainer.world_size == 1:
            self._save(trainer)

    def _is_due_by_the_clock(self) -> bool:
        if self.every_n_minutes is None or not self._every:
            return False
        return time.monotonic() - self._saved_at > max(60.0 * self.every_n_minutes, self._save_duration_s / MOST_COST)

    def _save(self, trainer: lightning.Trainer) -> None:
        self._is_due = False
        begun = time.monotonic()
        if not trainer.fast_dev_run and trainer.global_step != self._saved_step:
            trainer.save_checkpoint(self.path, weights_only=False)
            self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()
        self._save_duration_s = self._saved_at - begun


def _is_so_for_any(trainer: lightning.Trainer, is_so: bool) -> bool:
    """Whether any rank says so (every rank must call)."""
    return trainer.strategy.reduce_boolean_decision(is_so, all=False)
