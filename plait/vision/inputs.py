"""What an encoder is fed: pictures in [-1, 1] brought to its own size and its own normalisation.

Figures that compare features say which filter resized the pictures, because the filter moves them (arXiv 2104.11222): that name
is made here, beside the resizing itself.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from plait.axes import Float, Images, Tensor

RESIZE_FILTER = "bicubic, antialiased"


class PictureInput(nn.Module):
    """Resizes and normalises.

    Args:
        image_size: (height, width) that comes out; pictures of this size are not resampled.
        mean, std: per channel, of pixels from 0 to 1.
    """

    def __init__(
        self,
        image_size: Sequence[int],
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        super().__init__()
        self.image_size = (image_size[0], image_size[1])
        # settings of the encoder and not weights: they are in its config
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Images) -> Float[Tensor, "b 3 _ _"]:
        """Pictures in [-1, 1] -> input of the encoder."""
        if tuple(images.shape[-2:]) != self.image_size:
            images = functional.interpolate(images, self.image_size, mode="bicubic", antialias=True, align_corners=False)
            images = images.clamp(-1.0, 1.0)  # bicubic overshoots at edges
        return ((images + 1.0) / 2.0 - self.mean) / self.std
