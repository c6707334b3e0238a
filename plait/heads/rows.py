"""Rows of a vocabulary segment: how its tokens enter the backbone and how they are scored.

New tokens get a module of their own; a pretrained table is never resized (masking the gradient of old rows would not stop AdamW's
weight decay). A code segment is *dense* (one row per code, as the published systems) or *factorised* (ours: a code is the sum of its
digit rows on input, and its logit the sum of its digit logits on output). With summed digit logits the log-sum-exp over all codes
is the sum of the log-sum-exps over each digit, so a factorised segment stands under the same softmax as every other segment without
its logits ever being written out.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from plait.axes import Float, Int, Tensor
from plait.errors import RecipeError
from plait.heads.starts import NORMAL, RowStart


def cap(logits: Tensor, softcap: float | None) -> Tensor:
    """Gemma-2's final soft cap, `c * tanh(logits / c)`; None leaves the logits alone."""
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


class _DenseScore(torch.autograd.Function):
    """Log-sum-exp and target logit of logits whose memory it takes over: it holds their exponentials, then their gradient."""

    @staticmethod
    def forward(ctx, logits, targets):
        owned = targets.clamp(min=0)[:, None]
        target = logits.gather(-1, owned).squeeze(-1)
        largest = logits.amax(-1, keepdim=True)
        total = logits.sub_(largest).exp_().sum(-1, keepdim=True)
        ctx.mark_dirty(logits)
        ctx.mark_non_differentiable(logits)
        ctx.set_materialize_grads(False)  # else zeros of the size of the logits
        ctx.save_for_backward(logits, total, owned)
        return (total.log() + largest).squeeze(-1), target, logits

    @staticmethod
    @once_differentiable
    def backward(ctx, lse_gradient, target_gradient, _):
        exponentials, total, owned = ctx.saved_tensors
        gradient = exponentials.mul_(0.0 if lse_gradient is None else lse_gradient[:, None] / total)
        return gradient if target_gradient is None else gradient.scatter_add_(-1, owned, target_gradient[:, None]), None


def score_dense(logits: Float[Tensor, "n k"], targets: Int[Tensor, "n"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """(log-sum-exp, target logit) of written-out logits, in fp32; targets < 0 lie in another segment (their logit is no one's).

    Args:
        logits: given away: their memory is written over, because at the size of a vocabulary every copy and pass counts.
    """
    return _DenseScore.apply(logits.float(), targets)[:2]


def top_dense(
    hidden: Float[Tensor, "n d"], weight: Float[Tensor, "k d"], softcap: float | None, chunk_elements: int = 1 << 23
) -> Float[Tensor, "n"]:
    """The highest logit per position, in fp32. Only the row that wins has a gradient, so the others are looked through without one,
    at most `chunk_elements` logits at a time, and nothing of them is kept."""
    chunk = max(1, chunk_elements // len(weight))
    with torch.no_grad():
        best = torch.cat([F.linear(part, weight).argmax(-1) for part in hidden.split(chunk)])
    return cap((hidden.float() * F.embedding(best, weight).float()).sum(-1), softcap)


class TextRows:
    """The text table of a backbone, seen through the backbone's own functions (it stays the backbone's: not a module here).

    Args:
        size: rows of the table.
        embed: ids -> embeddings exactly as the backbone embeds them (Gemma scales inside).
        weight: returns the output matrix (size, d): the table itself where tied.
        softcap: final soft cap of the backbone.
    """

    def __init__(
        self, size: int, embed: Callable[[Tensor], Tensor], weight: Callable[[], Tensor], softcap: float | None = None
    ) -> None:
        self.size, self.embed, self.weight, self.softcap = size, embed, weight, softcap
        self.num_logits = size

    def parameters(self) -> list[Tensor]:
        """What `logits` and `score` read."""
        return [self.weight()]

    def logits(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """See `plait.protocols.Rows`."""
        return cap(F.linear(hidden, self.weight()), self.softcap)

    def score(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `plait.protocols.Rows`."""
        return score_dense(self.logits(hidden), targets)

    def top(self, hidden: Tensor) -> Tensor:
        """See `plait.protocols.Rows`."""
        return top_dense(hidden, self.weight(), self.softcap)


class DenseRows(nn.Module):
    """One row per token.

    Args:
        size: tokens of the segment.
        width: width of the backbone.
        is_tied: one table for input and output, as the backbone has it.
        embedding_scale: factor on input rows (Gemma scales its own inside `embed_tokens`; new rows must be scaled alike).
        softcap: final soft cap of the backbone.
        start: how the rows begin (see plait.heads.starts).
        output_start: how the output rows begin where they are not tied; None: as the others.
    """

    def __init__(
        self,
        size: int,
        width: int,
        *,
        is_tied: bool,
        embedding_scale: float = 1.0,
        softcap: float | None = None,
        start: RowStart = NORMAL,
        output_start: RowStart | None = None,
    ) -> None:
        super().__init__()
        self.size, self.embedding_scale, self.softcap = size, embedding_scale, softcap
        self.num_logits = size
        self.weight = nn.Parameter(start.draw(size, width))
        self.output_weight = None if is_tied else nn.Parameter((output_start or start).draw(size, width))

    def embed(self, ids: Int[Tensor, "n"]) -> Float[Tensor, "n d"]:
        """See `plait.protocols.Rows`."""
        return F.embedding(ids, self.weight) * self.embedding_scale

    def logits(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """See `plait.protocols.Rows`."""
        return cap(F.linear(hidden, self.weight if self.output_weight is None else self.output_weight), self.softcap)

    def score(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `plait.protocols.Rows`."""
        return score_dense(self.logits(hidden), targets)

    def top(self, hidden: Tensor) -> Tensor:
        """See `plait.protocols.Rows`."""
        return top_dense(hidden, self.weight if self.output_weight is None else self.output_weight, self.softcap)


class FactorisedRows(nn.Module):
    """A code is made of digits; each digit has its own small tables for input and output.

    Args:
        digit_sizes: sizes of the digits, least significant first: code = d0 + d1 * size0 + d2 * size0 * size1 + ...
        width: width of the backbone.
        embedding_scale: see `DenseRows`.
        softcap: must be None: a capped sum does not factorise.
        start: how the embedding of a code, the sum of its digit rows, begins (see plait.heads.starts).
        output_start: how the output rows begin; None: as the others. The means of the digits add up to its mean, and each digit
            is drawn with its whole standard deviation, as it is told apart from its own kind alone.

    Raises:
        RecipeError: the backbone soft-caps its logits, or the code has a single digit.
    """

    def __init__(
        self,
        digit_sizes: Sequence[int],
        width: int,
        *,
        embedding_scale: float = 1.0,
        softcap: float | None = None,
        start: RowStart = NORMAL,
        output_start: RowStart | None = None,
    ) -> None:
        super().__init__()
        if softcap is not None:
            raise RecipeError(
                f"The backbone has a final soft cap at {softcap}, factorised codes expect none (a capped sum does not factorise): "
                "use code_rows='dense'."
            )
        if len(digit_sizes) < 2:
            raise RecipeError(f"A code with digits {tuple(digit_sizes)} has nothing to factorise: use code_rows='dense'.")
        self.digit_sizes = tuple(digit_sizes)
        self.size = int(torch.tensor(self.digit_sizes).prod())
        self.num_logits = sum(self.digit_sizes)
        self.embedding_scale = embedding_scale
        strides = torch.tensor([1, *self.digit_sizes[:-1]]).cumprod(0)
        self.register_buffer("strides", strides, persistent=False)
        self.register_buffer("sizes", torch.tensor(self.digit_sizes), persistent=False)
        self.register_buffer("starts", torch.tensor([0, *self.digit_sizes[:-1]]).cumsum(0), persistent=False)
        rows = sum(self.digit_sizes)
        self.weight = nn.Parameter(start.shared_by(len(digit_sizes)).draw(rows, width))
        output_start = output_start or start
        self.output_weight = nn.Parameter(RowStart(output_start.mean / len(digit_sizes), output_start.std).draw(rows, width))
        # One bias per digit value: without it a digit prior would have to pass through every hidden state.
        self.output_bias = nn.Parameter(torch.zeros(rows))

    def digits(self, ids: Int[Tensor, "n"]) -> Int[Tensor, "n k"]:
        """The digits of each code, least significant first (the last axis counts digits)."""
        return ids[:, None] // self.strides % self.sizes

    def embed(self, ids: Int[Tensor, "n"]) -> Float[Tensor, "n d"]:
        """See `plait.protocols.Rows`."""
        return F.embedding(self.digits(ids) + self.starts, self.weight).sum(1) * self.embedding_scale

    def _digit_logits(self, hidden: Tensor) -> tuple[Tensor, ...]:
        return F.linear(hidden, self.output_weight, self.output_bias).float().split(self.digit_sizes, -1)

    def logits(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """See `plait.protocols.Rows`; writes the sums out."""
        total = None
        for logits in self._digit_logits(hidden):
            total = logits if total is None else (logits[:, :, None] + total[:, None, :]).flatten(1)
        return total

    def score(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `plait.protocols.Rows`; never writes the sums out."""
        digits = self.digits(targets.clamp(min=0))
        lse = target = 0.0
        for index, logits in enumerate(self._digit_logits(hidden)):
            lse = lse + logits.logsumexp(-1)
            target = target + logits.gather(-1, digits[:, index, None]).squeeze(-1)
        return lse, target

    def top(self, hidden: Tensor) -> Tensor:
        """See `plait.protocols.Rows`: the best code has the best of every digit."""
        return torch.stack([logits.amax(-1) for logits in self._digit_logits(hidden)]).sum(0)
