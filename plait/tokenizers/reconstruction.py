"""The reconstruction term that the tokenizers share, counted in pictures.

Lives here and not in `plait/objectives/`: a tokenizer owns its loss (its seam is `loss(batch) -> LossTerms`), and a part never
imports an objective. No perceptual term (LPIPS needs pretrained weights that no package brings) and no adversarial term, so
reconstructions are a little softer than those of the published tokenizers.
"""

from typing import Literal

import torch

from plait.axes import Float, Images, Tensor

Distance = Literal["absolute", "squared"]


def measure_reconstruction(
    reconstructions: Images, images: Images, distance: Distance = "absolute", foreground_weight: float = 1.0
) -> Float[Tensor, "b"]:
    """Weighted mean error of each picture over its pixels and channels, in fp32.

    Args:
        distance: "absolute" (L1, keeps edges) or "squared" (L2).
        foreground_weight: weight of a pixel that is not white, white pixels have 1. The weights of a picture are not
            normalised: a small object must not count as much as a large one, or its few pixels drown the rest.
    """
    difference = reconstructions.float() - images.float()
    error = difference.abs() if distance == "absolute" else difference.square()
    if foreground_weight != 1.0:
        # a pixel is white when its darkest channel is, up to the rounding of 8-bit pictures
        is_foreground = images.amin(dim=1, keepdim=True) < 1.0 - 4.0 / 255.0
        error = error * torch.where(is_foreground, foreground_weight, 1.0)
    return error.mean(dim=(1, 2, 3))
