"""How rows of new tokens begin: by themselves, or after the rows of a table that is trained already.

The rows of a released language model lie far from where new rows are usually drawn: those of SmolLM2-135M have a standard deviation of
0.136 about a common mean of norm 2.2, so rows drawn with 0.02 are lost beside them, and at a rate that suits the old ones they leap.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from plait.axes import Float, Tensor
from plait.errors import RecipeError

Kind = Literal["normal", "mean", "like_text"]


@dataclass(frozen=True)
class RowStart:
    """A normal distribution per channel.

    Args:
        mean: of every channel, or of each (d).
        std: standard deviation, likewise.
    """

    mean: Float[Tensor, "d"] | float = 0.0
    std: Float[Tensor, "d"] | float = 0.02

    @classmethod
    def beside(cls, table: Float[Tensor, "v d"], kind: str) -> "RowStart":
        """The start of rows that join a table.

        Args:
            kind: `normal`: as most backbones draw their own, N(0, 0.02), whatever the table holds. `mean`: all but equal to the mean of
                its rows, N(mean, 1e-9 variance), as Liquid's script has it (specs 3.2; `resize_token_embeddings(mean_resizing=True)`
                of transformers takes the whole covariance, here each channel has its own variance). `like_text` (ours): drawn from
                what the table's own rows look like, N(mean, variance).

        Raises:
            RecipeError: an unknown kind.
        """
        if kind not in get_args(Kind):
            raise RecipeError(f"new_rows is {kind!r}, expected one of {', '.join(get_args(Kind))}.")
        if kind == "normal":
            return cls()
        rows = table.detach().float()
        return cls(rows.mean(0), rows.std(0) * (1e-9**0.5 if kind == "mean" else 1.0))

    def draw(self, rows: int, width: int) -> Float[Tensor, "rows width"]:
        """Rows."""
        return torch.randn(rows, width) * self.std + self.mean

    def shared_by(self, parts: int) -> "RowStart":
        """The start of each of so many rows whose sum begins like one row of this one."""
        return RowStart(self.mean / parts, self.std / parts**0.5)


NORMAL = RowStart()
"""As most backbones draw their own rows."""
