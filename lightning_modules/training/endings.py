"""How a training ended: whether it did what its config says, or why not. It knows the Trainer's limits and nothing of what trains."""

from typing import Any

import lightning
from lightning.pytorch.callbacks import Timer


def find_trials(trainer: lightning.Trainer) -> list[str]:
    """The settings under which a training reads other batches than its config names, or fewer: what it leaves is a trial and no base."""
    found: dict[str, Any] = {}
    if trainer.fast_dev_run:
        found["fast_dev_run"] = trainer.fast_dev_run
    for name, unlimited in (("limit_train_batches", 1.0), ("overfit_batches", 0.0)):
        value = getattr(trainer, name)
        repeats = trainer.num_training_batches < trainer.max_steps * trainer.accumulate_grad_batches
        if value not in (None, unlimited) and repeats:
            found[name] = value
    return [f"trainer.{name}={value}" for name, value in found.items()]


def describe_ending(trainer: lightning.Trainer) -> dict[str, str]:
    """`state`, and `because` where it is not finished."""
    if trials := find_trials(trainer):
        return {"state": "trial", "because": ", ".join(trials)}
    if not trainer.lightning_module.is_finished:
        reason = f"step {trainer.global_step} of {trainer.lightning_module.max_steps}: {_find_reason(trainer)}"
        return {"state": "stopped", "because": reason}
    return {"state": "finished"}


def _find_reason(trainer: lightning.Trainer) -> str:
    if any(isinstance(one, Timer) and (one.time_remaining() or 0.0) <= 0.0 for one in trainer.callbacks):
        return "its time was over (trainer.max_time)"
    if trainer.max_epochs not in (None, -1) and trainer.current_epoch >= trainer.max_epochs:
        return f"trainer.max_epochs={trainer.max_epochs}"
    if trainer.global_step >= trainer.max_steps > 0:
        return f"trainer.max_steps={trainer.max_steps}"
    return "a callback ended it"
