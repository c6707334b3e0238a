"""Pre-norm transformer blocks over a grid of patches, with or without attention.

Positions are axial rotations of queries and keys (half of each head turns with the row, half with the column), so that a block
has no table of positions and runs on any grid. Knows nothing of pictures or codes.

Rotary positions: arXiv 2104.09864, section 3.2, applied per axis.
"""

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional

from plait.axes import Float, Tensor
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
