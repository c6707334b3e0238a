"""The records: data that travels between parts. They hold tensors and say how these move; what acts on them is behind a protocol."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch

from plait.axes import Bool, Float, Int, Tensor
from plait.errors import LayoutError


class Movable:
    """A frozen dataclass whose tensors move together: those in its fields, and in records, tuples and dicts that these hold. Whatever else
    it holds stays where it is."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Movable":
        """The same record on another device. All its whole numbers go in one copy: a device takes one of a hundred kilobytes as fast as
        one of a hundred bytes."""
        device, found = torch.device(device), list(_tensors(self))
        if all(tensor.device == device for tensor in found):
            return self
        whole = [tensor for tensor in found if tensor.dtype == torch.int64]
        packed = torch.cat([tensor.flatten() for tensor in whole]) if whole else torch.empty(0, dtype=torch.int64)
        if found[0].is_pinned():
            packed = packed.pin_memory()
        parts = packed.to(device, non_blocking=non_blocking).split([tensor.numel() for tensor in whole])
        moved = {id(tensor): part.view(tensor.shape) for tensor, part in zip(whole, parts, strict=True)}
        return _map(self, lambda t: moved[id(t)] if id(t) in moved else t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Movable":
        """The same record in memory that a device reads without a wait (a `DataLoader` calls it)."""
        return _map(self, Tensor.pin_memory)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Movable):
        for each in fields(value):
            yield from _tensors(getattr(value, each.name))
    elif isinstance(value, tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Movable):
        return replace(value, **{each.name: _map(getattr(value, each.name), change) for each in fields(value)})
    if isinstance(value, dict):
        return {name: _map(item, change) for name, item in value.items()}
    return tuple(_map(item, change) for item in value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Layout(Movable):
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


@dataclass(frozen=True)
class Placed(Movable):
    """Tokens of one segment of the vocabulary.

    Args:
        places: where they stand, as flat indices into (b*s).
        local: their ids in the segment.
    """

    places: Int[Tensor, "n"]
    local: Int[Tensor, "n"]


@dataclass(frozen=True)
class CodesRead(Movable):
    """The codes of pictures that are read, position after position.

    Args:
        places: where they stand, as flat indices into (b*s).
        local: (n f) their codes, without the offset of their segment.
        cells: the place of each position in its own picture or tile.
    """

    places: Int[Tensor, "n"]
    local: Int[Tensor, "n f"]
    cells: Int[Tensor, "n"]


@dataclass(frozen=True)
class PicturesRead(Movable):
    """Pictures of one size that are read as they are; a tile counts as a picture.

    Args:
        pixels: (n h w 3) of uint8.
        places: (n m) the positions that each fills, as flat indices into (b*s).
    """

    pixels: Tensor
    places: Int[Tensor, "n m"]


Routes = tuple[Int[Tensor, "_"], Int[Tensor, "_"]]
"""flat indices of the text tokens of a call and of its visual ones"""


@dataclass(frozen=True)
class Reading(Movable):
    """What enters the backbone in one call. Every index is made on the CPU, so that a device is never asked where something is.

    Args:
        cells: (b s) place of each token of a picture in its own picture or tile, -1 for every other token.
        segments: per segment of the vocabulary its tokens; padding and the places of features are tokens of the pad marker.
        codes: the pictures that come as codes.
        pictures: those that come as pixels, stacked by size.
        routes: see `find_routes`.
    """

    cells: Int[Tensor, "b s"]
    segments: tuple[Placed, ...]
    codes: CodesRead
    pictures: tuple[PicturesRead, ...]
    routes: Routes


@dataclass(frozen=True)
class Targets(Movable):
    """What one head must predict.

    Args:
        places: the positions whose hidden states predict, as flat indices into (b*s), ascending.
        segments: (n f) the segment of each target; a position predicts one id or the f codes of the next position.
        local: (n f) its id in the segment.
        rows: (n) the row of each position.
    """

    places: Int[Tensor, "n"]
    segments: Int[Tensor, "n f"]
    local: Int[Tensor, "n f"]
    rows: Int[Tensor, "n"]


@dataclass(frozen=True)
class Side:
    """What a backbone call carries besides embeddings and layout; taps and experts read it, nobody else. It is held by the call, never
    by a module: activation checkpointing calls a layer twice.

    One part of it goes with the tokens, the other with the pictures that they may look at.

    Args:
        is_visual: (b s) whether a token is part of an image (markers of images are text). A backbone without experts ignores it.
        visible: (b s) how many pictures of its document, counted from the first, a token may look at; less than 1: none.
        documents: (b s) row of `pictures` that belongs to the document of a token; -1 at padding.
        pictures: (m k) rows of `features` that hold the pictures of each document in reading order, -1 where a document has fewer.
        features: of all pictures of the call, stacked along the first axis: one tensor per level of a pyramid, or a single one.
        given_routes: see `find_routes`; None: found on the device, which makes the host wait for it.

    Raises:
        LayoutError: a part of what a token sees is missing, or has another shape than `is_visual`.
    """

    is_visual: Bool[Tensor, "b s"]
    visible: Int[Tensor, "b s"] | None = None
    documents: Int[Tensor, "b s"] | None = None
    pictures: Int[Tensor, "m k"] | None = None
    features: tuple[Float[Tensor, "n ..."], ...] = ()
    given_routes: Routes | None = None

    def __post_init__(self) -> None:
        if len({part is None for part in (self.visible, self.documents, self.pictures)}) > 1:
            raise LayoutError(
                "Side got some of visible, documents and pictures and not the others, expected all three or none: together they "
                "say which pictures a token may look at."
            )
        shapes = {tuple(part.shape) for part in (self.is_visual, self.visible, self.documents) if part is not None}
        if len(shapes) > 1:
            raise LayoutError(
                f"Side got is_visual, visible and documents of the shapes {sorted(shapes)}, expected one entry per token in each. Make "
                "them from the same tokens."
            )

    def take(self, order: Int[Tensor, "n"]) -> "Side":
        """The same record for the tokens at these flat indices, as one row (1 n): packed calls feed document after document. What is
        said of pictures stays; given routes do too, as they count the tokens in this order already."""
        own = {name: getattr(self, name) for name in ("is_visual", "visible", "documents")}
        taken = {name: part.flatten().index_select(0, order)[None] for name, part in own.items() if part is not None}
        return replace(self, **taken)

    @cached_property
    def routes(self) -> Routes:
        """Flat indices of the text tokens and of the visual ones: as given, or found once per call."""
        return _route(self.is_visual.flatten()) if self.given_routes is None else self.given_routes

    @cached_property
    def seen(self) -> Int[Tensor, "b s k"]:
        """Rows of `features` that each token may look at, in reading order; -1 where it sees fewer than others. Found once per call.

        Raises:
            LayoutError: the record says nothing of pictures.
        """
        if self.pictures is None:
            raise LayoutError(
                "The call does not say which pictures its tokens may look at: expected side=Side(is_visual, visible, documents, "
                "pictures, features). For text alone, visible is 0 everywhere."
            )
        rows = self.pictures[self.documents.clamp(min=0)]
        is_seen = torch.arange(rows.shape[-1], device=rows.device) < self.visible[..., None]
        return torch.where(is_seen, rows, -1)


def find_routes(is_visual: Bool[Tensor, "b s"], groups: Sequence[Int[Tensor, "_ _"]] = ()) -> Routes:
    """Which of the tokens that the layers of a call are fed are text and which are visual, for `Side.given_routes`.

    Called where the batch is made, on the CPU: on a device the host would wait for the answer. Layers count the tokens as they are fed:
    document after document in the order of `Layout.groups`, or row after row, padding included, where the call goes through a cache.
    """
    flat = is_visual.flatten()
    return _route(flat[torch.cat([group.flatten() for group in groups])] if groups else flat)


def _route(flat: Bool[Tensor, "_"]) -> Routes:
    return (~flat).nonzero().squeeze(1), flat.nonzero().squeeze(1)


@dataclass
class LossTerms:
    """Named loss terms: a sum over targets and the number of targets, so that means are taken once, over the whole optimiser step.

    Args:
        sums: term name -> summed loss (scalar tensor with gradient).
        counts: term name -> number of targets in the sum.
        metrics: further numbers to log (no gradient), each as (sum, count); tensors stay on the device until they are logged.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, tuple[float | Tensor, float | Tensor]] = field(default_factory=dict)

    def add(self, other: "LossTerms") -> None:
        """Take in the terms of another head or objective; their names are different ones."""
        self.sums |= other.sums
        self.counts |= other.counts
        self.metrics |= other.metrics


@dataclass
class Generation:
    """What a generation holds from call to call: one row per sample, then one per sample and guidance branch.

    Args:
        cache: keys and values of the backbone.
        last: (rows d) the hidden state of the last token that each row has read.
        states: what a head keeps of its own, by the name of the head.
    """

    cache: Any
    last: Float[Tensor, "r d"]
    states: dict[str, Any] = field(default_factory=dict)


Choose = Callable[[Sequence[Float[Tensor, "n k"]], Int[Tensor, "n j"]], Int[Tensor, "n"]]
"""(logits of the sample and of each guidance branch, what stands at this position so far) -> the next id"""


@dataclass(frozen=True)
class Turn:
    """What a head is asked for: the next token of some rows, or what stands at their next position.

    Args:
        rows: (branches + 1, n) rows of the generation: those of the samples, then those of each guidance branch.
        segments: of the vocabulary, whose ids are legal; of several, ids are counted on from one to the next.
        choose: draws one id per sample.
    """

    rows: Int[Tensor, "k n"]
    segments: tuple[int, ...]
    choose: Choose


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one criterion.

    Args:
        applicable: whether the request asks for anything of the kind; what is not asked for is neither right nor wrong.
        score: from 0 (wrong) to 1 (right); 0 where it is not applicable.
        reason: why, in words.
    """

    applicable: bool
    score: float
    reason: str


@dataclass(frozen=True)
class VisionFeatures:
    """What a vision encoder sees.

    Args:
        pooled: (b d) one embedding per picture.
        patches: (b d gh gw) one per patch, in place.
    """

    pooled: Float[Tensor, "b d"]
    patches: Float[Tensor, "b d gh gw"]
