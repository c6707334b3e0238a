"""What a policy allows besides the grammar: lists of ids, always, from some length on, or just after a trigger.

The processors of Chameleon's generator (specs of ARMOR; public code, `logits_processor.py`) as data. Ids and lengths are those of the
history that the policy is told: for text the ids of the document so far, for codes the codes of the current picture. Knows no grammar
and no vocabulary: a constraint can only forbid what the grammar would have allowed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from plait.axes import Bool, Tensor
from plait.errors import RecipeError


@runtime_checkable
class Constraint(Protocol):
    """Forbids ids."""

    def forbidden(self, history: Sequence[int], num_ids: int) -> Bool[Tensor, "v"] | None:
        """Mask over `num_ids` ids after this history; None forbids nothing."""


@dataclass(frozen=True)
class AllowOnly:
    """Nothing but these ids."""

    ids: tuple[int, ...]

    def forbidden(self, history: Sequence[int], num_ids: int) -> Bool[Tensor, "v"] | None:
        """See `Constraint`."""
        return ~_mask(self.ids, num_ids)


@dataclass(frozen=True)
class Disallow:
    """None of these ids once `from_length` ids stand (0: from the beginning)."""

    ids: tuple[int, ...]
    from_length: int = 0

    def forbidden(self, history: Sequence[int], num_ids: int) -> Bool[Tensor, "v"] | None:
        """See `Constraint`."""
        return _mask(self.ids, num_ids) if len(history) >= self.from_length else None


@dataclass(frozen=True)
class AllowAfter:
    """Nothing but these ids where `trigger` stands `offset` places before the next id (1: directly before it)."""

    trigger: int
    ids: tuple[int, ...]
    offset: int = 1

    def forbidden(self, history: Sequence[int], num_ids: int) -> Bool[Tensor, "v"] | None:
        """See `Constraint`."""
        is_due = len(history) >= self.offset and history[-self.offset] == self.trigger
        return ~_mask(self.ids, num_ids) if is_due else None


def _mask(ids: Sequence[int], num_ids: int) -> Bool[Tensor, "v"]:
    outside = [index for index in ids if not 0 <= index < num_ids]
    if outside:
        raise RecipeError(
            f"A constraint names the ids {outside}, the policy draws among 0 to {num_ids - 1}: name ids of that range."
        )
    mask = torch.zeros(num_ids, dtype=torch.bool)
    mask[list(ids)] = True
    return mask
