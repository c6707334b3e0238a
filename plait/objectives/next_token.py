"""Next-token cross entropy that never materialises all logits.

The loss of each chunk of positions and its gradients are computed in the forward pass, so at most `chunk_elements` logits exist at a
time (full logits of 2,048 positions at V = 40,960 cost 1 GB; this costs a tenth, at the same speed and with the same gradients:
reports/benchmarks/loss.md). Sums, not means: the caller divides by the number of targets of the whole optimiser step. Liquid
(arXiv 2412.04332) gives every target the same weight, image or text; terms are kept apart here so that other systems can weigh
them and everybody can see both.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from plait.axes import Float, Hidden, Int, Tensor
from plait.errors import RecipeError
from plait.records import LossTerms

Score = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class _AddingLinear(torch.autograd.Function):
    """F.linear whose backward adds the gradient of the weight to a buffer instead of returning it."""

    @staticmethod
    def forward(ctx, states, weight, bias, buffer):
        ctx.save_for_backward(states, weight)
        ctx.buffer, ctx.has_bias = buffer, bias is not None
        return F.linear(states, weight, bias)

    @staticmethod
    def backward(ctx, upstream):
        states, weight = ctx.saved_tensors
        ctx.buffer.addmm_(upstream.T, states)
        return upstream @ weight, None, upstream.sum(0) if ctx.has_bias else None, None


class _WeightGradients(TorchFunctionMode):
    """While it is entered, linear maps of the given weights add their gradients to the buffers (a gradient of a whole table per
    chunk, made, read and added, costs as much time as a fifth of the products)."""

    def __init__(self, parameters, buffers):
        super().__init__()
        self.buffers = {id(parameter): buffer for parameter, buffer in zip(parameters, buffers, strict=True)}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.linear and not kwargs and not torch.is_autocast_enabled(args[0].device.type):
            states, weight, *bias = args
            buffer = self.buffers.get(id(weight))
            if buffer is not None and states.ndim == 2 and states.dtype == weight.dtype:
                return _AddingLinear.apply(states, weight, bias[0] if bias else None, buffer)
        return function(*args, **(kwargs or {}))


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
            total += _add_chunk(hidden[part], segments[part], local[part], score, inputs, hidden_gradient[part], gradients)
        ctx.save_for_backward(hidden_gradient, *gradients)
        ctx.wanted, ctx.is_spent = wanted, False
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        if (
            ctx.is_spent
        ):  # a copy of the gradients, of a whole table among them, would cost every step what only a second call needs
            raise RecipeError(
                "The gradients of this loss were asked for a second time, and the first time has used them up. Expected one backward per "
                "forward. Next: compute the loss again, or take F.cross_entropy over written-out logits where retain_graph is needed."
            )
        ctx.is_spent = True
        hidden_gradient, *gradients = ctx.saved_tensors
        remaining = iter(gradients)
        scaled = [next(remaining).mul_(upstream) if want else None for want in ctx.wanted]
        return hidden_gradient.mul_(upstream), None, None, None, None, *scaled


def _add_chunk(hidden, segments, local, score, parameters, hidden_gradient, gradients):
    """The loss of one chunk; writes its gradients. A function of its own, so that one chunk's logits are gone before the next's."""
    with torch.enable_grad():
        states = hidden.detach().requires_grad_()
        with _WeightGradients(parameters, gradients):
            lse, target = score(states, segments, local)
        loss = (lse - target).sum()
    first, *rest = torch.autograd.grad(loss, [states, *parameters], allow_unused=True)
    hidden_gradient.copy_(first)
    for gradient, new in zip(gradients, rest, strict=True):
        if new is not None:
            gradient += new
    return loss.detach()


def summed_cross_entropy(
    hidden: Float[Tensor, "n d"],
    segments: Int[Tensor, "n"],
    local: Int[Tensor, "n"],
    score: Score,
    parameters: Sequence[Tensor],
    num_logits: int,
    chunk_elements: int = 12 << 20,
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


def next_token(head: Any, hidden: Hidden, batch: Any) -> LossTerms:
    """Summed cross entropies of the targets of a head in nats, term by term (a `plait.heads.objectives.Objective`)."""
    terms, flat = LossTerms(), hidden.flatten(0, 1)
    for name in head.terms:
        wanted = batch.wanted[name]
        states = head.states(flat.index_select(0, wanted.places), wanted.local)
        scored = states, wanted.segments.flatten(), wanted.local.flatten()
        terms.sums[name] = summed_cross_entropy(*scored, head.score, head.score_parameters(), head.num_logits)
        terms.counts[name] = float(wanted.local.numel())
    return terms
