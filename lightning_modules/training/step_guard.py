"""The guard of training: a step whose loss or gradient is not finite changes nothing.

One number tells it per optimiser step, the norm of all gradients, which clipping needs anyway: one wait for the device. A loss that is not
finite makes every gradient NaN (`mark`), and DDP's sum of gradients hands a NaN of one rank to all of them, so every rank reads the same
verdict without a word more between them. What failed is looked for only then. The step is taken back before the optimiser has touched
anything: gradients are emptied, and buffers that the forward pass may have moved (running statistics; torch does not count the changes
of those of batch norm, so all that a checkpoint would hold are copied before each step) are put back.

Policy `stop` ends the job; `skip` goes on with the next batch, at most `max_skipped` times in a run, and leaves schedule and averages
alone too. Where gradients are scaled (16-mixed) an overflow is the scaler's own business: it skips the step and halves its scale, and the
guard counts the step as not taken; once the scale is below 1 it is an error like any other. A step whose finite gradients make weights
that are not finite is not seen here but in the next loss, and no checkpoint takes such weights (plait.checkpoints).
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.training.books import gather_ranks
from lightning_modules.training.step_bundle import WEIGHTS, MicroBatch, find_broken, find_broken_input, write_bundle
from plait.checkpoints import save_checkpoint
from plait.errors import CheckpointError, NotFiniteError, RecipeError

POLICIES = ("stop", "skip")
FOLDER = "not_finite"
"""of a run: where bundles lie"""
LEAST_SCALE = 1.0
"""of 16-mixed: gradients that overflow below it are not finite by themselves"""
log = logging.getLogger(__name__)


class StepGuard:
    """Watches the steps of one stage.

    Args:
        policy: "stop" or "skip".
        max_skipped: steps that a run may skip, over all its starts.

    Raises:
        RecipeError: the policy is another one, or the number is negative.
    """

    def __init__(self, policy: str = "stop", max_skipped: int = 10) -> None:
        if policy not in POLICIES or max_skipped < 0:
            raise RecipeError(
                f"stage.not_finite={policy} with stage.max_skipped={max_skipped}: expected one of {', '.join(POLICIES)} and a "
                "number from 0 on. Next: set stage.not_finite=stop, or skip with the number of steps that a run may lose."
            )
        self.policy, self.max_skipped = policy, max_skipped
        self.num_skipped = 0
        self.has_skipped = False
        """whether the step that ended last was not taken"""
        self._held: list[MicroBatch] = []
        self._factors: list[dict[str, float]] = []
        self._random: dict[str, Any] = {}
        self._moving: list[tuple[nn.Module, str]] | None = None
        self._copies: list[Tensor] = []

    def begin(self, model: nn.Module, device: torch.device) -> None:
        """Before the first micro-batch of a step: remember what its forward pass may move, and the random numbers."""
        self.has_skipped = False
        self._held.clear()
        self._factors.clear()
        # a model draws from torch alone; to copy the other generators, too, would be the dearest part of a small step
        self._random = {"torch": torch.get_rng_state()}
        if device.type == "cuda":
            self._random["device"] = torch.cuda.get_rng_state(device)
        if self._moving is None:  # what is not saved is a constant; parts at rest have no statistics that move
            self._moving = [
                (module, name)
                for module in model.modules()
                for name, buffer in module._buffers.items()
                if module.training and buffer is not None and name not in module._non_persistent_buffers_set
            ]
            self._copies = [module._buffers[name].clone() for module, name in self._moving]
        elif self._moving:
            torch._foreach_copy_(self._copies, [module._buffers[name] for module, name in self._moving])

    def mark(self, batch: Any, sums: Mapping[str, Tensor], factors: Mapping[str, float], loss: Tensor) -> Tensor:
        """Hold a micro-batch; its loss comes back as it is, or with a gradient of NaN where it is not finite itself (infinity would have
        a finite one)."""
        self._held.append(MicroBatch(batch, {name: sums[name].detach() for name in factors}, loss.detach()))
        self._factors.append(dict(factors))
        return loss * (loss.detach() * 0 + 1)

    def refuse(self, stage: Any, optimizer: torch.optim.Optimizer) -> None:
        """Take back a step whose gradients are not finite, before the optimiser steps (every rank must call).

        Args:
            stage: a `lightning_modules.stage.Stage`; its trainer says where the run lies.

        Raises:
            NotFiniteError: the policy is "stop", or too many steps were skipped.
        """
        trainer, step = stage.trainer, stage.global_step
        finding = self._find(stage.model)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        self._put_back()
        self.has_skipped = True
        first = min(gather_ranks(finding), key=lambda found: (found["order"], found["rank"]))
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and first["kind"] == "gradient" and scaler.get_scale() >= LEAST_SCALE:
            return
        self.num_skipped += 1
        is_last = self.policy == "stop" or self.num_skipped > self.max_skipped
        where = f"{first['what']} ({first['found']})"
        if len(self._held) > 1 and first["micro_batch"] is not None:
            where += f", micro-batch {first['micro_batch'] + 1} of {len(self._held)}"
        if trainer.world_size > 1 and first["kind"] != "gradient":
            where += f", rank {first['rank']}"
        bundle = ""
        if is_last or self.num_skipped == 1:
            bundle = self._write(stage, step, first, Path(trainer.default_root_dir) / FOLDER / f"step-{step:06d}")
            gather_ranks(None)  # nobody leaves, and ends the others, before all have written
        if is_last:
            raise NotFiniteError(_explain(step, where, bundle, self.num_skipped if self.policy == "skip" else 0))
        if trainer.is_global_zero:
            log.warning(
                "step %d was skipped, %d of at most %d: %s is not finite. %s",
                *(step, self.num_skipped, self.max_skipped, where, bundle),
            )

    def _find(self, model: nn.Module) -> dict[str, Any]:
        """What was not finite first, on this rank; JSON-able."""
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        facts: dict[str, Any] = {"rank": rank, "micro_batch": None}
        if found := find_broken({name: p.detach() for name, p in model.named_parameters()}):
            return facts | {
                "order": 0,
                "kind": "weights",
                "what": f"the weight {found[0]}, before the step",
                "found": f"{found[1]} values",
            }
        if found := find_broken_input(self._held):
            index, what, how = found
            return facts | {"order": 1, "kind": "loss", "micro_batch": index, "what": what, "found": how}
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        if found := find_broken(gradients):
            name, count = found
            how = f"{count} of {gradients[name].numel()} values"
            return facts | {"order": 2, "kind": "gradient", "what": f"the gradient of {name}", "found": how}
        largest = max(float(value.abs().max()) for value in gradients.values())
        how = f"it overflows: the largest value is {largest:.1e}"
        return facts | {"order": 2, "kind": "gradient", "what": "the norm of the gradient", "found": how}

    def _put_back(self) -> None:
        if self._moving:
            with torch.no_grad():
                torch._foreach_copy_([module._buffers[name] for module, name in self._moving], self._copies)

    def _write(self, stage: Any, step: int, first: Mapping[str, Any], folder: Path) -> str:
        """Write the bundle; returns what is to be said about it."""
        trainer = stage.trainer
        facts = {**first, "step": step, "precision": trainer.precision, "ranks": trainer.world_size, "factors": self._factors}
        try:
            write_bundle(folder / f"rank-{trainer.global_rank}", self._held, self._random, facts)
            if trainer.is_global_zero and first["kind"] != "weights":
                save_checkpoint(folder / WEIGHTS, stage.model, step=step, is_complete=False)
        except (CheckpointError, OSError) as error:  # the first failure is what must be read
            return f"The step could not be recorded: {error}"
        return f"The step is recorded in {folder} (lightning_modules.training.step_bundle.replay computes it again)."


def _explain(step: int, where: str, bundle: str, num_skipped: int) -> str:
    skipped = (
        f"{num_skipped} steps of this run were not finite, one more than stage.max_skipped lets it skip. "
        if num_skipped
        else ""
    )
    return (
        f"Step {step} is not finite: {where}. {skipped}Expected finite losses and gradients. The step changed nothing, and checkpoints "
        f"are as they were. {bundle} Next: look at its data and its loss; then go on from the last checkpoint (checkpoint=last) with a "
        "lower rate (stage.optimizer.lr=... resume.changes=[stage.optimizer.lr]), or let the run leave out such steps "
        "(stage.not_finite=skip resume.changes=[stage.not_finite])."
    )
