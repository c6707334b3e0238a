"""Muon for the hidden matrices, AdamW for everything else, as one optimiser.

Muon (Jordan et al. 2024; lightning_modules/training/muon.py) orthogonalises the momentum of matrices and kernels; its authors keep
embeddings, heads, norms and biases with AdamW (scaling as in Moonlight, arXiv:2502.16982 section 2.2, so that one base rate
serves both). Lightning wants a single optimiser: both work on one list of groups and one state, so schedules, clipping,
checkpoints and the ledger see nothing unusual. Which matrices are hidden is said by name patterns, not guessed.
"""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

from lightning_modules.training.muon import Muon
from plait.errors import RecipeError


class MuonWithAdamW(Optimizer):
    """One optimiser out of two.

    Args:
        groups: groups of a freeze plan, parameters as (name, tensor).
        lr: base learning rate of AdamW.
        muon_lr: base learning rate of Muon; None takes `lr`, which fits because the update is scaled to the size of AdamW's.
        hidden: patterns of full parameter names ("<part>.<name>") whose matrices and kernels go to Muon.
        weight_decay: of both.
        betas, eps: of AdamW.
        momentum: of Muon.
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, Any]],
        lr: float = 1e-3,
        *,
        muon_lr: float | None = None,
        hidden: Sequence[str] = ("*.layers.*",),
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        momentum: float = 0.95,
    ) -> None:
        split = _split_groups(groups, hidden)
        rest = [group for group in split if group["algorithm"] == "adamw"]
        matrices = [group for group in split if group["algorithm"] == "muon"]
        if not matrices:
            raise RecipeError(
                f"No trainable matrix or kernel is met by hidden={list(hidden)}, so Muon has nothing to do. "
                "Name the hidden layers by their full names ('<part>.<name>'), or use AdamW."
            )
        self._muon = Muon(matrices, lr=muon_lr or lr, weight_decay=weight_decay, momentum=momentum)
        # where all trainable parameters are hidden matrices there is nothing for AdamW
        self._adamw = AdamW(rest, lr=lr, weight_decay=weight_decay, betas=tuple(betas), eps=eps) if rest else None
        super().__init__([*self._muon.param_groups, *(self._adamw.param_groups if self._adamw else ())], {})
        self._link()

    def _link(self) -> None:
        """Let both inner optimisers work on this one's groups and state (the very same objects)."""
        for name, inner in (("muon", self._muon), ("adamw", self._adamw)):
            if inner is not None:
                inner.state = self.state
                inner.param_groups = [group for group in self.param_groups if group["algorithm"] == name]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; the closure is evaluated once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._muon.step()
        if self._adamw is not None:
            self._adamw.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load, and link anew: loading makes new groups and a new state."""
        super().load_state_dict(state_dict)
        self._link()


def _split_groups(groups: Sequence[Mapping[str, Any]], hidden: Sequence[str]) -> list[dict[str, Any]]:
    split = []
    for group in groups:
        named = list(group["params"])
        if not all(isinstance(item, tuple) for item in named):
            raise RecipeError("MuonWithAdamW needs parameters with names: pass FreezePlan.parameter_groups(model).")
        is_hidden = [tensor.ndim >= 2 and any(fnmatchcase(name, pattern) for pattern in hidden) for name, tensor in named]
        for algorithm, wanted in (("muon", True), ("adamw", False)):
            params = [item for item, found in zip(named, is_hidden, strict=True) if found == wanted]
            if params:
                split.append({**group, "params": params, "algorithm": algorithm})
    return split
