"""The reconstruction term that the tokenizers share, counted in pictures.

Lives here and not in `plait/objectives/`: a tokenizer owns its loss (its seam is `loss(batch) -> LossTerms`), and a part never
imports an objective. No perceptual term (LPIPS needs pretrained weights that no package brings) and no adversarial term, so
reconstructions are a little softer than those of the published tokenizers.
"""

from typing import Literal

import torch

from plait.axes import Float, Images, Int, Tensor
from plait.errors import VocabularyError

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


def absolute_error(reconstructions: Images, images: Images) -> tuple[Float[Tensor, ""], float]:
    """Metric: (summed absolute error of clamped reconstructions, number of values); the sum stays on the device."""
    absolute = (reconstructions.detach().float().clamp(-1.0, 1.0) - images).abs()
    return absolute.sum(), float(absolute.numel())


def code_usage(codes: Int[Tensor, "*n"], num_codes: int) -> tuple[Float[Tensor, ""], float]:
    """Metric: (different codes, as many as there could be); counted on the device, which `unique` would make the host wait for."""
    used = torch.zeros(num_codes, device=codes.device).index_fill_(0, codes.flatten().long(), 1.0)
    return used.sum(), float(min(codes.numel(), num_codes))


def check_codes(codes: Int[Tensor, "*n"], num_codes: int, kind: str = "") -> None:
    """Refuse codes that the tokenizer does not have, with one wait for the device.

    Args:
        kind: what is said of them.

    Raises:
        VocabularyError: a code lies outside [0, num_codes).
    """
    if not codes.numel():
        return
    low, high = torch.stack(codes.aminmax()).tolist()
    if low < 0 or high >= num_codes:
        raise VocabularyError(
            f"Codes from {low} to {high}: expected 0 to {num_codes - 1}{kind}. Were the codes made by another tokenizer?"
        )
