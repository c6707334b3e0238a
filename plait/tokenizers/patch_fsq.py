"""A small, fast vision tokenizer for the CPU scale: patch transformer with finite scalar quantisation.

Each patch (16 x 16 pixels) becomes a few numbers, each number is rounded to one of a few levels, and the rounded numbers, read
as digits, are the code. The encoder looks at one patch at a time by default: a code then says what is in its patch and nothing
about the rest of the picture, so an object has the same codes wherever it stands and whatever stands beside it, which is what a
language model must learn. The decoder attends over the grid. Both run on any picture whose sides are multiples of the patch.

Quantiser: FSQ, arXiv 2309.15505, sections 3.1 and 3.2, from the library vector-quantize-pytorch: no codebook to learn, so no
quantiser loss and no dead rows. Ours are the patch transformer, the local encoder and the loss (no perceptual, no adversarial
term). Does not know how it is trained, nor who reads its codes.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from einops import rearrange
from torch import nn
from vector_quantize_pytorch import FSQ

from plait.axes import CodeGrid, Images, Tensor
from plait.records import LossTerms
from plait.tokenizers.patch_transformer import PatchDecoder, PatchEncoder, count_patches
from plait.tokenizers.reconstruction import Distance, absolute_error, check_codes, code_usage, measure_reconstruction


class PatchFSQ(nn.Module):
    """Patch-wise autoencoder with FSQ codes; a VisionTokenizer and an ImageDecoder.

    Args:
        image_size: (height, width) that `grid_shapes` speaks of; other sizes work too.
        patch_size: side of a patch in pixels.
        width: channels of a patch inside the transformer.
        encoder_depth: blocks before the quantiser.
        decoder_depth: blocks after it.
        num_heads: attention heads of a block that attends.
        levels: FSQ levels = sizes of the digits of a code, least significant first.
        encoder_attends: whether the encoder sees the whole picture instead of one patch at a time.
        distance: "absolute" or "squared" pixel error.
        foreground_weight: weight of pixels that are not white in the loss.
    """

    def __init__(
        self,
        *,
        image_size: Sequence[int] = (64, 64),
        patch_size: int = 16,
        width: int = 256,
        encoder_depth: int = 2,
        decoder_depth: int = 3,
        num_heads: int = 4,
        levels: Sequence[int] = (8, 8, 8, 5, 5),
        encoder_attends: bool = False,
        distance: Distance = "absolute",
        foreground_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.image_size = (image_size[0], image_size[1])
        self.patch_size = patch_size
        self.num_heads = num_heads
        self.encoder_attends = encoder_attends
        self.distance = distance
        self.foreground_weight = foreground_weight
        self.digit_sizes = (tuple(levels),)
        self.code_sizes = (prod(levels),)
        self.grid_shapes = (count_patches(*self.image_size, patch_size),)
        self.encoder = PatchEncoder(patch_size, width, encoder_depth, num_heads if encoder_attends else 0, len(levels))
        self.quantizer = FSQ(levels=list(levels))
        self.decoder = PatchDecoder(patch_size, width, decoder_depth, num_heads, len(levels))

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Parts by name, for freeze plans and the ledger."""
        return {"encoder": self.encoder, "quantizer": self.quantizer, "decoder": self.decoder}

    def encode(self, images: Images) -> tuple[CodeGrid]:
        """Images in [-1, 1] -> one grid (b gh gw) of codes.

        Raises:
            RecipeError: a side of the images is not a multiple of the patch.
        """
        gh, gw = count_patches(*images.shape[-2:], self.patch_size)
        _, codes = self._quantize(self.encoder(images))
        return (rearrange(codes.long(), "b (gh gw) -> b gh gw", gh=gh, gw=gw),)

    def decode(self, codes: tuple[CodeGrid], noise: Tensor | None = None) -> Images:
        """One grid of codes -> images, clamped to [-1, 1]; `noise` is not used (the decoder is deterministic).

        Raises:
            VocabularyError: a code lies outside [0, code_sizes[0]).
        """
        (grid,) = codes
        check_codes(grid, self.code_sizes[0], f" (FSQ levels {self.digit_sizes[0]})")
        digits = self.quantizer.indices_to_codes(rearrange(grid, "b gh gw -> b (gh gw)").long())
        return self.decoder(digits, *grid.shape[-2:]).clamp(-1.0, 1.0)

    def reconstruct(self, images: Images) -> Images:
        """Images in [-1, 1] -> what their codes show, not clamped; gradients pass straight through the rounding."""
        digits, _ = self._quantize(self.encoder(images))
        return self.decoder(digits, *count_patches(*images.shape[-2:], self.patch_size))

    def loss(self, batch: Mapping[str, Any]) -> LossTerms:
        """Term "reconstruction" of a batch {"images": (b 3 h w) in [-1, 1]}, counted in pictures."""
        images = batch["images"]
        digits, codes = self._quantize(self.encoder(images))
        reconstructions = self.decoder(digits, *count_patches(*images.shape[-2:], self.patch_size))
        errors = measure_reconstruction(reconstructions, images, self.distance, self.foreground_weight)
        return LossTerms(
            sums={"reconstruction": errors.sum()},
            counts={"reconstruction": float(len(images))},
            metrics={
                "absolute_error": absolute_error(reconstructions, images),
                "code_usage_in_batch": code_usage(codes, self.code_sizes[0]),
            },
        )

    def extra_repr(self) -> str:
        """The settings that the weights do not show."""
        return (
            f"image_size={self.image_size}, patch_size={self.patch_size}, levels={self.digit_sizes[0]}, "
            f"num_heads={self.num_heads}, encoder_attends={self.encoder_attends}"
        )

    def _quantize(self, digits: Tensor) -> tuple[Tensor, Tensor]:
        # rounding in fp32 whatever autocast says: in bf16 a share of the codes would flip
        with torch.autocast(digits.device.type, enabled=False):
            return self.quantizer(digits.float())
