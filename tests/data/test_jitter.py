"""Fresh renderings: drawn from the generator alone, white stays white, and no step goes further than was said."""

import torch

from plait.data.jitter import Jitter


def square(size: int = 64) -> torch.Tensor:
    """A black square of 16 pixels in the middle of white."""
    images = torch.ones(1, 3, size, size)
    images[..., 24:40, 24:40] = -1.0
    return images


def render(jitter: Jitter, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return jitter(images, torch.Generator().manual_seed(seed))


def test_a_rendering_is_a_function_of_the_generator() -> None:
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    assert torch.equal(render(Jitter(), images), render(Jitter(), images))
    assert not torch.equal(render(Jitter(), images), render(Jitter(), images, seed=1))
    assert render(Jitter(), images).abs().max() <= 1.0


def test_nothing_to_change_changes_nothing() -> None:
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    still = Jitter(shift=0, shrink=0, grow=0, saturation=0, gamma=0)
    torch.testing.assert_close(render(still, images), images, atol=1e-5, rtol=0)


def test_white_stays_white() -> None:
    torch.testing.assert_close(render(Jitter(), torch.ones(8, 3, 32, 32)), torch.ones(8, 3, 32, 32))


def test_moves_and_scales_within_its_bounds() -> None:
    images = square().expand(200, -1, -1, -1)
    moved = render(Jitter(shift=0.0625, shrink=0, grow=0, saturation=0, gamma=0), images)
    scaled = render(Jitter(shift=0, shrink=0.15, grow=0.1, saturation=0, gamma=0), images)
    place = torch.arange(64.0)
    ink = (1 - moved[:, 0]) / 2
    middle = (ink.sum(1) * place).sum(1) / ink.sum((1, 2)) - 31.5
    assert 3.5 < middle.abs().max() <= 4.01
    side = ((1 - scaled[:, 0]) / 2).sum((1, 2)).sqrt() / 16
    assert 0.84 < side.min() < 0.88
    assert 1.07 < side.max() < 1.11


def test_hue_stays_and_saturation_and_brightness_change() -> None:
    images = torch.tensor([0.6, -0.2, -0.4]).view(1, 3, 1, 1).expand(100, 3, 8, 8)
    drawn = render(Jitter(shift=0, shrink=0, grow=0), images)[:, :, 4, 4]
    assert (drawn[:, 0] > drawn[:, 1]).all()
    assert (drawn[:, 1] > drawn[:, 2]).all()
    assert (drawn.std(0) > 0.02).all()
