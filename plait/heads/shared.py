"""The shared head: text, markers and image codes under one softmax (Liquid, arXiv 2412.04332, section 3; ILLUME likewise).

It scores and draws codes as it does words: one per position, from the hidden state itself. Without rows for codes it is the head of text
and markers alone, and another one draws. Knows segments by their order in the vocabulary, and no ids: global ids are split before
they get here.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from plait.axes import Embeddings, Float, Int, Tensor
from plait.errors import RecipeError
from plait.heads.tokens import TokenHead
from plait.protocols import Objective, Rows
from plait.records import Generation, Reading, Turn


class SharedHead(TokenHead):
    """`plait.protocols.Head` over the rows of all segments, input and output.

    Args:
        rows: one `Rows` per segment in the order of the vocabulary; the last ones may be missing, and their tokens embed to zeros. Those
            that are modules train here; text rows stay the backbone's.
        terms, objectives: see `TokenHead`.
    """

    def __init__(
        self, rows: Sequence[Rows], *, terms: Sequence[str] = ("text", "image"), objectives: Sequence[Objective] = ()
    ) -> None:
        super().__init__(terms, objectives)
        self.rows = list(rows)
        self.own_rows = nn.ModuleList(row for row in rows if isinstance(row, nn.Module))
        self.num_logits = sum(row.num_logits for row in rows)
        self._compiled: Callable[..., Any] | None = None

    def embed(self, reading: Reading) -> Embeddings:
        """Embeddings of all tokens; zeros for those of segments without rows here."""
        batch, length = reading.cells.shape
        nothing = self.rows[0].embed(reading.segments[0].places[:0])
        out = nothing.new_zeros(batch * length, nothing.shape[-1])
        for rows, found in zip(self.rows, reading.segments, strict=False):
            if len(found.places):
                out = out.index_copy(0, found.places, rows.embed(found.local).to(out.dtype))
        return out.unflatten(0, (batch, length))

    def states(self, hidden: Float[Tensor, "n d"], codes: Int[Tensor, "n f"]) -> Float[Tensor, "nf d"]:
        """See `plait.protocols.Scorer`: the hidden states themselves.

        Raises:
            RecipeError: a position holds several codes.
        """
        if codes.shape[1] != 1:
            raise RecipeError(
                f"A position holds {codes.shape[1]} codes and the shared head draws one: give the system a head that unfolds, or no fold."
            )
        return hidden

    def score(
        self, hidden: Float[Tensor, "n d"], segments: Int[Tensor, "n"], local: Int[Tensor, "n"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """(log-sum-exp over the whole vocabulary, logit of the target) per position."""
        lses, target = [], hidden.new_zeros(len(hidden), dtype=torch.float32)
        for index, rows in enumerate(self.rows):
            mine = segments == index
            lse, logit = rows.score(hidden, torch.where(mine, local, -1))
            lses.append(lse)
            target = torch.where(mine, logit, target)
        return torch.stack(lses, -1).logsumexp(-1), target

    def top(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """The highest logit over the whole vocabulary per position."""
        return torch.stack([rows.top(hidden) for rows in self.rows]).amax(0)

    def score_parameters(self) -> list[Tensor]:
        """Every tensor that `score` reads (a lean loss takes their gradients itself)."""
        return [parameter for rows in self.rows for parameter in rows.parameters()]

    def logits(self, hidden: Float[Tensor, "n d"], segments: Sequence[int]) -> Float[Tensor, "n v"]:
        """Logits of some segments, side by side: sampling never computes the rest."""
        return (self._compiled or self._logits)(hidden, segments)

    def _logits(self, hidden: Tensor, segments: Sequence[int]) -> Tensor:
        return torch.cat([self.rows[index].logits(hidden) for index in segments], -1)

    def compile_drawing(self, **options: Any) -> None:
        """Compile `logits` (options of torch.compile)."""
        self._compiled = torch.compile(self._logits, **options)

    def step(self, generation: Generation, turn: Turn) -> Int[Tensor, "n f"]:
        """See `plait.protocols.Head`."""
        states = generation.last.index_select(0, turn.rows.flatten())
        logits = self.logits(states, turn.segments).chunk(len(turn.rows))
        return turn.choose(logits, turn.rows.new_empty(turn.rows.shape[1], 0))[:, None]
