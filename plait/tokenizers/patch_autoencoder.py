"""A small continuous image autoencoder for the CPU scale: the latent space in which a diffusion decoder works.

The patch transformer of `patch_fsq.py` without its rounding: each patch becomes a few real numbers, which are normalised to mean 0
and spread 1 per channel, with noise of a fixed size added in training so that latents close to one another look alike. That takes
the place of a KL term with a weight and of the scaling factor that is measured afterwards (latent diffusion, arXiv 2112.10752,
section 3.1 and appendix G, where both are chosen by hand): latents that are stored or denoised have unit scale by construction.
The mean and spread are running statistics of the training batches, saved as buffers with the weights.

A released convolutional autoencoder (diffusers AutoencoderKL) can stand behind the same two methods. Ours besides: the local
encoder, and the loss (squared error only: no perceptual and no adversarial term).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import nn

from plait.axes import Float, Images, Tensor
from plait.errors import RecipeError
from plait.records import LossTerms
from plait.tokenizers.patch_transformer import PatchDecoder, PatchEncoder, count_patches
from plait.tokenizers.reconstruction import absolute_error, measure_reconstruction


class PatchAutoencoder(nn.Module):
    """Patch-wise autoencoder behind `plait.protocols.LatentSpace`.

    Args:
        image_size: (height, width) that `latent_shape` speaks of; other sizes work too.
        patch_size: side of a patch in pixels.
        latent_channels: numbers per patch.
        width: channels of a patch inside the transformer.
        encoder_depth, decoder_depth: blocks before and after the latents.
        num_heads: attention heads of the decoder; the encoder looks at one patch at a time.
        noise: standard deviation of what is added to latents in training, whose own is 1.

    Raises:
        RecipeError: the noise is not in [0, 1).
    """

    def __init__(
        self,
        *,
        image_size: Sequence[int] = (64, 64),
        patch_size: int = 8,
        latent_channels: int = 4,
        width: int = 128,
        encoder_depth: int = 2,
        decoder_depth: int = 3,
        num_heads: int = 2,
        noise: float = 0.1,
    ) -> None:
        super().__init__()
        if not 0.0 <= noise < 1.0:
            raise RecipeError(f"noise is {noise}, expected 0 <= noise < 1: latents have a standard deviation of 1.")
        self.image_size = (image_size[0], image_size[1])
        self.patch_size, self.noise = patch_size, noise
        self.latent_shape = (latent_channels, *count_patches(*self.image_size, patch_size))
        self.encoder = PatchEncoder(patch_size, width, encoder_depth, 0, latent_channels, bias=False)
        self.normalizer = nn.BatchNorm2d(latent_channels, affine=False, momentum=0.01)
        self.decoder = PatchDecoder(patch_size, width, decoder_depth, num_heads, latent_channels)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Parts by name, for freeze plans and the ledger."""
        return {"encoder": self.encoder, "normalizer": self.normalizer, "decoder": self.decoder}

    def encode(self, images: Images) -> Float[Tensor, "b d gh gw"]:
        """Images in [-1, 1] -> latents.

        Raises:
            RecipeError: a side of the images is not a multiple of the patch.
        """
        gh, _ = count_patches(*images.shape[-2:], self.patch_size)
        numbers = rearrange(self.encoder(images), "b (gh gw) d -> b d gh gw", gh=gh)
        # statistics in fp32 whatever autocast says
        with torch.autocast(numbers.device.type, enabled=False):
            return self.normalizer(numbers.float())

    def decode(self, latents: Float[Tensor, "b d gh gw"]) -> Images:
        """Latents -> images, clamped to [-1, 1]."""
        return self._draw(latents).clamp(-1.0, 1.0)

    def loss(self, batch: Mapping[str, Any]) -> LossTerms:
        """Term "reconstruction" of a batch {"images": (b 3 h w) in [-1, 1]}, counted in pictures."""
        images = batch["images"]
        latents = self.encode(images)
        if self.training and self.noise:
            latents = latents + self.noise * torch.randn_like(latents)
        reconstructions = self._draw(latents)
        return LossTerms(
            sums={"reconstruction": measure_reconstruction(reconstructions, images, "squared").sum()},
            counts={"reconstruction": float(len(images))},
            metrics={"absolute_error": absolute_error(reconstructions, images)},
        )

    def extra_repr(self) -> str:
        """The settings that the weights do not show."""
        return (
            f"image_size={self.image_size}, patch_size={self.patch_size}, latent_shape={self.latent_shape}, noise={self.noise}"
        )

    def _draw(self, latents: Tensor) -> Images:
        return self.decoder(rearrange(latents, "b d gh gw -> b (gh gw) d"), *latents.shape[-2:])
