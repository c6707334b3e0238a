"""A fresh rendering of pictures on white: moved, scaled, and a little other in saturation and brightness; white stays white.

Hues stay: in this data a hue is content ("a red heart"). What is drawn depends on the generator alone.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from plait.axes import Images


@dataclass(frozen=True)
class Jitter:
    """How far a rendering may differ.

    Args:
        shift: largest move along each axis, as a share of the side.
        shrink, grow: largest change of scale, 0.1 is a tenth.
        saturation: largest relative change.
        gamma: exponent of pixels from 0 to 1 lies between 1 - gamma and 1 + gamma.
    """

    shift: float = 0.0625
    shrink: float = 0.15
    grow: float = 0.1
    saturation: float = 0.25
    gamma: float = 0.2

    def __call__(self, images: Images, generator: torch.Generator) -> Images:
        """Images in [-1, 1] on white -> one new rendering of each."""
        move, scale, saturation, gamma = self._draw(len(images), generator)
        matrices = torch.zeros(len(images), 2, 3)
        matrices[:, 0, 0] = matrices[:, 1, 1] = 1 / scale
        matrices[:, :, 2] = move
        grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
        # outside is 0, so white is: what moves in from beyond the edge is white
        ink = functional.grid_sample((1.0 - images) / 2.0, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        pixels = 1.0 - ink
        grey = pixels.mean(1, keepdim=True)
        pixels = (grey + saturation.view(-1, 1, 1, 1) * (pixels - grey)).clamp(0.0, 1.0)
        return pixels.pow(gamma.view(-1, 1, 1, 1)) * 2.0 - 1.0

    def _draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        draws = torch.rand(count, 5, generator=generator)
        # the grid runs from -1 to 1, so a whole side is 2
        move = (2 * draws[:, :2] - 1) * 2 * self.shift
        scale = 1 - self.shrink + draws[:, 2] * (self.shrink + self.grow)
        saturation, gamma = (1 + share * (2 * draws[:, index] - 1) for share, index in ((self.saturation, 3), (self.gamma, 4)))
        return move, scale, saturation, gamma
