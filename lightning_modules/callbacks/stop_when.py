"""A stage that ends when something has been learned, not when a number of steps is over: skills that come all at once come late in
some runs (reports/studies/reading/), and a run that stopped before is no worse recipe than one that stopped after, only an unluckier one.

From the usual number of steps on, a probe on `val` is looked at every few steps; once it has been passed the stage is over. The number
of steps of the Trainer is the cap. It does not know what the probe measures. The schedule must hold its rate meanwhile, as the end of
the stage is not known before: a descent belongs to the stage that follows.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
from torch import nn

from lightning_modules.callbacks.quiet import Quiet
from lightning_modules.callbacks.sample_gallery import at_rest
from lightning_modules.callbacks.throughput import paused_clocks
from plait.errors import RecipeError

PASSED = "probe/passed_at_step"
"""metric: the steps after which the probe was passed; a run that reached its cap has none"""
log = logging.getLogger(__name__)


class StopWhen(Quiet):
    """Ends the stage at the first step at which the probe has been passed.

    Args:
        folder: run folder, for `probe`.
        probe: (model, folder) -> figure name -> value.
        figure: the figure that is compared, such as "val/captions".
        level: the value it must reach.
        min_steps: optimiser steps of the stage before it may end; the probe is looked at from there on.
        every_n_steps: optimiser steps between two looks.
        patience: looks in a row that must reach the level.

    Raises:
        RecipeError: a number is out of range.
    """

    def __init__(
        self,
        folder: str | Path,
        probe: Callable[[nn.Module, Path], Mapping[str, Any]],
        *,
        figure: str,
        level: float,
        min_steps: int,
        every_n_steps: int,
        patience: int = 1,
    ) -> None:
        for name, value in {"min_steps": min_steps, "every_n_steps": every_n_steps, "patience": patience}.items():
            if value < 1:
                raise RecipeError(f"stop_when.{name} is {value}, expected at least 1. Next: set callbacks.stop_when.{name}.")
        self.folder, self.probe = Path(folder) / "probe", probe
        self.figure, self.level = figure, level
        self.min_steps, self.every_n_steps, self.patience = min_steps, every_n_steps, patience
        self._in_a_row = 0
        self._passed_at: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """What the looks so far have found."""
        return {"in_a_row": self._in_a_row, "passed_at": self._passed_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._in_a_row, self._passed_at = state_dict["in_a_row"], state_dict["passed_at"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Refuse a schedule whose rate is not held, and say where no look is due; a stage that is over stays over."""
        for config in trainer.lr_scheduler_configs:
            first, last = min(self.min_steps, pl_module.max_steps) - 1, pl_module.max_steps - 1
            for factor in getattr(config.scheduler, "lr_lambdas", ()):
                if abs(factor(first) - factor(last)) > 1e-6:
                    raise RecipeError(
                        f"stop_when ends the stage at a step between {self.min_steps} and {pl_module.max_steps}, but its schedule goes on "
                        f"changing the rate there (from {factor(first):.3g} to {factor(last):.3g} of the base rate). Expected a rate that "
                        "is held. Next: stage.schedule.decay_share=0, or stop_when=never."
                    )
        if self._passed_at is not None:
            self._end(trainer, pl_module)
        elif pl_module.max_steps < self.min_steps and trainer.is_global_zero:
            log.warning(
                "%s is not looked at: the stage has %d steps, and stop_when looks from step %d on",
                *(self.figure, pl_module.max_steps, self.min_steps),
            )

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look, if it is due."""
        step = trainer.global_step
        is_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        is_due = step >= self.min_steps and ((step - self.min_steps) % self.every_n_steps == 0 or step == pl_module.max_steps)
        if not (is_step and is_due):
            return
        value = self._look(trainer, pl_module) if trainer.is_global_zero else None
        value = trainer.strategy.broadcast(value)  # ranks end together
        self._in_a_row = self._in_a_row + 1 if value >= self.level else 0
        pl_module.log_row({f"probe/{self.figure}": value})
        if self._in_a_row < self.patience:
            log.info("%s is %.3f after %d steps (expected %.2f): going on", self.figure, value, step, self.level)
            return
        self._passed_at = step
        pl_module.log_row({PASSED: float(step)})
        log.info("%s is %.3f after %d steps: learned, the stage is over", self.figure, value, step)
        self._end(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Say so where the cap came first."""
        if (
            self._passed_at is None
            and trainer.global_step >= max(pl_module.max_steps, self.min_steps)
            and trainer.is_global_zero
        ):
            log.warning(
                "%s did not reach %.2f within %d steps. What follows starts from a model that has not learned it. Next: another seed, "
                "or a higher cap (trainer.max_steps).", self.figure, self.level, trainer.global_step
            )  # fmt: skip

    def _look(self, trainer: lightning.Trainer, pl_module: Any) -> float:
        with paused_clocks(trainer), at_rest(pl_module.model):
            figures = self.probe(pl_module.model, self.folder)
        if self.figure not in figures:
            raise RecipeError(
                f"The probe measured {', '.join(figures) or 'nothing'}, and stop_when.figure is {self.figure}. Expected one of them."
            )
        return float(figures[self.figure])

    def _end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        pl_module.is_over = True
        trainer.should_stop = True
