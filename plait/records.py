"""The records: data that travels between parts. They hold tensors and say how these move; what acts on them is behind a protocol."""

from dataclasses import dataclass, field
from functools import cached_property

import torch

from plait.axes import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a batch of rows belong.

    Args:
        positions: (b s) position of each token in its own document.
        documents: (b s) index of the document inside its row; -1 is padding.
        groups: documents of equal length, as flat indices into (b*s): each tensor is (n l). Packed attention runs once per group.
            Empty when the call goes through a cache.
    """

    positions: Int[Tensor, "b s"]
    documents: Int[Tensor, "b s"]
    groups: tuple[Int[Tensor, "_ _"], ...] = ()

    def to(self, device: torch.device | str) -> "Layout":
        """The same layout on another device."""
        return Layout(self.positions.to(device), self.documents.to(device), tuple(group.to(device) for group in self.groups))


@dataclass(frozen=True)
class Side:
    """What a backbone call carries besides embeddings and layout; taps and experts read it, nobody else. It is held by the call, never
    by a module: activation checkpointing calls a layer twice.

    Args:
        is_visual: (b s) whether a token is part of an image (markers of images are text). A backbone without experts ignores it.
    """

    is_visual: Bool[Tensor, "b s"]

    def take(self, order: Int[Tensor, "n"]) -> "Side":
        """The same record for the tokens at these flat indices, as one row (1 n): packed calls feed document after document."""
        return Side(self.is_visual.flatten().index_select(0, order)[None])

    @cached_property
    def routes(self) -> tuple[Int[Tensor, "_"], Int[Tensor, "_"]]:
        """Flat indices of the text tokens and of the visual ones, found once per call."""
        flat = self.is_visual.flatten()
        return (~flat).nonzero().squeeze(1), flat.nonzero().squeeze(1)


@dataclass
class LossTerms:
    """Named loss terms: a sum over targets and the number of targets, so that means are taken once, over the whole optimiser step.

    Args:
        sums: term name -> summed loss (scalar tensor with gradient).
        counts: term name -> number of targets in the sum.
        metrics: further numbers to log (no gradient), each as (sum, count).
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class VisionFeatures:
    """What a vision encoder sees.

    Args:
        pooled: (b d) one embedding per picture.
        patches: (b d gh gw) one per patch, in place.
    """

    pooled: Float[Tensor, "b d"]
    patches: Float[Tensor, "b d gh gw"]
