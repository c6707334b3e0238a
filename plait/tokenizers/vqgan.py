"""VQGAN in the Chameleon / taming layout: the image tokenizer of Liquid, and the output side of ARMOR.

The default arguments are the released tokenizer (512 x 512 -> 32 x 32 codes of 8,192; 68,718,467 parameters), whose weights
load by name. Liquid never trains it: codes are made once and cached (`plait/tokenizers/codes.py`). The code that trained it was
not published; ours is L1 and the quantiser loss, without the perceptual term (LPIPS weights come with no package) and without
the adversarial term, so tokenizers trained here reconstruct more softly than the released one. Does not know pixel preparation
(resize, crop) nor vocabularies.

VQGAN: arXiv 2012.09841, section 3.1; Chameleon: arXiv 2405.09818, section 2.1; Liquid: arXiv 2412.04332, section 3.1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn import functional

from plait.axes import CodeGrid, Images, Tensor
from plait.decoders.vq import Latents, Level, MiddleBlocks, VQDecoder, check_widths, group_norm
from plait.errors import RecipeError
from plait.records import LossTerms
from plait.tokenizers.reconstruction import Distance, absolute_error, check_codes, code_usage, measure_reconstruction
from plait.tokenizers.vector_quantizer import VectorQuantizer


class VQGAN(nn.Module):
    """Convolutional autoencoder with a learned codebook; a VisionTokenizer and an ImageDecoder.

    Args:
        image_size: (height, width) that `grid_shapes` speaks of; other sizes work too.
        width: channels at full resolution, a multiple of 32.
        multipliers: width of each level over `width`; each level but the last halves the resolution.
        blocks_per_level: residual blocks per level of the encoder (the decoder has one more).
        attention_levels: levels with attention beside the middle (0 = full resolution).
        latent_channels: channels between the convolutional stacks and the 1 x 1 convolutions at the quantiser.
        num_codes: rows of the codebook.
        code_width: width of a codebook row.
        distance: "absolute" or "squared" pixel error of the training loss.
        foreground_weight: weight of pixels that are not white in the training loss.
    """

    def __init__(
        self,
        *,
        image_size: Sequence[int] = (512, 512),
        width: int = 128,
        multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        blocks_per_level: int = 2,
        attention_levels: Sequence[int] = (),
        latent_channels: int = 256,
        num_codes: int = 8192,
        code_width: int = 256,
        distance: Distance = "absolute",
        foreground_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.downsampling = 2 ** (len(multipliers) - 1)
        self.image_size = (image_size[0], image_size[1])
        self.distance = distance
        self.foreground_weight = foreground_weight
        self.code_sizes = (num_codes,)
        self.digit_sizes = ((num_codes,),)
        self.grid_shapes = (self._grid_shape(*self.image_size),)
        sizes = {
            "width": width,
            "multipliers": tuple(multipliers),
            "blocks_per_level": blocks_per_level,
            "attention_levels": tuple(attention_levels),
            "latent_channels": latent_channels,
        }
        self.encoder = VQEncoder(**sizes)
        self.decoder = VQDecoder(**sizes)
        self.quantize = VectorQuantizer(num_codes, code_width)
        self.quant_conv = nn.Conv2d(latent_channels, code_width, 1)
        self.post_quant_conv = nn.Conv2d(code_width, latent_channels, 1)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Parts by name, for freeze plans and the ledger."""
        return {
            "encoder": nn.ModuleList([self.encoder, self.quant_conv]),
            "quantizer": self.quantize,
            "decoder": nn.ModuleList([self.decoder, self.post_quant_conv]),
        }

    def encode(self, images: Images) -> tuple[CodeGrid]:
        """Images in [-1, 1] -> one grid (b gh gw) of codes.

        Raises:
            RecipeError: a side of the images is not a multiple of the downsampling.
        """
        return (self.quantize.nearest(self.latents(images)),)

    def decode(self, codes: tuple[CodeGrid], noise: Tensor | None = None) -> Images:
        """One grid of codes -> images, clamped to [-1, 1]; `noise` is not used (the decoder is deterministic).

        Raises:
            VocabularyError: a code lies outside the codebook.
        """
        (grid,) = codes
        check_codes(grid, self.code_sizes[0])
        return self.pixels(self.quantize.look_up(grid)).clamp(-1.0, 1.0)

    def latents(self, images: Images) -> Latents:
        """Images -> what the quantiser sees."""
        self._grid_shape(*images.shape[-2:])
        return self.quant_conv(self.encoder(images))

    def pixels(self, quantized: Latents) -> Images:
        """Codebook rows -> images, not clamped."""
        return self.decoder(self.post_quant_conv(quantized))

    def loss(self, batch: Mapping[str, Any]) -> LossTerms:
        """Terms "reconstruction" and "quantizer" of a batch {"images": (b 3 h w) in [-1, 1]}, both counted in pictures."""
        images = batch["images"]
        quantized, codes, quantizer_losses = self.quantize(self.latents(images))
        reconstructions = self.pixels(quantized)
        errors = measure_reconstruction(reconstructions, images, self.distance, self.foreground_weight)
        pictures = float(len(images))
        return LossTerms(
            sums={"reconstruction": errors.sum(), "quantizer": quantizer_losses.sum()},
            counts={"reconstruction": pictures, "quantizer": pictures},
            metrics={
                "absolute_error": absolute_error(reconstructions, images),
                "code_usage_in_batch": code_usage(codes, self.code_sizes[0]),
            },
        )

    def extra_repr(self) -> str:
        """The settings that the weights do not show."""
        return f"image_size={self.image_size}, downsampling={self.downsampling}"

    def _grid_shape(self, height: int, width: int) -> tuple[int, int]:
        if height % self.downsampling or width % self.downsampling or not height or not width:
            raise RecipeError(
                f"Pictures of {height} x {width} pixels: expected sides that are multiples of {self.downsampling} "
                "(the encoder halves the resolution between its levels). Resize or pad them first."
            )
        return height // self.downsampling, width // self.downsampling


class VQEncoder(nn.Module):
    """Images (b 3 h w) -> latents (b latent_channels gh gw); arguments as in `VQDecoder`."""

    def __init__(
        self,
        *,
        width: int,
        multipliers: Sequence[int],
        blocks_per_level: int,
        latent_channels: int,
        attention_levels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        check_widths(width, multipliers)
        channels, last = width, len(multipliers) - 1
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList()
        for index, multiplier in enumerate(multipliers):
            wide = width * multiplier
            downsample = Downsample(wide) if index != last else None
            self.down.append(Level(channels, wide, blocks_per_level, index in attention_levels, downsample=downsample))
            channels = wide
        self.mid = MiddleBlocks(channels)
        self.norm_out = group_norm(channels)
        self.conv_out = nn.Conv2d(channels, latent_channels, 3, padding=1)

    def forward(self, images: Images) -> Latents:
        """Pictures in [-1, 1] -> latents before the quantisation convolution."""
        hidden = self.conv_in(images)
        for level in self.down:
            hidden = level(hidden)
        return self.conv_out(functional.silu(self.norm_out(self.mid(hidden))))


class Downsample(nn.Module):
    """3 x 3 with stride two; zeros are added on the right and at the bottom only, as in the released weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, hidden: Tensor) -> Tensor:
        """(b c 2h 2w) -> (b c h w)."""
        return self.conv(functional.pad(hidden, (0, 1, 0, 1)))
