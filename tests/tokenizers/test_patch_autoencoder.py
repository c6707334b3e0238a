"""The continuous autoencoder: its seam, unit latents, noise in training only, gradients, and that it learns."""

import pytest
import torch

from plait.errors import RecipeError
from plait.protocols import LatentSpace
from plait.tokenizers.patch_autoencoder import PatchAutoencoder
from tests.tokenizers.test_patch_fsq import pictures


def make(**settings) -> PatchAutoencoder:
    torch.manual_seed(0)
    sizes = {"image_size": (32, 48), "patch_size": 8, "width": 32, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2}
    return PatchAutoencoder(**{**sizes, **settings})


def train(autoencoder: PatchAutoencoder, images: torch.Tensor, steps: int) -> PatchAutoencoder:
    optimizer = torch.optim.AdamW(autoencoder.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        autoencoder.loss({"images": images}).sums["reconstruction"].backward()
        optimizer.step()
    return autoencoder


def test_offers_the_seam_of_a_latent_space() -> None:
    autoencoder = make().eval()
    assert isinstance(autoencoder, LatentSpace)
    assert autoencoder.latent_shape == (4, 4, 6)
    latents = autoencoder.encode(pictures(2))
    assert latents.shape == (2, 4, 4, 6)
    assert autoencoder.decode(latents).shape == (2, 3, 32, 48)
    assert autoencoder.encode(pictures(1, 64, 16)).shape == (1, 4, 8, 2)
    owned = [id(parameter) for part in autoencoder.parts.values() for parameter in part.parameters()]
    assert sorted(owned) == sorted(id(parameter) for parameter in autoencoder.parameters())


def test_latents_have_mean_0_and_spread_1_by_the_statistics_of_training() -> None:
    images = pictures(16)
    autoencoder = make()
    autoencoder.normalizer.momentum = 0.2  # few steps here, and the weights stand still
    for _ in range(60):
        autoencoder.encode(images)
    latents = autoencoder.eval().encode(images)
    assert latents.mean((0, 2, 3)).abs().max() < 0.05
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.05


def test_noise_is_of_training_alone() -> None:
    images = pictures(4)
    autoencoder = train(make(noise=0.5), images, 5)
    first, second = (autoencoder.loss({"images": images}).sums["reconstruction"].item() for _ in range(2))
    assert first != second
    autoencoder.eval()
    first, second = (autoencoder.loss({"images": images}).sums["reconstruction"].item() for _ in range(2))
    assert first == second


def test_gradients_reach_every_parameter_and_the_statistics_are_saved() -> None:
    autoencoder = make()
    torch.nn.init.normal_(autoencoder.decoder.patch_out.weight, std=0.1)  # zero at the start, where nothing would flow yet
    autoencoder.loss({"images": pictures(2)}).sums["reconstruction"].backward()
    for name, parameter in autoencoder.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert {"normalizer.running_mean", "normalizer.running_var"} <= set(autoencoder.state_dict())


def test_overfits_eight_pictures() -> None:
    images = pictures(8)
    autoencoder = make(width=64, decoder_depth=2)
    autoencoder.normalizer.momentum = 0.1  # few steps here
    before = (autoencoder.eval().decode(autoencoder.encode(images)) - images).abs().mean()
    train(autoencoder.train(), images, 100).eval()
    after = (autoencoder.decode(autoencoder.encode(images)) - images).abs().mean()
    assert after < 0.35 * before, f"mean error {before:.3f} -> {after:.3f}"


def test_says_what_is_wrong() -> None:
    with pytest.raises(RecipeError, match=r"noise is 1\.0, expected 0 <= noise < 1"):
        make(noise=1.0)
    with pytest.raises(RecipeError, match=r"30 x 48 pixels.*multiples of the patch, 8"):
        make().encode(torch.ones(1, 3, 30, 48))
