"""Connectors: features of a vision encoder to tokens of a language model.

A map of features becomes tokens in raster order; a fold lays neighbouring features side by side in one token. With a fold of 2 x 2, a norm
and two linear maps this is the projector of InternVL 1.5 and later (arXiv 2404.16821, section 3.1: "pixel shuffle", in the order of its
version v2, which keeps rows and columns; OpenGVLab/InternVL, commit 2410d1d); with two maps alone that of LLaVA-1.5 (arXiv 2310.03744,
section 3.2). A picture that is read in tiles is a row per tile. It knows no language model beyond its width.
"""

from collections.abc import Sequence
from typing import Literal

from einops import rearrange
from torch import nn

from plait.axes import Float, Tensor
from plait.errors import LayoutError, RecipeError

Layers = Literal["linear", "mlp"]


class Projector(nn.Module):
    """Features (n c gh gw), or (n l c) in raster order, -> tokens (n m d).

    Args:
        feature_width: c.
        grid_shape: (gh, gw).
        width: d.
        layers: one linear map, or two with GELU between them.
        fold: rows and columns of features that make one token; inside a token they stand row by row.
        has_norm: layer norm before the maps.
        has_bias: of the maps.

    Raises:
        RecipeError: the fold does not divide the grid, or `layers` is unknown.
    """

    def __init__(
        self,
        *,
        feature_width: int,
        grid_shape: Sequence[int],
        width: int,
        layers: Layers = "mlp",
        fold: Sequence[int] = (1, 1),
        has_norm: bool = False,
        has_bias: bool = True,
    ) -> None:
        super().__init__()
        if layers not in ("linear", "mlp"):
            raise RecipeError(f"connector.layers is {layers!r}, expected linear or mlp. Set one of them.")
        if any(side < 1 or size % side for size, side in zip(grid_shape, fold, strict=True)):
            raise RecipeError(
                f"connector.fold is {' x '.join(map(str, fold))}, which does not divide the encoder's grid of "
                f"{' x '.join(map(str, grid_shape))} features. Choose sides that do, or an encoder with another grid."
            )
        self.feature_width, self.width = feature_width, width
        self.grid_shape, self.fold = (grid_shape[0], grid_shape[1]), (fold[0], fold[1])
        folded = feature_width * fold[0] * fold[1]
        self.norm = nn.LayerNorm(folded) if has_norm else nn.Identity()
        maps = [nn.Linear(folded, width, bias=has_bias)]
        if layers == "mlp":
            maps += [nn.GELU(), nn.Linear(width, width, bias=has_bias)]
        self.maps = nn.Sequential(*maps)

    @property
    def tokens_per_tile(self) -> int:
        """m: tokens that the features of one tile become."""
        return (self.grid_shape[0] // self.fold[0]) * (self.grid_shape[1] // self.fold[1])

    def forward(self, features: Float[Tensor, "n ..."]) -> Float[Tensor, "n m d"]:
        """Tokens of each tile.

        Raises:
            LayoutError: features of another width or grid.
        """
        height, width = self.grid_shape
        raster, grid = (height * width, self.feature_width), (self.feature_width, height, width)
        if tuple(features.shape[1:]) not in (raster, grid):
            raise LayoutError(
                f"The connector got features {tuple(features.shape)}, expected (n, {', '.join(map(str, grid))}) or "
                f"(n, {', '.join(map(str, raster))}) in raster order. Feed it the encoder that it was made for."
            )
        if features.ndim == 3:
            features = rearrange(features, "n (gh gw) c -> n c gh gw", gh=height)
        return self.maps(self.norm(fold_features(features, self.fold)))


def fold_features(features: Float[Tensor, "n c gh gw"], fold: tuple[int, int]) -> Float[Tensor, "n m e"]:
    """Rectangles of neighbouring features in raster order, each as one vector: row by row, and inside a place channel by channel."""
    return rearrange(features, "n c (gh fh) (gw fw) -> n (gh gw) (fh fw c)", fh=fold[0], fw=fold[1])


def join_tiles(tokens: Float[Tensor, "n m d"], num_tiles: Sequence[int]) -> tuple[Float[Tensor, "_ d"], ...]:
    """Tokens of each picture: those of its tiles, one after another.

    Args:
        num_tiles: per picture; the tiles stand in the order of the pictures.

    Raises:
        LayoutError: there are more or fewer tiles than the pictures have, or a picture has none.
    """
    if sum(num_tiles) != len(tokens) or min(num_tiles, default=1) < 1:
        raise LayoutError(
            f"{len(tokens)} tiles came for {len(num_tiles)} pictures of {list(num_tiles)} tiles, expected at least one per picture and "
            f"{sum(num_tiles)} in all. Count the tiles where the pictures are cut."
        )
    return tuple(own.flatten(0, 1) for own in tokens.split(list(num_tiles)))
