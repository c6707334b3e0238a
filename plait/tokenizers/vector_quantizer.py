"""The quantiser of the VQGAN: nearest row of a learned codebook.

No normalisation of latents or rows, no temperature: squared Euclidean distance in fp32, the first index wins a tie. Not taken
from a quantiser library because its numbers must equal those of the released tokenizers: their training loss puts the weight
0.25 on the codebook term and not on the commitment term ("legacy", a known slip of the first release).

VQ-VAE: arXiv 1711.00937, equation 3; VQGAN: arXiv 2012.09841, equation 4.
"""

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional

from plait.axes import CodeGrid, Float, Int, Tensor

_DISTANCES = 2**25
"""distances held at a time (134 MB), so that a large codebook does not take gigabytes"""
_BLOCK = 4096
"""latents compared with the codebook at a time, at most"""


class VectorQuantizer(nn.Module):
    """Latents -> nearest codebook rows.

    Args:
        num_codes: rows of the codebook.
        code_width: width of a row.
        beta: the smaller of the two weights of the loss.
        is_legacy: whether `beta` weighs the codebook term (as released) instead of the commitment term (as published).
    """

    def __init__(self, num_codes: int, code_width: int, beta: float = 0.25, is_legacy: bool = True) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.beta = beta
        self.is_legacy = is_legacy
        self.embedding = nn.Embedding(num_codes, code_width)
        nn.init.uniform_(self.embedding.weight, -1.0 / num_codes, 1.0 / num_codes)

    def forward(self, latents: Float[Tensor, "b d gh gw"]) -> tuple[Float[Tensor, "b d gh gw"], CodeGrid, Float[Tensor, "b"]]:
        """Quantise.

        Returns:
            (b d gh gw) codebook rows, through which gradients reach the latents unchanged; (b gh gw) codes; (b) loss of each
            picture.
        """
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            codes = self.nearest(latents)
            rows = self.look_up(codes)
            commitment = (rows.detach() - latents).square().mean(dim=(1, 2, 3))
            codebook = (rows - latents.detach()).square().mean(dim=(1, 2, 3))
            loss = commitment + self.beta * codebook if self.is_legacy else self.beta * commitment + codebook
            return latents + (rows - latents).detach(), codes, loss

    @torch.no_grad()
    def nearest(self, latents: Float[Tensor, "b d gh gw"]) -> CodeGrid:
        """Index of the nearest row at each position."""
        batch, _, gh, gw = latents.shape
        flat = rearrange(latents.float(), "b d gh gw -> (b gh gw) d")
        with torch.autocast(latents.device.type, enabled=False):  # in bf16 a share of the codes would flip
            rows = self.embedding.weight.float()
            lengths = rows.square().sum(dim=1)
            # the square of the latent itself is kept: without it, rounding decides other near ties than the released tokenizers do
            found = [
                (block.square().sum(dim=1, keepdim=True) + lengths - 2.0 * block @ rows.T).argmin(dim=1)
                for block in flat.split(min(_BLOCK, max(1, _DISTANCES // len(rows))))
            ]
        return rearrange(torch.cat(found), "(b gh gw) -> b gh gw", b=batch, gh=gh, gw=gw)

    def look_up(self, codes: Int[Tensor, "b gh gw"]) -> Float[Tensor, "b d gh gw"]:
        """The rows of the codes."""
        return rearrange(functional.embedding(codes, self.embedding.weight), "b gh gw d -> b d gh gw")
