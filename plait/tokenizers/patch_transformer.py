"""Pre-norm transformer blocks over a grid of patches, with or without attention; and the two halves of a patch-wise autoencoder.

Positions are axial rotations of queries and keys (half of each head turns with the row, half with the column), so that a block
has no table of positions and runs on any grid. What stands between the halves (rounding to codes, normalising) is not known here.

Rotary positions: arXiv 2104.09864, section 3.2, applied per axis.
"""

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional

from plait.axes import Float, Images, Tensor
from plait.errors import RecipeError


class PatchBlock(nn.Module):
    """One residual block: attention over the grid (left out where `num_heads` is 0), then a two-layer MLP.

    Args:
        width: channels of a patch.
        num_heads: attention heads; 0 makes the block local, each patch on its own.
        mlp_ratio: hidden width of the MLP over `width`.

    Raises:
        RecipeError: the width of a head is not divisible by four (two axes, two coordinates per rotation).
    """

    def __init__(self, width: int, num_heads: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        if num_heads and width % (4 * num_heads):
            raise RecipeError(
                f"width {width} with {num_heads} heads: expected a multiple of {4 * num_heads} "
                f"(rows and columns rotate in pairs); choose width {4 * num_heads * max(1, round(width / (4 * num_heads)))} "
                "or another number of heads."
            )
        self.num_heads = num_heads
        if num_heads:
            self.attention_norm = nn.LayerNorm(width)
            self.query_key_value = nn.Linear(width, 3 * width, bias=False)
            self.attention_out = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, mlp_ratio * width)
        self.mlp_out = nn.Linear(mlp_ratio * width, width)

    def forward(self, patches: Float[Tensor, "b s d"], angles: Float[Tensor, "s r"] | None) -> Float[Tensor, "b s d"]:
        """Patches of a grid in raster order -> the same, mixed; `angles` from `grid_angles`, None for a local block."""
        if self.num_heads:
            patches = patches + self._attend(self.attention_norm(patches), angles)
        hidden = functional.gelu(self.mlp_in(self.mlp_norm(patches)), approximate="tanh")
        return patches + self.mlp_out(hidden)

    def _attend(self, patches: Tensor, angles: Tensor) -> Tensor:
        query, key, value = rearrange(
            self.query_key_value(patches), "b s (three heads d) -> three b heads s d", three=3, heads=self.num_heads
        )
        mixed = functional.scaled_dot_product_attention(_rotate(query, angles), _rotate(key, angles), value)
        return self.attention_out(rearrange(mixed, "b heads s d -> b s (heads d)"))


class PatchEncoder(nn.Module):
    """Pictures -> a few numbers ("digits") per patch.

    Args:
        patch_size: side of a patch in pixels.
        width: channels of a patch inside.
        depth: blocks.
        num_heads: attention heads; 0 looks at one patch at a time.
        num_digits: numbers per patch that come out.
        bias: whether they have one; without where what follows takes their mean away.
    """

    def __init__(self, patch_size: int, width: int, depth: int, num_heads: int, num_digits: int, bias: bool = True) -> None:
        super().__init__()
        self.patch_size, self.num_heads = patch_size, num_heads
        self.patch_in = nn.Linear(3 * patch_size**2, width)
        self.blocks = nn.ModuleList(PatchBlock(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.digits_out = nn.Linear(width, num_digits, bias=bias)

    def forward(self, images: Images) -> Float[Tensor, "b s d"]:
        """Images in [-1, 1] -> digits of their patches in raster order."""
        gh, gw = count_patches(*images.shape[-2:], self.patch_size)
        # the network reads the difference to white
        hidden = self.patch_in(rearrange(images - 1.0, "b c (gh p) (gw q) -> b (gh gw) (p q c)", gh=gh, gw=gw))
        angles = grid_angles(gh, gw, hidden.shape[-1] // self.num_heads, hidden.device) if self.num_heads else None
        for block in self.blocks:
            hidden = block(hidden, angles)
        return self.digits_out(self.norm(hidden))


class PatchDecoder(nn.Module):
    """Digits of a grid of patches -> pictures; every block attends.

    Args:
        patch_size, width, depth, num_heads, num_digits: as for `PatchEncoder`; at least one head.
    """

    def __init__(self, patch_size: int, width: int, depth: int, num_heads: int, num_digits: int) -> None:
        super().__init__()
        self.patch_size, self.num_heads = patch_size, num_heads
        self.digits_in = nn.Linear(num_digits, width)
        self.blocks = nn.ModuleList(PatchBlock(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.patch_out = nn.Linear(width, 3 * patch_size**2)
        # the first reconstruction is an empty white picture, so that the first steps go into the objects and not the background
        nn.init.zeros_(self.patch_out.weight)
        nn.init.zeros_(self.patch_out.bias)

    def forward(self, digits: Float[Tensor, "b s d"], gh: int, gw: int) -> Images:
        """Digits in raster order -> images, not clamped."""
        hidden = self.digits_in(digits)
        angles = grid_angles(gh, gw, hidden.shape[-1] // self.num_heads, hidden.device)
        for block in self.blocks:
            hidden = block(hidden, angles)
        patches = self.patch_out(self.norm(hidden))
        p = self.patch_size
        # the network writes the difference to white
        return 1.0 + rearrange(patches, "b (gh gw) (p q c) -> b c (gh p) (gw q)", gh=gh, gw=gw, p=p, q=p)


def count_patches(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches.

    Raises:
        RecipeError: a side is not a multiple of the patch.
    """
    if height % patch_size or width % patch_size or not height or not width:
        raise RecipeError(
            f"Pictures of {height} x {width} pixels: expected sides that are multiples of the patch, {patch_size}. "
            "Resize or pad them first."
        )
    return height // patch_size, width // patch_size


def grid_angles(rows: int, columns: int, head_width: int, device: torch.device) -> Float[Tensor, "s r"]:
    """Angles by which the coordinate pairs of a head turn at each cell of the grid, in raster order.

    Returns:
        (rows * columns, head_width / 2): first the pairs that follow the row, then those that follow the column. The
        slowest pair turns by a tenth of a radian per cell, the fastest by one: the grids here are small.
    """
    pairs = head_width // 4
    rates = 0.1 ** (torch.arange(pairs, device=device, dtype=torch.float32) / max(1, pairs - 1))
    row = torch.arange(rows, device=device, dtype=torch.float32).repeat_interleave(columns)
    column = torch.arange(columns, device=device, dtype=torch.float32).repeat(rows)
    return torch.cat([row[:, None] * rates, column[:, None] * rates], dim=1)


def _rotate(heads: Tensor, angles: Tensor) -> Tensor:
    first, second = heads.chunk(2, dim=-1)
    cosine, sine = angles.cos().to(heads.dtype), angles.sin().to(heads.dtype)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
