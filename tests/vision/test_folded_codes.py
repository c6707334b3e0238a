"""Folded codes on their way in: equation 1, by hand."""

import pytest
import torch
from torch.nn import functional

from plait.tokenizers.folding import fold_places
from plait.vision.folded_codes import FoldedCodes

GRID, FOLD, CODES, WIDTH = (4, 8), (2, 4), 20, 12


def new_input(**options) -> FoldedCodes:
    torch.manual_seed(0)
    return FoldedCodes(CODES, torch.from_numpy(fold_places(GRID, FOLD)), WIDTH, **options)


@pytest.mark.parametrize("has_norm", [False, True])
def test_the_place_of_each_code_is_added_before_folding(has_norm) -> None:
    """The whole picture by loops over rows and columns, as the paper writes it."""
    module = new_input(code_width=5, has_norm=has_norm, std=1.0)
    grid = torch.randint(CODES, GRID)
    embedded = torch.stack(
        [
            torch.stack([module.codes[grid[y, x]] + module.positions[y * GRID[1] + x] for x in range(GRID[1])])
            for y in range(GRID[0])
        ]
    )
    expected = []
    for top in range(0, GRID[0], FOLD[0]):
        for left in range(0, GRID[1], FOLD[1]):
            side_by_side = embedded[top : top + FOLD[0], left : left + FOLD[1]].reshape(-1)
            if has_norm:
                side_by_side = module.norm(side_by_side)
            first, _, last = module.maps
            expected.append(last(functional.gelu(first(side_by_side))))
    patches = grid.reshape(-1)[module.places]
    torch.testing.assert_close(module(patches, torch.arange(4)), torch.stack(expected))


def test_the_same_codes_elsewhere_are_another_token() -> None:
    module = new_input(std=1.0)
    codes = torch.randint(CODES, (1, 8))
    assert not torch.allclose(module(codes, torch.tensor([0])), module(codes, torch.tensor([3])))


@pytest.mark.parametrize("wanted", [0.05, 0.5])
def test_positions_begin_with_the_spread_that_is_asked_for(wanted) -> None:
    module = new_input(output_std=wanted)
    tokens = module(torch.randint(CODES, (400, 8)), torch.arange(400) % 4)
    assert float(tokens.detach().std(0).mean()) == pytest.approx(wanted, rel=0.15)


def test_the_published_form() -> None:
    """Codes as wide as the model, two maps, biases, no norm (specs 2)."""
    shapes = {name: tuple(parameter.shape) for name, parameter in new_input().named_parameters()}
    assert shapes == {
        "codes": (CODES, WIDTH),
        "positions": (32, WIDTH),
        "maps.0.weight": (WIDTH, 8 * WIDTH),
        "maps.0.bias": (WIDTH,),
        "maps.2.weight": (WIDTH, WIDTH),
        "maps.2.bias": (WIDTH,),
    }
