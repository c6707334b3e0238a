"""What makes a resume exact: where training stands, and the state of every random generator.

Lightning's checkpoints hold neither generators nor a position in the data, and the loop counters they hold depend on the hook
from which they were saved (MEASURED section 3). Here every checkpoint is brought to one form, "k micro-batches of epoch e are
done, their validation too", whatever hook saved it. It does not know the data: `lightning_modules/training/data.py` seeks to k.
"""

import random
from typing import Any

import numpy as np
import torch

from plait.errors import CheckpointError


def settle_progress(loops: dict[str, Any], batches_per_epoch: int | float, accumulate: int) -> None:
    """Bring the loop counters of a checkpoint to the one form from which Lightning goes on with the next micro-batch.

    Args:
        loops: the entry "loops" of a Lightning checkpoint; changed in place.
        batches_per_epoch: micro-batches in an epoch of this rank.
        accumulate: micro-batches in an optimiser step.

    Raises:
        CheckpointError: the checkpoint was saved in the middle of an optimiser step: its summed gradients would be lost.
    """
    fit = loops["fit_loop"]
    batches = fit["epoch_loop.batch_progress"]
    done, total = batches["current"]["processed"], batches["total"]["processed"]
    if done % accumulate and done != batches_per_epoch:
        raise CheckpointError(
            f"A checkpoint was asked for after micro-batch {done % accumulate} of {accumulate} of an optimiser step; the "
            "gradients summed so far would be lost. Save from a hook at the end of a step (LastCheckpoint does)."
        )
    epoch = max(fit["epoch_progress"]["current"]["ready"] - 1, 0)
    if done >= batches_per_epoch:
        epoch, done = epoch + 1, 0
    for scope in ("total", "current"):
        fit["epoch_progress"][scope].update(ready=epoch + 1, started=epoch + 1, processed=epoch, completed=epoch)
    # Lightning books `completed`, and the step counter of its loggers, when it restarts: both are handed over one behind, the
    # only form in which it neither repeats nor skips a batch, whether or not a validation was due at this one
    batches["current"].update(ready=done, started=done, processed=done, completed=done - 1)
    batches["total"].update(ready=total, started=total, processed=total, completed=total - 1)
    batches["is_last_batch"] = False
    steps = fit["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"]
    fit["epoch_loop.state_dict"]["_batches_that_stepped"] = steps - 1
    validation = fit["epoch_loop.val_loop.batch_progress"]
    finished = validation["total"]["completed"]
    validation["total"].update(ready=finished, started=finished, processed=finished)
    validation["current"].update(ready=0, started=0, processed=0, completed=0)


def random_state() -> dict[str, Any]:
    """The state of this process's global generators: torch, its CUDA devices, numpy, python."""
    state = {
        "torch": torch.get_rng_state(),
        "numpy": list(np.random.get_state(legacy=True)),  # noqa: NPY002 (libraries below us draw from the global generator)
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Set the global generators as `random_state` found them."""
    torch.set_rng_state(state["torch"])
    np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])


def random_states_of_all_ranks() -> list[dict[str, Any]]:
    """One state per rank, in rank order (every rank must call)."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [random_state()]
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, random_state())
    return states
