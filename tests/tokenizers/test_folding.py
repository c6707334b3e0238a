"""Folding: the order of the paper, its inverse, and the order of InternVL's pixel shuffle."""

from pathlib import Path

import numpy as np
import pytest
import torch

from plait.errors import RecipeError
from plait.tokenizers.folding import fold, fold_places, unfold
from tests import goldens


@pytest.mark.parametrize("shape", [(2, 8), (2, 4), (2, 2), (1, 1), (4, 1)])
@pytest.mark.parametrize("grid_shape", [(8, 16), (4, 8)])
def test_unfold_inverts_fold(shape, grid_shape) -> None:
    grid = np.random.default_rng(0).integers(0, 99, (3, *grid_shape))
    patches = fold(grid, shape)
    assert patches.shape == (3, grid[0].size // (shape[0] * shape[1]), shape[0] * shape[1])
    assert np.array_equal(unfold(patches, grid_shape, shape), grid)
    assert torch.equal(fold(torch.from_numpy(grid), shape), torch.from_numpy(patches))


def test_places_are_those_of_the_codes() -> None:
    grid = np.random.default_rng(0).integers(0, 99, (4, 8))
    assert np.array_equal(grid.reshape(-1)[fold_places((4, 8), (2, 4))], fold(grid, (2, 4)))
    assert fold_places((2, 4), (2, 2)).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]


def test_sixteen_to_one_of_a_published_picture() -> None:
    assert fold_places((64, 64), (2, 8)).shape == (256, 16)


@pytest.mark.parametrize("shape", [(3, 4), (2, 5), (0, 4), (2, 4, 1)])
def test_a_fold_that_does_not_divide_is_refused(shape) -> None:
    with pytest.raises(RecipeError, match="does not divide the code grid of 4 x 8"):
        fold(np.zeros((4, 8)), shape)


@pytest.mark.parametrize("path", goldens.family("synergen_fold*"))
def test_golden(path: Path) -> None:
    """Every array `<grid>_<m>x<n>` or `fold_<m>x<n>` beside the grid that it folds."""
    golden = goldens.read(path)
    found = 0
    for name, expected in golden.items():
        prefix, _, shape = name.rpartition("_")
        if "x" not in shape or not shape.replace("x", "").isdigit():
            continue
        grids = {"fold": "grid", "fig3_order": "fig3_grid", "small": "grid_small"}
        rows, columns = map(int, shape.split("x"))
        assert np.array_equal(fold(golden[grids[prefix]], (rows, columns)), expected), name
        assert np.array_equal(unfold(expected, golden[grids[prefix]].shape, (rows, columns)), golden[grids[prefix]]), name
        found += 1
    assert found >= 4


@pytest.mark.parametrize("path", goldens.family("internvl_vision*"))
def test_golden_pixel_shuffle(path: Path) -> None:
    golden = goldens.read(path)
    pixels, expected = golden["ps_in"], golden["ps_v2"]  # (n h w c) and channels of four neighbours side by side
    folded = fold(np.moveaxis(pixels, -1, 1), (2, 2))
    folded = np.moveaxis(folded, 1, -1).reshape(expected.shape)
    assert np.array_equal(folded, expected)
