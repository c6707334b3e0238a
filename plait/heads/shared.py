"""The shared head: text, markers and image codes under one softmax (Liquid, arXiv 2412.04332, section 3; ILLUME likewise).

Knows segments by their order in the vocabulary, and no ids: the vocabulary splits global ids before they get here.
"""

from collections.abc import Sequence

import torch
from torch import nn

from plait.axes import Float, Int, Tensor
from plait.protocols import Rows


class SharedHead(nn.Module):
    """Rows of all segments, input and output.

    Args:
        rows: one `Rows` per segment in the order of the vocabulary. Those that are modules train here; text rows stay the backbone's.
    """

    def __init__(self, rows: Sequence[Rows]) -> None:
        super().__init__()
        self.rows = list(rows)
        self.own_rows = nn.ModuleList(row for row in rows if isinstance(row, nn.Module))
        self.num_logits = sum(row.num_logits for row in rows)

    def embed(self, segments: Int[Tensor, "*n"], local: Int[Tensor, "*n"]) -> Float[Tensor, "*n d"]:
        """Embeddings of tokens given as (segment index, local id)."""
        flat_segments, flat_local = segments.reshape(-1), local.reshape(-1)
        out = None
        for index, rows in enumerate(self.rows):
            where = (flat_segments == index).nonzero().squeeze(-1)
            if len(where):
                part = rows.embed(flat_local[where])
                if out is None:
                    out = part.new_zeros(len(flat_local), part.shape[-1])
                out = out.index_copy(0, where, part.to(out.dtype))
        return out.reshape(*segments.shape, -1)

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
        return torch.cat([self.rows[index].logits(hidden) for index in segments], -1)
