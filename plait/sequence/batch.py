"""What is in a batch: packed rows of tokens, what each position must predict, and where the images are."""

from dataclasses import dataclass, replace

import torch

from plait.axes import Bool, Ids, Int, Tensor
from plait.document import ImageSpan
from plait.records import Layout

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
class SequenceBatch:
    """Packed rows.

    Args:
        ids: (b s) global ids; padding holds the pad id. A position that holds several codes has the id of the first. Image features
            occupy positions whose id is the pad id too.
        patches: (b s f) global ids of the codes at each position, -1 where there is no code.
        targets: (b s) global id that the position must predict (already shifted by one), -1 where there is no loss.
        terms: (b s) index into TERMS of each target, -1 where there is no loss.
        cells: (b s) place of each image token in its own image or tile (raster order, level after level), -1 for every other token.
        layout: positions, documents and attention groups.
        images: every image in row order.
        documents: every document in row order.
        counts: term name -> number of targets in the whole optimiser step this batch belongs to (all micro-batches, all ranks).
    """

    ids: Ids
    patches: Int[Tensor, "b s f"]
    targets: Ids
    terms: Int[Tensor, "b s"]
    cells: Int[Tensor, "b s"]
    layout: Layout
    images: tuple[ImagePlace, ...]
    documents: tuple[DocumentPlace, ...]
    counts: dict[str, float]

    def own_counts(self) -> dict[str, float]:
        """Targets per term in this batch alone."""
        positions = {name: float((self.terms == index).sum()) for index, name in enumerate(TERMS)}
        return positions | {"image": positions["image"] * self.patches.shape[-1]}

    def target_patches(self, where: Bool[Tensor, "b s"]) -> Int[Tensor, "n f"]:
        """Global ids of the codes that these positions must predict: those of the position after each."""
        rows, places = where.nonzero(as_tuple=True)
        return self.patches[rows, places + 1]

    @property
    def num_tokens(self) -> int:
        """Real tokens, padding not counted."""
        return sum(place.length for place in self.documents)

    def to(self, device: torch.device | str) -> "SequenceBatch":
        """The same batch on another device."""
        return replace(
            self,
            ids=self.ids.to(device),
            patches=self.patches.to(device),
            targets=self.targets.to(device),
            terms=self.terms.to(device),
            cells=self.cells.to(device),
            layout=self.layout.to(device),
        )
