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

from plait.axes import CodeGrid, Float, Images, Tensor
from plait.errors import RecipeError, VocabularyError
from plait.protocols import LossTerms
from plait.tokenizers.patch_transformer import PatchBlock, grid_angles
from plait.tokenizers.reconstruction import Distance, measure_reconstruction


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
        self.grid_shapes = (self._grid_shape(*self.image_size),)

        pixels = 3 * patch_size**2
        self.encoder = nn.ModuleDict(
            {
                "patch_in": nn.Linear(pixels, width),
                "blocks": nn.ModuleList(PatchBlock(width, num_heads if encoder_attends else 0) for _ in range(encoder_depth)),
                "norm": nn.LayerNorm(width),
                "digits_out": nn.Linear(width, len(levels)),
            }
        )
        self.quantizer = FSQ(levels=list(levels))
        self.decoder = nn.ModuleDict(
            {
                "digits_in": nn.Linear(len(levels), width),
                "blocks": nn.ModuleList(PatchBlock(width, num_heads) for _ in range(decoder_depth)),
                "norm": nn.LayerNorm(width),
                "patch_out": nn.Linear(width, pixels),
            }
        )
        # the first reconstruction is an empty white picture, so that the first steps go into the objects and not the background
        nn.init.zeros_(self.decoder["patch_out"].weight)
        nn.init.zeros_(self.decoder["patch_out"].bias)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Parts by name, for freeze plans and the ledger."""
        return {"encoder": self.encoder, "quantizer": self.quantizer, "decoder": self.decoder}

    def encode(self, images: Images) -> tuple[CodeGrid]:
        """Images in [-1, 1] -> one grid (b gh gw) of codes.

        Raises:
            RecipeError: a side of the images is not a multiple of the patch.
        """
        gh, gw = self._grid_shape(*images.shape[-2:])
        _, codes = self._quantize(self._digits(images))
        return (rearrange(codes.long(), "b (gh gw) -> b gh gw", gh=gh, gw=gw),)

    def decode(self, codes: tuple[CodeGrid], noise: Tensor | None = None) -> Images:
        """One grid of codes -> images, clamped to [-1, 1]; `noise` is not used (the decoder is deterministic).

        Raises:
            VocabularyError: a code lies outside [0, code_sizes[0]).
        """
        (grid,) = codes
        if grid.numel() and (grid.min() < 0 or grid.max() >= self.code_sizes[0]):
            raise VocabularyError(
                f"Codes from {int(grid.min())} to {int(grid.max())}: expected 0 to {self.code_sizes[0] - 1} "
                f"(FSQ levels {self.digit_sizes[0]}). Were the codes made by another tokenizer?"
            )
        digits = self.quantizer.indices_to_codes(rearrange(grid, "b gh gw -> b (gh gw)").long())
        return self._pixels(digits, *grid.shape[-2:]).clamp(-1.0, 1.0)

    def reconstruct(self, images: Images) -> Images:
        """Images in [-1, 1] -> what their codes show, not clamped; gradients pass straight through the rounding."""
        digits, _ = self._quantize(self._digits(images))
        return self._pixels(digits, *self._grid_shape(*images.shape[-2:]))

    def loss(self, batch: Mapping[str, Any]) -> LossTerms:
        """Term "reconstruction" of a batch {"images": (b 3 h w) in [-1, 1]}, counted in pictures."""
        images = batch["images"]
        digits, codes = self._quantize(self._digits(images))
        reconstructions = self._pixels(digits, *self._grid_shape(*images.shape[-2:]))
        errors = measure_reconstruction(reconstructions, images, self.distance, self.foreground_weight)
        absolute = (reconstructions.detach().float().clamp(-1.0, 1.0) - images).abs()
        return LossTerms(
            sums={"reconstruction": errors.sum()},
            counts={"reconstruction": float(len(images))},
            metrics={
                "absolute_error": (absolute.sum().item(), float(absolute.numel())),
                "code_usage_in_batch": (float(codes.unique().numel()), float(min(codes.numel(), self.code_sizes[0]))),
            },
        )

    def extra_repr(self) -> str:
        """The settings that the weights do not show."""
        return (
            f"image_size={self.image_size}, patch_size={self.patch_size}, levels={self.digit_sizes[0]}, "
            f"num_heads={self.num_heads}, encoder_attends={self.encoder_attends}"
        )

    def _grid_shape(self, height: int, width: int) -> tuple[int, int]:
        if height % self.patch_size or width % self.patch_size or not height or not width:
            raise RecipeError(
                f"Pictures of {height} x {width} pixels: expected sides that are multiples of the patch, {self.patch_size}. "
                "Resize or pad them first."
            )
        return height // self.patch_size, width // self.patch_size

    def _angles(self, gh: int, gw: int, like: Tensor) -> Tensor:
        return grid_angles(gh, gw, like.shape[-1] // self.num_heads, like.device)

    def _digits(self, images: Images) -> Float[Tensor, "b s d"]:
        gh, gw = self._grid_shape(*images.shape[-2:])
        patches = rearrange(images - 1.0, "b c (gh p) (gw q) -> b (gh gw) (p q c)", gh=gh, gw=gw)
        hidden = self.encoder["patch_in"](patches)
        angles = self._angles(gh, gw, hidden) if self.encoder_attends else None
        for block in self.encoder["blocks"]:
            hidden = block(hidden, angles)
        return self.encoder["digits_out"](self.encoder["norm"](hidden))

    def _quantize(self, digits: Tensor) -> tuple[Tensor, Tensor]:
        # rounding in fp32 whatever autocast says: in bf16 a share of the codes would flip
        with torch.autocast(digits.device.type, enabled=False):
            return self.quantizer(digits.float())

    def _pixels(self, digits: Tensor, gh: int, gw: int) -> Images:
        hidden = self.decoder["digits_in"](digits)
        angles = self._angles(gh, gw, hidden)
        for block in self.decoder["blocks"]:
            hidden = block(hidden, angles)
        patches = self.decoder["patch_out"](self.decoder["norm"](hidden))
        p = self.patch_size
        # the network writes the difference to white
        return 1.0 + rearrange(patches, "b (gh gw) (p q c) -> b c (gh p) (gw q)", gh=gh, gw=gw, p=p, q=p)
