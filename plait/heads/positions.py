"""Where in its picture a token stands, said to the backbone by one learned vector per place.

A 1-D language model sees a picture as a run of tokens; a pretrained one has learned to count them, a small one that starts from
nothing learns to read places several times sooner with this table. SynerGen-VL (arXiv 2412.09604) has one for its codes; Liquid has
none. Knows places only, neither codes nor text.
"""

import torch
from torch import nn
from torch.nn import functional

from plait.axes import Embeddings, Float, Int, Tensor
from plait.records import Reading, Side


class ImagePositions(nn.Module):
    """A table of places.

    Args:
        num_places: tokens per image (all levels).
        width: width of the backbone.
        embedding_scale: factor on embeddings, as the backbone scales its own.
        std: standard deviation of the initial vectors.
    """

    def __init__(self, num_places: int, width: int, embedding_scale: float = 1.0, std: float = 0.05) -> None:
        super().__init__()
        self.embedding_scale = embedding_scale
        self.weight = nn.Parameter(torch.randn(num_places, width) * std)

    def forward(self, cells: Int[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        """Places in the image -> vectors to add; zeros where `cells` is -1."""
        # one more row, zero and without gradient, for tokens outside images: -1 reads the last row
        table = functional.pad(self.weight, (0, 0, 0, 1))
        return functional.embedding(cells % len(table), table) * self.embedding_scale

    def enter(self, embeddings: Embeddings, side: Side, reading: Reading) -> tuple[Embeddings, Side]:
        """See `plait.protocols.Input`: every token of a picture gets the vector of its place added."""
        return embeddings + self(reading.cells), side
