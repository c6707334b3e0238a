"""Attention per document: what a token may look at is decided by a scope that travels with the call, not by a mask.

Packed rows hold many short documents. A block-diagonal mask over the row would cost s x s and hide the fast kernels, so the
tokens of a call are laid out document after document, equal lengths together, and attention runs once per length. The function
is registered with transformers under `NAME` on both sides (attention and mask); any decoder that hands its keyword arguments
down to the attention interface finds its scope there. It knows sliding windows, grouped queries, scaling, dropout and soft caps
(Gemma-2, arXiv 2408.00118 section 2). It knows neither how the cache stores keys nor which model calls.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from plait.axes import Float, Int, Tensor
from plait.errors import LayoutError
from plait.records import Layout

NAME = "plait_documents"


class Rule(NamedTuple):
    """How a layer attends: scale of the scores, dropout of the weights, width of the window, soft cap of the scores."""

    scaling: float | None = None
    dropout: float = 0.0
    window: int | None = None
    softcap: float | None = None


@runtime_checkable
class Scope(Protocol):
    """What the tokens of one call look at."""

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "b h s d"],
        key: Float[Tensor, "b hk s d"],
        value: Float[Tensor, "b hk s d"],
        rule: Rule,
    ) -> Float[Tensor, "b s h d"]:
        """Attention of one layer."""


@dataclass(frozen=True)
class DocumentScope:
    """Documents laid out one after another in a single row, equal lengths together.

    Args:
        order: (t) flat indices into (b*s) in the order of the call: the real tokens, group after group.
        shapes: (number of documents, length) per group.
    """

    order: Int[Tensor, "t"]
    shapes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, layout: Layout) -> "DocumentScope":
        """The scope of a packed (or padded) layout.

        Raises:
            LayoutError: the groups do not hold exactly the tokens that belong to a document. (On an accelerator that is an assertion of
                the device: it is not waited for.)
        """
        held = sum(group.numel() for group in layout.groups)
        real = (layout.documents >= 0).sum()
        if held and not real.is_cpu:
            torch._assert_async(real == held, "Layout.groups do not hold exactly the tokens that belong to a document.")
        elif held != int(real) or held == 0:
            raise LayoutError(
                f"The layout's groups hold {held} tokens but {int(real)} of {layout.documents.numel()} positions belong to a "
                "document. Without a cache every document must stand in Layout.groups exactly once."
            )
        order = torch.cat([group.reshape(-1) for group in layout.groups])
        return cls(order, tuple((group.shape[0], group.shape[1]) for group in layout.groups))

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "1 h t d"],
        key: Float[Tensor, "1 hk t d"],
        value: Float[Tensor, "1 hk t d"],
        rule: Rule,
    ) -> Float[Tensor, "1 t h d"]:
        """Causal attention inside each document."""
        sizes = [number * length for number, length in self.shapes]
        # split, not slices: its backward is one cat, where every slice would fill a gradient of the whole row
        parts = zip(*(states[0].transpose(0, 1).split(sizes) for states in (query, key, value)), strict=True)
        outputs = []
        for shape, part in zip(self.shapes, parts, strict=True):
            grouped = (states.unflatten(0, shape).transpose(1, 2) for states in part)
            outputs.append(attend_causally(*grouped, rule).transpose(1, 2).flatten(0, 1))
        return torch.cat(outputs)[None]


def attend_causally(
    query: Float[Tensor, "n h l d"], key: Float[Tensor, "n hk l d"], value: Float[Tensor, "n hk l d"], rule: Rule
) -> Float[Tensor, "n h l d"]:
    """Every token looks at itself and at the tokens before it (inside the window of the rule)."""
    length = query.shape[2]
    has_window = rule.window is not None and rule.window < length
    if has_window or rule.softcap is not None:
        steps = torch.arange(length, device=query.device)
        mask = visible(steps[None], steps, rule.window)[:, None]
        return attend_visible(query, key, value, additive(mask, query.dtype), rule)
    key, value = (spread(states, query.shape[1]) for states in (key, value))
    return functional.scaled_dot_product_attention(
        query, key, value, dropout_p=rule.dropout, is_causal=True, scale=rule.scaling
    )


def attend_visible(
    query: Float[Tensor, "n h q d"],
    key: Float[Tensor, "n hk l d"],
    value: Float[Tensor, "n hk l d"],
    mask: Float[Tensor, "m 1 p l"] | None,
    rule: Rule,
) -> Float[Tensor, "n h q d"]:
    """Attention under an additive mask; queries that share a key head are folded into one axis, so keys are never copied."""
    folds = query.shape[1] // key.shape[1]
    folded = query.unflatten(1, (key.shape[1], folds)).flatten(2, 3)
    if mask is not None and folds > 1:
        mask = mask.repeat(1, 1, folds, 1)
    if rule.softcap is None:
        output = functional.scaled_dot_product_attention(
            folded, key, value, attn_mask=mask, dropout_p=rule.dropout, scale=rule.scaling
        )
    else:
        # no fused kernel knows soft caps; fp32 softmax as Gemma-2 does it
        scale = folded.shape[-1] ** -0.5 if rule.scaling is None else rule.scaling
        scores = torch.tanh(folded @ key.transpose(2, 3) * (scale / rule.softcap)) * rule.softcap
        scores = scores if mask is None else scores + mask
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
        output = functional.dropout(weights, rule.dropout, training=rule.dropout > 0) @ value
    return output.unflatten(2, (folds, query.shape[2])).flatten(1, 2)


def visible(queries: Int[Tensor, "n q"], keys: Int[Tensor, "l"], window: int | None) -> torch.Tensor:
    """(n q l) whether the query at a position sees the key at a position."""
    distance = queries[..., None] - keys
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


def additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where a key is seen and minus infinity where it is not."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))


def spread(states: Float[Tensor, "n hk l d"], heads: int) -> Float[Tensor, "n h l d"]:
    """Key heads repeated for the queries that share them."""
    folds = heads // states.shape[1]
    return states if folds == 1 else states.repeat_interleave(folds, dim=1)


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    scope: Scope | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    if scope is None:
        raise LayoutError(
            f"{type(module).__name__} called the attention function {NAME!r} without a scope: call the backbone through "
            "plait.backbones.causal_lm.CausalLM, and only with decoders that hand keyword arguments to their attention."
        )
    return scope.attend(module.layer_idx, query, key, value, Rule(scaling, dropout, sliding_window, softcap)), None


def _no_mask(*_: Any, attention_mask: torch.Tensor | None = None, use_vmap: bool = False, **__: Any) -> None:
    # registered so that a mask which somebody does pass is an error and not, as for unknown names, silently None
    if attention_mask is not None or use_vmap:
        raise LayoutError(
            f"The attention function {NAME!r} takes no mask: padding is Layout.documents == -1, and masks that are neither "
            "causal nor a sliding window are not supported."
        )


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _no_mask)
