"""The stage: a model, what of it trains, how fast, and the only training step in the house.

It knows `.loss(batch) -> LossTerms` and `.parts`, and nothing of systems, data or what a term means. A term contributes
weight * sum / count, where the count is that of the whole optimiser step, all micro-batches and ranks (the batch carries it),
of its own targets or of those of several terms, which then have one mean. Lightning's division by `accumulate_grad_batches` and
DDP's mean over ranks are cancelled. So 1 x 8, 4 x 2 and 2 ranks x 4 give the same gradient. Logged are step 1 (the very first
loss tells most: ln(vocabulary), or a mistake) and every `log_every_n_steps`-th; validation means go through `self.log`, so that
callbacks can monitor them. A step whose loss or gradient is not finite changes nothing (lightning_modules/training/step_guard.py).
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import lightning
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_modules.training.books import StepBook
from lightning_modules.training.endings import find_trials
from lightning_modules.training.resume import random_states_of_all_ranks, restore_random_state, settle_progress
from lightning_modules.training.step_guard import StepGuard
from plait.checkpoints import assign_weights
from plait.errors import RecipeError
from plait.freezing import FreezePlan, scale_groups
from plait.records import LossTerms

log = logging.getLogger(__name__)


def check_rates(
    *,
    max_steps: int,
    optimizer: Callable[[list[dict[str, Any]]], Optimizer],
    schedule: Callable[..., LRScheduler] | None = None,
) -> None:
    """Try the settings of a training on a matrix and a vector.

    Raises:
        RecipeError: there is no step to take, or optimiser or schedule refuse their settings.
    """
    if max_steps < 1:
        raise RecipeError(
            f"max_steps is {max_steps}, expected at least 1: a stage trains, and its schedule needs the number. "
            "Next: set trainer.max_steps."
        )
    named = [("part.layers.weight", nn.Parameter(torch.zeros(2, 2))), ("part.layers.bias", nn.Parameter(torch.zeros(2)))]
    try:
        tried = _make_optimizer(optimizer, [{"params": named}])
    except RecipeError as error:
        if error.__cause__ is None:  # of names, which a model has others of
            return
        raise
    if schedule is not None:
        schedule(tried, max_steps=max_steps)


def _make_optimizer(optimizer: Callable[[list[dict[str, Any]]], Optimizer], groups: list[dict[str, Any]]) -> Optimizer:
    try:
        return scale_groups(optimizer(groups))
    except (ValueError, TypeError) as error:
        raise RecipeError(
            f"stage.optimizer refuses its settings: {error}. Expected rates, betas and decay within their ranges. "
            "Next: change stage.optimizer.<setting>."
        ) from error


class Stage(lightning.LightningModule):
    """Trains a model.

    Args:
        model: module with `.parts` and `.loss(batch)`.
        max_steps: optimiser steps of the whole stage, for the schedule.
        optimizer: parameter groups -> optimiser (a partial with the base rates).
        schedule: (optimiser, max_steps=) -> scheduler by step; None keeps the base rates.
        freeze_plan: what trains; None trains everything.
        term_weights: weight per loss term; empty weighs all terms 1, otherwise every term must be named.
        averaged_over: term -> the terms whose targets it is averaged over; a term that is not named is averaged over its own.
        not_finite, max_skipped: what happens where a step is not finite, "stop" or "skip" (at most so many); see `StepGuard`.
    """

    check_settings = staticmethod(check_rates)
    """what a command asks before it builds anything"""
    term_unit: ClassVar[str | None] = "nats"
    """unit of the loss terms, part of their log keys: cross entropies are in nats per target"""

    def __init__(
        self,
        model: nn.Module,
        *,
        max_steps: int,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        schedule: Callable[..., LRScheduler] | None = None,
        freeze_plan: FreezePlan | None = None,
        term_weights: Mapping[str, float] | None = None,
        averaged_over: Mapping[str, Sequence[str]] | None = None,
        not_finite: str = "stop",
        max_skipped: int = 10,
    ) -> None:
        super().__init__()
        check_rates(max_steps=max_steps, optimizer=optimizer, schedule=schedule)
        self.model = model
        self.max_steps = max_steps
        self.is_over = False
        self.optimizer, self.schedule = optimizer, schedule
        self.freeze_plan = freeze_plan or FreezePlan()
        self.term_weights, self.averaged_over = dict(term_weights or {}), dict(averaged_over or {})
        self.planned = self.freeze_plan.apply(model)  # before DDP looks at what requires a gradient
        self._random_states: list[dict[str, Any]] | None = None
        self.guard = StepGuard(not_finite, max_skipped)
        self._train_book, self._validation_book = StepBook(), StepBook()
        self._gradient_norm = 0.0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of one micro-batch, normalised over its optimiser step."""
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.guard.begin(self.model, self.device)
        terms = self.model.loss(batch)
        counts = _step_counts(batch)
        divisor = self.trainer.accumulate_grad_batches * self.trainer.world_size
        factors, loss = self._weigh(terms, counts, divisor)
        if self._is_logged(self.global_step):
            self._train_book.add(terms, loss.detach() / divisor)
        return self.guard.mark(batch, terms.sums, factors, loss)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log an optimiser step that is due, all its micro-batches and ranks together, and one that was not taken at once."""
        if self.guard.has_skipped:
            self.log_row({"train/skipped_steps": self.guard.num_skipped})
        if self._train_book.is_empty or (batch_idx + 1) % self.trainer.accumulate_grad_batches:
            return
        totals, counts = self._train_book.close(), _step_counts(batch)
        _compare_counts(totals.counts, {name: counts.get(name, self._count(name, counts)) for name in totals.counts})
        rates = [group["lr"] for group in self.trainer.optimizers[0].param_groups]
        values = {f"train/{name}": value for name, value in totals.means(self.term_unit).items()}
        values |= {"train/gradient_norm": self._gradient_norm, "train/learning_rate": max(rates)}
        # on the host: Lightning reads it after every micro-batch, and of a number it makes a tensor of the device
        self.log("train/loss", torch.tensor(totals.loss), prog_bar=True, logger=False, batch_size=1)
        self.log_row({"train/loss": totals.loss, **values})

    def log_row(self, values: Mapping[str, float]) -> None:
        """Hand values of the last optimiser step to the loggers at once (`self.log` takes half a millisecond per value)."""
        for logger in self.loggers:
            logger.log_metrics(dict(values), step=self.global_step - 1)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The same terms on a validation batch, None where other ranks have the last ones; means are taken once, over all of them."""
        if batch is not None:
            self._validation_book.add(self.model.loss(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the means over all validation batches and ranks."""
        totals = self._validation_book.close()
        means = {name: (total, self._count(name, totals.counts)) for name, total in totals.sums.items()}
        shares = [self._weight(name) * total / count for name, (total, count) in means.items() if count]
        values = {f"val/{name}": value for name, value in totals.means(self.term_unit).items()} | {"val/loss": sum(shares)}
        if broken := [name for name, value in values.items() if not math.isfinite(value)]:
            log.warning(
                "The validation after step %d is not finite in %s. Training goes on.", self.global_step, ", ".join(broken)
            )
        self.log_dict(values, batch_size=1)

    def configure_optimizers(self) -> dict[str, Any]:
        """One optimiser over the groups of the freeze plan, and the schedule by step."""
        optimizer = _make_optimizer(self.optimizer, self.freeze_plan.parameter_groups(self.model))
        if self.schedule is None:
            return {"optimizer": optimizer}
        scheduler = self.schedule(optimizer, max_steps=self.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """Refuse epochs that end inside a step, put frozen parts to rest, and continue the random numbers of a resumed run."""
        accumulate, batches = self.trainer.accumulate_grad_batches, self.trainer.num_training_batches
        if batches % accumulate and self.trainer.max_steps * accumulate > batches:
            raise RecipeError(
                f"An epoch of {batches} micro-batches does not divide into optimiser steps of {accumulate}: its last step "
                "would be divided by counts that it does not hold. Next: limit_train_batches="
                f"{batches - batches % accumulate}, or more batches."
            )
        alive = {item.part for item in self.planned if item.is_trainable}
        for part, module in self.model.parts.items():
            if part not in alive:  # no dropout, no running statistics in what is frozen
                module.eval()
        if self._random_states is not None:
            states, rank = self._random_states, self.trainer.global_rank
            if len(states) == self.trainer.world_size:  # with another number of ranks there is no run to continue bit by bit
                restore_random_state(states[rank])
            self._random_states = None
        for logger in self.loggers:
            if hasattr(logger, "resume_from"):
                logger.resume_from(self.global_step)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Note the gradient norm before clipping; without a finite one the optimiser finds no gradients, or never steps."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._norm = torch.nn.utils.get_total_norm(gradients)
        self._gradient_norm = float(self._norm)
        if not math.isfinite(self._gradient_norm):
            self.guard.refuse(self, optimizer)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip by the norm that is known already; what else there is to clip by is Lightning's affair."""
        is_scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm") and not is_scaled:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, self._norm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def lr_scheduler_step(self, scheduler: LRScheduler, metric: Any | None) -> None:
        """Go on in the schedule, if the step was taken."""
        if not self.guard.has_skipped:
            super().lr_scheduler_step(scheduler, metric)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what makes a resume exact."""
        trainer = self.trainer
        settle_progress(checkpoint["loops"], trainer.num_training_batches, trainer.accumulate_grad_batches)
        checkpoint["random_states"] = random_states_of_all_ranks()
        checkpoint["skipped_steps"] = self.guard.num_skipped
        checkpoint["model_class"] = f"{type(self.model).__module__}.{type(self.model).__qualname__}"
        checkpoint["is_complete"] = self.is_finished and not find_trials(trainer)

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, or what ends a stage before them has ended this one (`callbacks.stop_when`)."""
        return self.is_over or self.trainer.global_step >= self.max_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the generators' states until the first step: sanity checks and loaders may draw before."""
        self._random_states = checkpoint.get("random_states")
        self.guard.num_skipped = checkpoint.get("skipped_steps", 0)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> Any:
        """Strict loading with our own error, which names what differs."""
        if strict and not assign:
            assign_weights(
                self.model, {name.removeprefix("model."): value for name, value in state_dict.items()}, "The checkpoint"
            )
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def _is_logged(self, step: int) -> bool:
        return step == 0 or (step + 1) % self.trainer.log_every_n_steps == 0

    def _weight(self, term: str) -> float:
        if self.term_weights and term not in self.term_weights:
            raise RecipeError(
                f"The loss term {term!r} has no weight; term_weights names {', '.join(self.term_weights)}. "
                "Name every term, or none to weigh all of them 1."
            )
        return self.term_weights.get(term, 1.0)

    def _count(self, term: str, counts: Mapping[str, float]) -> float:
        return sum(counts.get(name, 0.0) for name in self.averaged_over.get(term, (term,)))

    def _weigh(self, terms: LossTerms, counts: Mapping[str, float], divisor: int) -> tuple[dict[str, float], Tensor]:
        """(term -> the factor of its sum, the loss)"""
        spoken = {*self.term_weights, *self.averaged_over} - {*terms.sums}  # of terms that the model does not make
        spoken = spoken.union(*(self.averaged_over.get(name, (name,)) for name in terms.sums))
        strange = sorted(spoken - set(counts))
        if strange:
            raise RecipeError(
                f"The batch announces counts for {', '.join(counts) or 'nothing'}, but the model, term_weights or averaged_over "
                f"speak of {', '.join(strange)}. Expected a count over the optimiser step in `batch.counts` for every term, or other "
                "terms over whose targets it is averaged. Next: take the name out of the node `objective`, or let the data count it."
            )
        if not any(counts.values()):
            raise RecipeError(
                f"An optimiser step without a single target (terms {', '.join(counts)}): look at it with the audit."
            )
        means = {name: self._count(name, counts) for name in terms.sums}
        # one number per term, one product: in a small model every further node of the graph is felt
        # of a term without targets, too, where several ranks train: its parts need a gradient (0) on each of them
        is_shared = self.trainer.world_size > 1
        factors = {name: self._weight(name) * divisor / (count or 1.0) for name, count in means.items() if count or is_shared}
        shares = [terms.sums[name] * factor for name, factor in factors.items()]
        return factors, sum(shares[1:], shares[0]) if shares else torch.zeros((), device=self.device, requires_grad=True)


def _step_counts(batch: Any) -> Mapping[str, float]:
    counts = batch.get("counts") if isinstance(batch, Mapping) else getattr(batch, "counts", None)
    if counts is None:
        raise RecipeError(
            f"The batch ({type(batch).__name__}) carries no `counts`: expected the number of targets per loss term over the "
            "whole optimiser step, as the datasets of plait.data put it."
        )
    return counts


def _compare_counts(held: Mapping[str, float], announced: Mapping[str, float]) -> None:
    for name, count in held.items():
        if abs(count - announced[name]) > 1e-6 * max(count, 1.0):
            raise RecipeError(
                f"The data announced {announced[name]:g} targets of the term {name!r} for this optimiser step, its "
                f"micro-batches held {count:g}: its loss would be {count / max(announced[name], 1.0):.3f} times what it is. "
                "Check `accumulate` and `num_ranks` of the data, and that the model counts the targets it sums."
            )
