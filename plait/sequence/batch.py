"""What is in a batch: packed rows of tokens, what each position must predict, and where the images are."""

from dataclasses import dataclass

from plait.axes import Ids, Int, Tensor
from plait.document import ImageSpan
from plait.records import Layout, Movable, Reading, Targets

TERMS = ("text", "image")
"""Names of the loss terms that `SequenceBatch.terms` indexes."""


@dataclass(frozen=True)
class ImagePlace:
    """An image inside a row.

    Args:
        row, start, length: the positions of its content (codes or features), markers not counted.
        span: the image span it came from (its id, form and codes).
    """

    row: int
    start: int
    length: int
    span: ImageSpan


@dataclass(frozen=True)
class DocumentPlace:
    """A document inside a row: positions start .. start + length - 1 of row `row`; `id` is the document's own."""

    row: int
    start: int
    length: int
    id: str


@dataclass(frozen=True)
class SequenceBatch(Movable):
    """Packed rows.

    Args:
        ids: (b s) global ids; padding holds the pad id. A position that holds several codes has the id of the first. Image features
            occupy positions whose id is the pad id too.
        patches: (b s f) global ids of the codes at each position, -1 where there is no code.
        targets: (b s) global id that the position must predict (already shifted by one), -1 where there is no loss.
        terms: (b s) index into TERMS of each target, -1 where there is no loss.
        layout: positions, documents and attention groups.
        reading: what enters the backbone.
        wanted: term name -> what its head must predict.
        images: every image in row order.
        documents: every document in row order.
        counts: term name -> number of targets in the whole optimiser step this batch belongs to (all micro-batches, all ranks).
    """

    ids: Ids
    patches: Int[Tensor, "b s f"]
    targets: Ids
    terms: Int[Tensor, "b s"]
    layout: Layout
    reading: Reading
    wanted: dict[str, Targets]
    images: tuple[ImagePlace, ...]
    documents: tuple[DocumentPlace, ...]
    counts: dict[str, float]

    @property
    def cells(self) -> Int[Tensor, "b s"]:
        """See `plait.records.Reading`."""
        return self.reading.cells

    def own_counts(self) -> dict[str, float]:
        """Targets per term in this batch alone."""
        return {name: float(wanted.local.numel()) for name, wanted in self.wanted.items()}

    @property
    def num_tokens(self) -> int:
        """Real tokens, padding not counted."""
        return sum(place.length for place in self.documents)
