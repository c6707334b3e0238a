"""Unfolding: a shallow causal transformer writes the codes of one folded position, one after the other.

SynerGen-VL (arXiv 2412.09604, section 3.1, equation 3): p(code j of patch i | codes before it in the patch, h_i), where h_i is the
hidden state of the position *before* the patch; patches see each other through the language model alone. The transformer has the block
design of the language model, tables of its own for codes and places, and a classifier. Where the paper is silent (specs 3.4): h_i is
the state after the final norm; it stands in the sequence as its first token (`prefix`, the literal reading of f(v_<j, h_i), no
parameters) or is added to every token behind a learned start (`add`, as in MegaByte, arXiv 2305.07185); rotary positions stay, as the
blocks have them.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import nn

from plait.axes import Float, Int, Tensor
from plait.errors import RecipeError
from plait.heads.tokens import TokenHead
from plait.protocols import Backbone, Objective, Rows
from plait.records import Generation, Layout, Turn

Condition = Literal["prefix", "add"]


class UnfoldingHead(TokenHead):
    """`plait.protocols.Head` for positions that hold several codes.

    Args:
        body: the transformer; its text table holds the codes.
        rows: the codes of that table, input and output.
        codes_per_position: f.
        condition: how the hidden state enters, see above.
        std: standard deviation of the initial places (specs 3.4, ours).
        objectives: see `TokenHead`.

    Raises:
        RecipeError: an unknown condition, or patches longer than the body reaches.
    """

    def __init__(
        self,
        body: Backbone,
        rows: Rows,
        *,
        codes_per_position: int,
        condition: str = "prefix",
        std: float = 0.02,
        objectives: Sequence[Objective] = (),
    ) -> None:
        super().__init__(("image",), objectives)
        if condition not in get_args(Condition):
            raise RecipeError(f"condition is {condition!r}, expected 'prefix' or 'add'.")
        if codes_per_position > body.max_length:
            raise RecipeError(
                f"A patch has {codes_per_position} codes and the unfolding transformer reaches {body.max_length} positions: "
                "fold fewer codes, or raise max_position_embeddings."
            )
        self.body, self.condition, self.codes_per_position = body, condition, codes_per_position
        self._rows = [rows]  # of the body: no parameters of its own
        self.positions = nn.Parameter(torch.randn(codes_per_position, body.width) * std)
        self.start = nn.Parameter(torch.randn(body.width) * std) if condition == "add" else None
        self.num_logits = rows.num_logits

    @property
    def rows(self) -> Rows:
        """Embeddings and scores of codes."""
        return self._rows[0]

    def states(self, hidden: Float[Tensor, "n d"], codes: Int[Tensor, "n f"]) -> Float[Tensor, "nf d"]:
        """See `plait.protocols.Scorer`; all codes of all patches in one call."""
        count, length = codes.shape
        if not count:  # a batch without pictures to draw
            if self.training and torch.distributed.is_initialized():
                # every rank runs every part, or those that do wait for it: one patch that is thrown away
                return self.states(hidden.new_zeros(1, hidden.shape[1]), codes.new_zeros(1, length))[:0]
            return hidden[:0]
        embedded = self.rows.embed(codes[:, :-1].flatten()).unflatten(0, (count, length - 1))
        first, rest = self._first(hidden), self._later(embedded, hidden[:, None])
        tokens = torch.cat([first[:, None], rest.to(first.dtype)], 1) + self.positions
        places = torch.arange(length, device=hidden.device).expand(count, length)
        patches = torch.arange(count * length, device=hidden.device).view(count, length)
        layout = Layout(places, torch.zeros_like(places), (patches,))
        return self.body(tokens, layout).flatten(0, 1)

    def _first(self, hidden: Tensor) -> Tensor:
        return hidden if self.start is None else hidden + self.start

    def _later(self, embedded: Tensor, hidden: Tensor) -> Tensor:
        return embedded if self.start is None else embedded + hidden

    def score(
        self, states: Float[Tensor, "n d"], segments: Int[Tensor, "n"], local: Int[Tensor, "n"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """See `plait.protocols.Scorer`: codes compete with codes alone."""
        return self.rows.score(states, local)

    def score_parameters(self) -> list[Tensor]:
        """See `plait.protocols.Scorer`."""
        return list(self.rows.parameters())

    def step(self, generation: Generation, turn: Turn) -> Int[Tensor, "n f"]:
        """See `plait.protocols.Head`: code after code through a cache that holds one patch and is then forgotten."""
        hidden, number = generation.last.index_select(0, turn.rows.flatten()), len(turn.rows)
        rows = torch.arange(len(hidden))
        cache = self.body.new_cache(len(hidden), self.codes_per_position)
        drawn = turn.rows.new_empty(turn.rows.shape[1], 0)
        for place in range(self.codes_per_position):
            if place:
                # -1 says that there was nothing to draw from: whoever fetches the codes says so
                token = self._later(self.rows.embed(drawn[:, -1].clamp(min=0)).repeat(number, 1), hidden)
            else:
                token = self._first(hidden)
            layout = cache.append(rows, torch.ones_like(rows))
            state = self.body((token + self.positions[place])[:, None], layout, cache=cache)[:, 0]
            code = turn.choose(self.rows.logits(state).chunk(number), drawn)
            drawn = torch.cat([drawn, code[:, None].to(drawn)], 1)
        return drawn

    def compile_drawing(self, **options: Any) -> None:
        """Compile the step of the transformer (options of torch.compile)."""
        self.body.compile_decoding(**options)
