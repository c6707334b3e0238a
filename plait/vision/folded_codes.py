"""How folded codes enter a language model (SynerGen-VL, arXiv 2412.09604, equation 1): x = MLP(Fold(Emb(codes) + PE)).

Every code has an embedding, and a vector for its place in the grid is added before folding; the codes of a position are laid side by
side and two linear maps bring them to the width of the model. Ours where the paper is silent (specs 3.3): GELU between the maps, biases,
the initial spread, one table of places for all tiles, and an optional norm before the maps (InternVL has one; off).
"""

import torch
from torch import nn
from torch.nn import functional

from plait.axes import Embeddings, Float, Int, Tensor
from plait.records import Reading, Side


class FoldedCodes(nn.Module):
    """`plait.protocols.Input` for positions that hold several codes.

    Args:
        num_codes: of the codebook.
        places: (n f) the places in the picture of the codes of each position (`plait.tokenizers.folding.fold_places`).
        width: of the language model.
        code_width: of the embeddings of codes; None: that of the model (the paper's parameter count says so).
        has_norm: a LayerNorm before the maps.
        std: standard deviation of the initial code and place embeddings.
        output_std: spread that the embeddings of positions begin with, reached by scaling the last map once; None leaves the maps as
            torch draws them. A trained language model hears nothing that is far fainter than its own words.
    """

    def __init__(
        self,
        num_codes: int,
        places: Int[Tensor, "n f"],
        width: int,
        *,
        code_width: int | None = None,
        has_norm: bool = False,
        std: float = 0.02,
        output_std: float | None = None,
    ) -> None:
        super().__init__()
        code_width = code_width or width
        num_folded = places.shape[1]
        self.codes = nn.Parameter(torch.randn(num_codes, code_width) * std)
        self.positions = nn.Parameter(torch.randn(places.numel(), code_width) * std)
        self.register_buffer("places", places, persistent=False)
        self.norm = nn.LayerNorm(num_folded * code_width) if has_norm else None
        self.maps = nn.Sequential(nn.Linear(num_folded * code_width, width), nn.GELU(), nn.Linear(width, width))
        if output_std is not None:
            self._spread(output_std)

    @torch.no_grad()
    def _spread(self, output_std: float) -> None:
        """Scale the last map so that positions differ from each other by `output_std` per channel, and take its bias away, which all
        would share."""
        last = self.maps[-1]
        last.bias.zero_()
        count = 256
        codes = torch.randint(len(self.codes), (count, self.places.shape[1]))
        last.weight.mul_(output_std / self(codes, torch.arange(count) % len(self.places)).std(0).mean())

    def forward(self, codes: Int[Tensor, "n f"], cells: Int[Tensor, "n"]) -> Float[Tensor, "n d"]:
        """The codes of each position and its place in the picture -> embeddings."""
        vectors = functional.embedding(codes, self.codes) + functional.embedding(self.places[cells], self.positions)
        vectors = vectors.flatten(1)
        return self.maps(vectors if self.norm is None else self.norm(vectors))

    def enter(self, embeddings: Embeddings, side: Side, reading: Reading) -> tuple[Embeddings, Side]:
        """See `plait.protocols.Input`: positions of codes get their embeddings."""
        codes = reading.codes
        entered = self(codes.local, codes.cells).to(embeddings.dtype)
        return embeddings.flatten(0, 1).index_copy(0, codes.places, entered).view_as(embeddings), side
