"""What the model draws and writes while it trains: one page of interleaved samples per look, on disk and in W&B.

The recipe gives a callable that draws; the gallery puts the model to rest (evaluation mode, no gradients, the global random
numbers set aside, so that looking never changes training), writes samples/step-<n>.html and .json, which W&B
mirrors. It does not know how samples are drawn or scored.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn

from lightning_modules.callbacks.quiet import Quiet
from lightning_modules.callbacks.throughput import paused_clocks
from lightning_modules.training.resume import random_state, restore_random_state
from plait.errors import RecipeError
from plait.rendering import write_samples
from plait.samples import Sample

Draw = Callable[[nn.Module], Sequence[Sample]]


class SampleGallery(Quiet):
    """Draws and stores samples.

    Args:
        folder: run folder.
        draw: model -> samples; the same prompts and seeds each time, so that pages can be compared.
        every_n_steps: optimiser steps between two looks; 0 looks only at the end, None `every_share` of the stage's steps.
        every_share: of the steps of the stage: 0.25 looks four times, so that what looking costs does not grow with the stage.

    Raises:
        RecipeError: the numbers make no sense.
    """

    def __init__(self, folder: str | Path, draw: Draw, every_n_steps: int | None = 0, every_share: float = 0.25) -> None:
        if not 0 < every_share <= 1 or (every_n_steps or 0) < 0:
            raise RecipeError(
                f"A gallery that looks every {every_n_steps} steps, or {every_share} of the stage: expected a number of steps from 0, "
                "or a share above 0 and up to 1. Next: set callbacks.gallery.every_n_steps or callbacks.gallery.every_share."
            )
        self.folder = Path(folder) / "samples"
        self.draw = draw
        self.every_n_steps, self.every_share = every_n_steps, every_share
        self._last_step = -1

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look, if it is due."""
        is_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        every = self.every_n_steps
        if every is None:
            every = math.ceil(pl_module.max_steps * self.every_share)
        if is_step and every and trainer.global_step % every == 0:
            self._look(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Look at the finished model."""
        self._look(trainer, pl_module)

    def _look(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        step = trainer.global_step
        if step == self._last_step or not trainer.is_global_zero:
            return
        self._last_step = step
        with paused_clocks(trainer), at_rest(pl_module.model):
            samples = list(self.draw(pl_module.model))
        path = self.folder / f"step-{step:07d}.html"
        write_samples(samples, path, f"Samples after step {step}", type(pl_module).__name__)


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients or a trace in the global random numbers; every module gets its own mode back."""
    modes = {module: module.training for module in model.modules()}
    state = random_state()
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        restore_random_state(state)
        for module, mode in modes.items():
            module.training = mode
