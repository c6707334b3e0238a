"""Folding: several neighbouring codes of a picture become one token of the language model (SynerGen-VL, arXiv 2412.09604, section 3.1).

A fold of (fh, fw) takes rectangles of fh rows and fw columns. Rectangles are counted in raster order and the codes inside one row by
row (the paper's figure 3; its default is 2 rows of 8). Works on grids of anything: codes, vectors, places.
"""

from collections.abc import Sequence

import numpy as np
from einops import rearrange

from plait.axes import Int
from plait.errors import RecipeError

INSIDE = "... (rows fh) (columns fw) -> ... (rows columns) (fh fw)"


def check_fold(grid_shape: Sequence[int], fold: Sequence[int]) -> None:
    """Refuse a fold that does not divide the grid.

    Raises:
        RecipeError: see above; it names both.
    """
    if len(fold) != 2 or any(side < 1 or size % side for size, side in zip(grid_shape, fold, strict=False)):
        raise RecipeError(
            f"A fold of {' x '.join(map(str, fold))} (rows x columns) does not divide the code grid of {grid_shape[0]} x {grid_shape[1]}: "
            "choose sides that do, or a tokenizer with another grid."
        )


def fold(grid, shape: Sequence[int]):
    """A grid (... gh gw), numpy or torch, -> its rectangles (... n f).

    Raises:
        RecipeError: the fold does not divide the grid.
    """
    check_fold(grid.shape[-2:], shape)
    return rearrange(grid, INSIDE, fh=shape[0], fw=shape[1])


def unfold(patches, grid_shape: Sequence[int], shape: Sequence[int]):
    """The inverse of `fold`: rectangles (... n f) -> the grid (... gh gw).

    Raises:
        RecipeError: the fold does not divide the grid.
    """
    check_fold(grid_shape, shape)
    back = " -> ".join(reversed(INSIDE.split(" -> ")))
    return rearrange(patches, back, rows=grid_shape[0] // shape[0], fh=shape[0], fw=shape[1])


def fold_places(grid_shape: Sequence[int], shape: Sequence[int]) -> Int[np.ndarray, "n f"]:
    """Per rectangle the places of its codes in the picture, counted in raster order."""
    return fold(np.arange(grid_shape[0] * grid_shape[1]).reshape(grid_shape), shape)
