"""The VQGAN decoder in the Chameleon / taming layout: quantised latents to pixels, and the blocks that its encoder shares.

Module names are those of the published checkpoints (`conv_in`, `mid.block_1`, `up.3.block.0.nin_shortcut`, ...), so that
released weights load by name. Knows nothing of codebooks. GroupNorm with 32 groups and eps 1e-6 throughout, SiLU, attention
with one head made of 1 x 1 convolutions.

VQGAN: arXiv 2012.09841, appendix table 7; Chameleon: arXiv 2405.09818, section 2.1. Widths must be multiples of 32 (GroupNorm).
"""

from collections.abc import Sequence

from einops import rearrange
from torch import nn
from torch.nn import functional

from plait.axes import Float, Images, Tensor
from plait.errors import RecipeError

Latents = Float[Tensor, "b d gh gw"]


class VQDecoder(nn.Module):
    """Latents (b latent_channels gh gw) -> images (b 3 h w), not clamped; fully convolutional, any grid.

    Args:
        width: channels at full resolution.
        multipliers: width of each level over `width`, from full resolution down; each level but the last halves the resolution.
        blocks_per_level: residual blocks of an encoder level; the decoder has one more.
        attention_levels: levels whose residual blocks are followed by attention (index 0 = full resolution).
        latent_channels: channels of the latents.
    """

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
        channels = width * multipliers[-1]
        self.conv_in = nn.Conv2d(latent_channels, channels, 3, padding=1)
        self.mid = MiddleBlocks(channels)
        levels = []
        for index in reversed(range(len(multipliers))):
            wide = width * multipliers[index]
            upsample = Upsample(wide) if index else None
            levels.append(Level(channels, wide, blocks_per_level + 1, index in attention_levels, upsample=upsample))
            channels = wide
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = group_norm(channels)
        self.conv_out = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, latents: Latents) -> Images:
        """Latents after the post-quantisation convolution -> pictures around [-1, 1]."""
        hidden = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            hidden = level(hidden)
        return self.conv_out(functional.silu(self.norm_out(hidden)))


class Level(nn.Module):
    """The blocks of one resolution, with the change to the next."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        num_blocks: int,
        has_attention: bool,
        *,
        downsample: nn.Module | None = None,
        upsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResidualBlock(channels_in if index == 0 else channels_out, channels_out) for index in range(num_blocks)
        )
        self.attn = nn.ModuleList(AttentionBlock(channels_out) for _ in range(num_blocks if has_attention else 0))
        if downsample is not None:
            self.downsample = downsample
        if upsample is not None:
            self.upsample = upsample

    def forward(self, hidden: Tensor) -> Tensor:
        """Blocks (each followed by its attention, where there is one), then the resampling."""
        for index, block in enumerate(self.block):
            hidden = block(hidden)
            if self.attn:
                hidden = self.attn[index](hidden)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                hidden = getattr(self, name)(hidden)
        return hidden


class MiddleBlocks(nn.Module):
    """Residual, attention, residual at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = AttentionBlock(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, hidden: Tensor) -> Tensor:
        """Same shape in and out."""
        return self.block_2(self.attn_1(self.block_1(hidden)))


class ResidualBlock(nn.Module):
    """norm, SiLU, 3 x 3, twice; a 1 x 1 shortcut where the width changes."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = group_norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        if channels_in != channels_out:
            self.nin_shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(b channels_in h w) -> (b channels_out h w)."""
        change = self.conv1(functional.silu(self.norm1(hidden)))
        change = self.conv2(functional.silu(self.norm2(change)))
        return change + (self.nin_shortcut(hidden) if hasattr(self, "nin_shortcut") else hidden)


class AttentionBlock(nn.Module):
    """Residual self-attention over all positions, one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Same shape in and out."""
        normed = self.norm(hidden)
        query, key, value = (rearrange(project(normed), "b c h w -> b 1 (h w) c") for project in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return hidden + self.proj_out(rearrange(mixed, "b 1 (h w) c -> b c h w", h=hidden.shape[-2]))


class Upsample(nn.Module):
    """Nearest neighbour by two, then 3 x 3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(b c h w) -> (b c 2h 2w)."""
        return self.conv(functional.interpolate(hidden, scale_factor=2.0, mode="nearest"))


def group_norm(channels: int) -> nn.GroupNorm:
    """The one normalisation of the layout."""
    return nn.GroupNorm(32, channels, eps=1e-6)


def check_widths(width: int, multipliers: Sequence[int]) -> None:
    """Refuse widths that GroupNorm cannot split.

    Raises:
        RecipeError: there is no level, or a width is not a positive multiple of 32.
    """
    widths = [width * multiplier for multiplier in multipliers]
    if not widths or any(wide % 32 or wide <= 0 for wide in widths):
        raise RecipeError(
            f"VQGAN level widths {widths}: expected at least one level and positive multiples of 32 "
            "(GroupNorm has 32 groups). Choose `width` as a multiple of 32."
        )


__all__ = [
    "AttentionBlock",
    "Latents",
    "Level",
    "MiddleBlocks",
    "ResidualBlock",
    "Upsample",
    "VQDecoder",
    "check_widths",
    "group_norm",
]
