"""How fast and how big: tokens and positions per second, seconds per step, peak memory.

Positions are what the processor works on, tokens what is not padding; their ratio is the packing. The time holds the data, not
validations and samples. It knows two kinds of batch: packed rows (`ids` and `layout`) and mappings with "images".
"""

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning
import torch

from lightning_modules.callbacks.quiet import Quiet
from plait.errors import RecipeError


class Throughput(Quiet):
    """Logs under perf/ every `log_every_n_steps` optimiser steps: rates of this rank's process times ranks."""

    def __init__(self) -> None:
        self._open_book()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        self._open_book()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop the clock."""
        self.pause()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Go on."""
        self.go_on()

    def pause(self) -> None:
        """Stop the clock: what follows is not training."""
        self._paused = time.perf_counter()

    def go_on(self) -> None:
        """Let the clock go on after `pause`."""
        self._clock += time.perf_counter() - self._paused

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count, and log a step that is due."""
        for name, count in count_batch(batch).items():
            self._counts[name] = count + self._counts.get(name, 0)
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._steps += 1
        if trainer.global_step % trainer.log_every_n_steps == 0:
            duration = time.perf_counter() - self._clock
            counts = {name: float(count) * trainer.world_size for name, count in self._counts.items()}
            values = {f"perf/rate_{name}_per_s": count / duration for name, count in counts.items()}
            values |= {"perf/step_duration_s": duration / self._steps, "perf/peak_memory_mib": peak_memory_mib()}
            if torch.cuda.is_available() and pl_module.device.type == "cuda":
                values["perf/peak_device_memory_mib"] = torch.cuda.max_memory_allocated(pl_module.device) / 2**20
            pl_module.log_row(values)
            self._open_book()

    def _open_book(self) -> None:
        self._counts: dict[str, Any] = {}
        self._steps = 0
        self._clock = self._paused = time.perf_counter()


@contextmanager
def paused_clocks(trainer: lightning.Trainer) -> Iterator[None]:
    """For callbacks that do something long beside training."""
    clocks = [callback for callback in trainer.callbacks if isinstance(callback, Throughput)]
    for clock in clocks:
        clock.pause()
    yield
    for clock in clocks:
        clock.go_on()


def count_batch(batch: Any) -> dict[str, Any]:
    """What a batch holds (numbers, or tensors that need not be waited for).

    Raises:
        RecipeError: the batch is of neither kind.
    """
    if hasattr(batch, "ids") and hasattr(batch, "layout"):
        return {"positions": batch.ids.numel(), "tokens": (batch.layout.documents >= 0).sum()}
    if isinstance(batch, Mapping) and "images" in batch:
        return {"images": len(batch["images"])}
    raise RecipeError(
        f"Throughput cannot count a {type(batch).__name__}: expected packed rows (`ids`, `layout`) or a mapping with 'images'."
    )


def peak_memory_mib() -> float:
    """The most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
