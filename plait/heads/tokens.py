"""What heads of tokens have in common: a loss that is made of objectives, and no memory beside the last hidden state."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from plait.axes import Hidden, Int, Tensor
from plait.protocols import Objective
from plait.records import Generation, Layout, LossTerms, Side


class TokenHead(nn.Module):
    """A `plait.protocols.Head` but for `step`.

    Args:
        terms: the loss terms whose targets are scored here.
        objectives: what the loss is made of (see plait.objectives); their terms belong to this head.
    """

    def __init__(self, terms: Sequence[str], objectives: Sequence[Objective]) -> None:
        super().__init__()
        self.terms, self.objectives = tuple(terms), tuple(objectives)

    def loss(self, hidden: Hidden, batch: Any, side: Side) -> LossTerms:
        """See `plait.protocols.Head`."""
        terms = LossTerms()
        for objective in self.objectives:
            terms.add(objective(self, hidden, batch))
        return terms

    def observe(self, generation: Generation, rows: Int[Tensor, "n"], hidden: Hidden, layout: Layout) -> None:
        """See `plait.protocols.Head`: nothing to remember."""
