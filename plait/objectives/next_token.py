"""Next-token cross entropy that never materialises all logits.

The loss of each chunk of positions and its gradients are computed in the forward pass, so at most `chunk_bytes` of logits exist at a
time (full logits of 2,048 positions at V = 40,960 cost 1 GB; this costs a tenth, at the same speed and with the same gradients:
reports/benchmarks/loss.md). Sums, not means: the caller divides by the number of targets of the whole optimiser step. Liquid
(arXiv 2412.04332) gives every target the same weight, image or text; terms are kept apart here so that other systems can weigh
them and everybody can see both. Under autocast products are those of autocast; exponentials and all sums over chunks are in fp32.
"""

import os
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
CHUNK_BYTES = {"cpu": 48 << 20, "cuda": 2 << 30}
"""Most bytes of logits at a time by type of device (others: as a CPU), unless `CHUNK_VARIABLE` is set. A CPU is fastest where they stay
near its caches; a GPU reads and writes the gradient of a whole table once a chunk, so its chunks should hold a thousand positions."""
CHUNK_VARIABLE = "PLAIT_LOSS_CHUNK_MIB"
TABLE_BLOCK = 8192
"""rows of a table whose gradient is made at a time in a precision lower than that of the table"""


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
        if ctx.buffer.dtype == states.dtype:
            ctx.buffer.addmm_(upstream.T, states)
        else:
            for rows, part in zip(ctx.buffer.split(TABLE_BLOCK), upstream.split(TABLE_BLOCK, -1), strict=True):
                rows += part.T @ states
        return upstream @ weight, None, upstream.sum(0) if ctx.has_bias else None, None


class _WeightGradients(TorchFunctionMode):
    """While it is entered, linear maps of the given weights add their gradients to the buffers (a gradient of a whole table per
    chunk, made, read and added, costs as much time as a fifth of the products)."""

    def __init__(self, parameters, buffers):
        super().__init__()
        self.buffers = {id(parameter): buffer for parameter, buffer in zip(parameters, buffers, strict=True)}
        self.casts = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.linear and not kwargs:
            states, weight, *bias = args
            buffer, kind = self.buffers.get(id(weight)), states.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
            if buffer is not None and states.ndim == 2 and (dtype != weight.dtype or states.dtype == dtype):
                if id(weight) not in self.casts:  # once, and not once a chunk
                    self.casts[id(weight)] = weight.detach().to(dtype)
                bias = bias[0].to(dtype) if bias and bias[0] is not None else None
                return _AddingLinear.apply(states.to(dtype), self.casts[id(weight)], bias, buffer)
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
        mode = _WeightGradients(inputs, gradients)
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            total += _add_chunk(
                hidden[part], segments[part], local[part], score, mode, inputs, hidden_gradient[part], gradients
            )
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


def _add_chunk(hidden, segments, local, score, mode, parameters, hidden_gradient, gradients):
    """The loss of one chunk; writes its gradients. A function of its own, so that one chunk's logits are gone before the next's."""
    with torch.enable_grad():
        states = hidden.detach().requires_grad_()
        with mode:
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
    chunk_bytes: int | None = None,
) -> Float[Tensor, ""]:
    """Sum of the cross entropies of n targets in nats.

    Args:
        segments, local: the targets as (segment index, local id).
        score: (hidden, segments, local) -> (log-sum-exp over the vocabulary, target logit).
        parameters: every tensor with gradient that `score` reads.
        num_logits: logits per position, to size the chunks.
        chunk_bytes: most bytes of logits that exist at a time; None: `CHUNK_BYTES` of the device, or what `CHUNK_VARIABLE` says.

    Raises:
        RecipeError: the variable holds no number of MiB.
    """
    chunk = count_positions(num_logits, hidden.device.type, chunk_bytes)
    if not torch.is_grad_enabled():
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            lse, target = score(hidden[part], segments[part], local[part])
            total += (lse - target).sum()
        return total
    return _ChunkedSum.apply(hidden, segments, local, score, chunk, *parameters)


def next_token(head: Any, hidden: Hidden, batch: Any) -> LossTerms:
    """Summed cross entropies of the targets of a head in nats, term by term (a `plait.protocols.Objective`)."""
    terms, flat = LossTerms(), hidden.flatten(0, 1)
    for name in head.terms:
        wanted = batch.wanted[name]
        states = head.states(flat.index_select(0, wanted.places), wanted.local)
        scored = states, wanted.segments.flatten(), wanted.local.flatten()
        terms.sums[name] = summed_cross_entropy(*scored, head.score, head.score_parameters(), head.num_logits)
        terms.counts[name] = float(wanted.local.numel())
    return terms


def count_positions(num_logits: int, device_type: str, chunk_bytes: int | None = None) -> int:
    """Positions of a chunk: a logit takes 4 bytes, and under autocast those of its type besides.

    Raises:
        RecipeError: see `summed_cross_entropy`.
    """
    if chunk_bytes is None:
        chunk_bytes = _asked_bytes() or CHUNK_BYTES.get(device_type, CHUNK_BYTES["cpu"])
    lower = torch.get_autocast_dtype(device_type).itemsize if torch.is_autocast_enabled(device_type) else 0
    return max(1, chunk_bytes // (4 + lower) // max(1, num_logits))


def _asked_bytes() -> int | None:
    asked = os.environ.get(CHUNK_VARIABLE)
    if asked is None:
        return None
    if not (asked.isdecimal() and int(asked)):
        raise RecipeError(
            f"{CHUNK_VARIABLE} is {asked!r}, expected a whole number of MiB from 1, the most that logits of the loss may take "
            "at a time. Next: set such a number, or unset it."
        )
    return int(asked) << 20
