"""The VQ decoder: sizes, levels with attention, equivalence of a batch and its rows."""

import pytest
import torch

from plait.decoders.vq import VQDecoder
from plait.errors import RecipeError


def make(**settings) -> VQDecoder:
    torch.manual_seed(0)
    sizes = {"width": 32, "multipliers": (1, 2, 1), "blocks_per_level": 1, "latent_channels": 5}
    return VQDecoder(**{**sizes, **settings}).eval()


@torch.no_grad()
@pytest.mark.parametrize("grid", [(2, 2), (3, 5)])
def test_each_level_but_one_doubles_the_grid(grid: tuple[int, int]) -> None:
    images = make()(torch.randn(2, 5, *grid))
    assert images.shape == (2, 3, 4 * grid[0], 4 * grid[1])


@torch.no_grad()
def test_a_batch_equals_its_rows() -> None:
    decoder, latents = make(attention_levels=(2,)), torch.randn(3, 5, 3, 2)
    rows = torch.cat([decoder(row[None]) for row in latents])
    torch.testing.assert_close(decoder(latents), rows, atol=1e-5, rtol=0)


def test_attention_levels_add_one_attention_per_block() -> None:
    plain, attending = make(), make(attention_levels=(0, 2))
    added = set(attending.state_dict()) - set(plain.state_dict())
    assert {name.split(".attn.")[0] for name in added} == {"up.0", "up.2"}
    assert len({name.rsplit(".", 2)[0] for name in added}) == 4  # two levels with two blocks each


def test_gradients_reach_the_latents() -> None:
    latents = torch.randn(1, 5, 2, 2, requires_grad=True)
    make()(latents).square().sum().backward()
    assert (latents.grad.abs() > 0).all()


def test_refuses_widths_that_group_norm_cannot_split() -> None:
    with pytest.raises(RecipeError, match=r"widths \[40, 80\]"):
        make(width=40, multipliers=(1, 2))
    with pytest.raises(RecipeError, match="at least one level"):
        make(multipliers=())
