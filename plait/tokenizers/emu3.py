"""Emu3's vision tokenizer: the image tokenizer of SynerGen-VL, built of transformers' `Emu3VQVAE` and taken as released.

The default arguments are the released tokenizer (BAAI/Emu3-VisionTokenizer; 512 x 512 -> 64 x 64 codes of 32,768; 270,740,287
parameters), whose weights come through `plait.adapters.emu3`. It was made for video: a picture is read as four equal frames, and of
the four frames that a grid of codes shows the first is the picture. Nearly all of the work is done frame by frame, so here it is done
for one frame: the encoder's latents are repeated, not the picture, and only the first frame is drawn. Both are exact.

Frozen: there is no loss here, parameters are born without gradient, and `train()` leaves it in evaluation mode, as its BatchNorm would
otherwise give other codes with every batch. It runs in the precision of its weights whatever autocast says: in bf16 a share of the
codes flips.

On still pictures only half of the codebook occurs: the authors saw no code above 16,381 and keep the others for video
(baaivision/Emu3, issue 59). `code_sizes` is the whole codebook, as the released language models score it; whoever draws codes may leave
out those from 16,384 on. Does not know resizing (`plait/resizing.py`) nor tiles (`plait/tiling.py`).

Emu3: arXiv 2409.18869, section 2.2; public code of commit f6ea9aa; SynerGen-VL: arXiv 2412.09604, section 3.1.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from einops import rearrange, repeat
from torch import nn
from torch.nn import functional
from transformers import Emu3VQVAE, Emu3VQVAEConfig
from transformers.models.emu3.modeling_emu3 import Emu3VQVAEAttentionBlock

from plait.axes import CodeGrid, Float, Images, Int, Tensor
from plait.decoders.vq import check_widths
from plait.errors import RecipeError
from plait.records import LossTerms
from plait.tokenizers.reconstruction import check_codes
from plait.tokenizers.vector_quantizer import VectorQuantizer

Latents = Float[Tensor, "b d gh gw"]
FrameLatents = Float[Tensor, "b d n gh gw"]  # n frames, m grids of codes
GridLatents = Float[Tensor, "b d m gh gw"]
Frames = Float[Tensor, "b n 3 h w"]


class Emu3Tokenizer(nn.Module):
    """Convolutional video autoencoder with a learned codebook, for pictures; a VisionTokenizer and an ImageDecoder.

    Its tensors have the names of transformers' `Emu3VQVAE`.

    Args:
        image_size: (height, width) that `grid_shapes` speaks of; other sizes work too.
        width: channels at full resolution, a multiple of 32.
        multipliers: width of each level over `width`; each level but the last halves the resolution.
        blocks_per_level: residual blocks per level of the encoder (the decoder has one more), and in each of the two stacks over time.
        attention_levels: levels with attention beside the middle, as indices (0 = full resolution); upstream calls them resolutions.
            Levels of any width: transformers gives all attention one width, which is corrected here.
        num_codes: rows of the codebook.
        code_width: width of a codebook row and channels of the latents; the decoder sends both through the same layers.
        temporal_downsampling: frames per grid of codes, a power of two.

    Raises:
        RecipeError: sizes that no such tokenizer can have.
    """

    def __init__(
        self,
        *,
        image_size: Sequence[int] = (512, 512),
        width: int = 256,
        multipliers: Sequence[int] = (1, 2, 2, 4),
        blocks_per_level: int = 2,
        attention_levels: Sequence[int] = (3,),
        num_codes: int = 32768,
        code_width: int = 4,
        temporal_downsampling: int = 4,
    ) -> None:
        super().__init__()
        check_widths(width, multipliers)
        _check_levels(attention_levels, len(multipliers))
        if temporal_downsampling < 1 or temporal_downsampling & (temporal_downsampling - 1):
            raise RecipeError(
                f"temporal_downsampling is {temporal_downsampling}, expected a power of two: every step over time halves it."
            )
        self.downsampling = 2 ** (len(multipliers) - 1)
        self.temporal_downsampling = temporal_downsampling
        self.attention_levels = tuple(attention_levels)
        self.image_size = (image_size[0], image_size[1])
        self.code_sizes = (num_codes,)
        self.digit_sizes = ((num_codes,),)
        self.grid_shapes = (self._grid_shape(*self.image_size),)
        config = Emu3VQVAEConfig(
            codebook_size=num_codes,
            embed_dim=code_width,
            latent_channels=code_width,
            temporal_downsample_factor=temporal_downsampling,
            base_channels=width,
            channel_multiplier=list(multipliers),
            num_res_blocks=blocks_per_level,
            attn_resolutions=list(attention_levels),
            hidden_size=width * multipliers[-1],
        )
        model = Emu3VQVAE(config)
        for levels in (model.encoder.down_block.down, model.decoder.up_block.up):
            _fit_attention(levels, model.config, [width * multiplier for multiplier in multipliers])
        self.encoder, self.decoder = model.encoder, model.decoder
        self.quant_conv, self.post_quant_conv = model.quant_conv, model.post_quant_conv
        # ours compares a few latents at a time: transformers' would hold 4,096 x 32,768 distances per picture of a batch
        self.quantize = VectorQuantizer(num_codes, code_width)
        self.requires_grad_(False).eval()

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Parts by name, for freeze plans and the ledger."""
        return {
            "encoder": nn.ModuleList([self.encoder, self.quant_conv]),
            "quantizer": self.quantize,
            "decoder": nn.ModuleList([self.decoder, self.post_quant_conv]),
        }

    def train(self, mode: bool = True) -> "Emu3Tokenizer":
        """Stay in evaluation mode whatever `mode` says: BatchNorm must use the released statistics and never change them."""
        return super().train(False)

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
        return self.pixels(grid).clamp(-1.0, 1.0)

    def encode_frames(self, frames: Frames) -> Int[Tensor, "b m gh gw"]:
        """Video in [-1, 1] -> a grid of codes for every `temporal_downsampling` frames.

        Raises:
            RecipeError: the frames do not divide into such groups, or a side is not a multiple of the downsampling.
        """
        count = frames.shape[1]
        if not count or count % self.temporal_downsampling:
            raise RecipeError(
                f"A video of {count} frames: expected a multiple of {self.temporal_downsampling}, the frames of one grid of codes. "
                "Cut it, or repeat its last frame."
            )
        latents = self._read(rearrange(frames, "b n c h w -> (b n) c h w"))
        latents = self._compress(rearrange(latents, "(b n) d gh gw -> b d n gh gw", n=count))
        grids = self.quantize.nearest(rearrange(latents, "b d m gh gw -> (b m) d gh gw"))
        return rearrange(grids, "(b m) gh gw -> b m gh gw", b=len(frames))

    def decode_frames(self, codes: Int[Tensor, "b m gh gw"]) -> Frames:
        """Grids of codes -> video of `temporal_downsampling` frames for each, clamped to [-1, 1].

        Raises:
            VocabularyError: a code lies outside the codebook.
        """
        hidden, rows = (rearrange(part, "b d n gh gw -> (b n) d gh gw") for part in self._expand(codes))
        return rearrange(self._draw(hidden, rows).clamp(-1.0, 1.0), "(b n) c h w -> b n c h w", b=len(codes))

    def latents(self, images: Images) -> Latents:
        """Images -> what the quantiser sees."""
        frames = repeat(self._read(images), "b d gh gw -> b d n gh gw", n=self.temporal_downsampling)
        return self._compress(frames).squeeze(2)

    def pixels(self, grid: CodeGrid) -> Images:
        """Codes -> images, not clamped.

        Raises:
            VocabularyError: a code lies outside the codebook.
        """
        hidden, rows = self._expand(grid[:, None])
        return self._draw(hidden[:, :, 0], rows[:, :, 0])

    def loss(self, batch: Mapping[str, Any]) -> LossTerms:
        """Refused: this tokenizer is not trained.

        Raises:
            RecipeError: always.
        """
        raise RecipeError(
            "Emu3's vision tokenizer has no loss: it is taken as released and stays frozen. Next: read the released weights "
            "(plait.adapters.emu3), use base.vision_tokenizer=random as a control, or train another one, as with tokenizer=vqgan."
        )

    def extra_repr(self) -> str:
        """The settings that the weights do not show."""
        return (
            f"image_size={self.image_size}, downsampling={self.downsampling}, attention_levels={self.attention_levels}, "
            f"temporal_downsampling={self.temporal_downsampling}"
        )

    @torch.no_grad()
    def _read(self, images: Images) -> Latents:
        """The part of the encoder that looks at one frame at a time."""
        self._grid_shape(*images.shape[-2:])
        encoder = self.encoder
        with torch.autocast(images.device.type, enabled=False):
            hidden = encoder.conv_in(images.to(encoder.conv_in.weight.dtype))
            hidden = encoder.middle_block(encoder.down_block(hidden))
            return encoder.conv_out(functional.silu(encoder.norm_out(hidden)))

    @torch.no_grad()
    def _compress(self, latents: FrameLatents) -> GridLatents:
        """The part of the encoder that joins frames, up to the quantiser."""
        with torch.autocast(latents.device.type, enabled=False):
            for layer in self.encoder.time_conv:
                latents = functional.silu(layer(latents))
            for layer in self.encoder.time_res_stack:
                latents = layer(latents)
            return self.quant_conv(latents)

    @torch.no_grad()
    def _expand(self, codes: Int[Tensor, "b m gh gw"]) -> tuple[FrameLatents, FrameLatents]:
        """Codes -> for every frame what is drawn and what the norms of the decoder read."""
        check_codes(codes, self.code_sizes[0])
        rows = rearrange(functional.embedding(codes, self.quantize.embedding.weight), "b m gh gw d -> b d m gh gw")
        with torch.autocast(rows.device.type, enabled=False):
            both = torch.cat([self.post_quant_conv(rows), rows])
            for layer in self.decoder.time_res_stack:
                both = layer(both)
            for layer in self.decoder.time_conv:
                both = functional.silu(layer(both))
        hidden, rows = both.chunk(2)
        return hidden, rows

    @torch.no_grad()
    def _draw(self, hidden: Latents, rows: Latents) -> Images:
        """The part of the decoder that draws one frame at a time."""
        decoder = self.decoder
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = decoder.middle_block(decoder.conv_in(hidden), rows)
            hidden = decoder.up_block(hidden, rows)
            return decoder.conv_out(functional.silu(decoder.norm_out(hidden, rows)))

    def _grid_shape(self, height: int, width: int) -> tuple[int, int]:
        if height % self.downsampling or width % self.downsampling or not height or not width:
            raise RecipeError(
                f"Pictures of {height} x {width} pixels: expected sides that are multiples of {self.downsampling} "
                "(the encoder halves the resolution between its levels). Resize them first (plait.resizing)."
            )
        return height // self.downsampling, width // self.downsampling


def _check_levels(attention_levels: Sequence[int], num_levels: int) -> None:
    # transformers passes over an index that no level has, and the tokenizer would be another one than was asked for
    strange = [index for index in attention_levels if not 0 <= index < num_levels]
    if strange:
        raise RecipeError(
            f"attention_levels {list(attention_levels)}: there is no level {strange[0]}, expected indices from 0 to {num_levels - 1}. "
            "They count levels (upstream's attn_resolutions does too), not pixels."
        )


def _fit_attention(levels: nn.ModuleList, config: Emu3VQVAEConfig, widths: Sequence[int]) -> None:
    """Give attention the width of its level, as in the public code: transformers has `hidden_size` for all of it."""
    for level, width in zip(levels, widths, strict=True):
        if width != config.hidden_size:
            fitting = deepcopy(config)
            fitting.hidden_size = width
            level.attn = nn.ModuleList(Emu3VQVAEAttentionBlock(fitting) for _ in level.attn)
