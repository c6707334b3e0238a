"""Next-token cross entropy that never materialises all logits.

The loss of each chunk of positions and its gradients are computed in the forward pass, so at most `chunk_elements` logits exist at a
time (full logits at V = 40,960 cost 0.9 GB; this costs about a tenth, at the same speed and with the same gradients). Sums, not
means: the caller divides by the number of targets of the whole optimiser step. Liquid (arXiv 2412.04332) gives every target the same
weight, image or text; terms are kept apart here so that other systems can weigh them and everybody can see both.
"""

from collections.abc import Callable, Sequence

import torch

from plait.axes import Float, Int, Tensor
from plait.protocols import LossTerms

Score = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class _ChunkedSum(torch.autograd.Function):
    """Sum of (log-sum-exp - target logit) over positions, gradients taken chunk by chunk in the forward pass."""

    @staticmethod
    def forward(ctx, hidden, segments, local, score, chunk, *parameters):
        wanted = [parameter.requires_grad for parameter in parameters]
        inputs = [parameter for parameter, want in zip(parameters, wanted, strict=True) if want]
        total = hidden.new_zeros((), dtype=torch.float32)
        hidden_gradient = torch.zeros_like(hidden)
        gradients = [torch.zeros_like(parameter) for parameter in inputs]
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            with torch.enable_grad():
                states = hidden[part].detach().requires_grad_()
                lse, target = score(states, segments[part], local[part])
                loss = (lse - target).sum()
            first, *rest = torch.autograd.grad(loss, [states, *inputs], allow_unused=True)
            total += loss.detach()
            hidden_gradient[part] = first
            for gradient, new in zip(gradients, rest, strict=True):
                if new is not None:
                    gradient += new
        ctx.save_for_backward(hidden_gradient, *gradients)
        ctx.wanted = wanted
        return total

    @staticmethod
    def backward(ctx, upstream):
        hidden_gradient, *gradients = ctx.saved_tensors
        remaining = iter(gradients)
        scaled = [next(remaining) * upstream if want else None for want in ctx.wanted]
        return hidden_gradient * upstream, None, None, None, None, *scaled


def summed_cross_entropy(
    hidden: Float[Tensor, "n d"],
    segments: Int[Tensor, "n"],
    local: Int[Tensor, "n"],
    score: Score,
    parameters: Sequence[Tensor],
    num_logits: int,
    chunk_elements: int = 1 << 23,
) -> Float[Tensor, ""]:
    """Sum of the cross entropies of n targets in nats.

    Args:
        segments, local: the targets as (segment index, local id).
        score: (hidden, segments, local) -> (log-sum-exp over the vocabulary, target logit).
        parameters: every tensor with gradient that `score` reads.
        num_logits: logits per position, to size the chunks.
        chunk_elements: most logits that exist at a time.
    """
    chunk = max(1, chunk_elements // max(1, num_logits))
    if not torch.is_grad_enabled():
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            lse, target = score(hidden[part], segments[part], local[part])
            total += (lse - target).sum()
        return total
    return _ChunkedSum.apply(hidden, segments, local, score, chunk, *parameters)


def next_token_terms(
    hidden: Float[Tensor, "b s d"],
    targets: Int[Tensor, "b s"],
    terms: Int[Tensor, "b s"],
    names: Sequence[str],
    locate: Callable[[Tensor], tuple[Tensor, Tensor]],
    score: Score,
    parameters: Sequence[Tensor],
    num_logits: int,
) -> LossTerms:
    """One summed cross entropy per named term.

    Args:
        targets: global ids (already shifted), -1 without loss.
        terms: index into `names`, -1 without loss.
        locate: global ids -> (segment index, local id).
        score, parameters, num_logits: see `summed_cross_entropy`.
    """
    result = LossTerms()
    for index, name in enumerate(names):
        where = (terms == index).nonzero(as_tuple=True)
        segments, local = locate(targets[where])
        result.sums[name] = summed_cross_entropy(hidden[where], segments, local, score, parameters, num_logits)
        result.counts[name] = float(len(where[0]))
    return result
