"""Health of a codebook: how much of it is in use, and how evenly. Knows codes only."""

from dataclasses import dataclass

import numpy as np
import torch

from plait.errors import VocabularyError


@dataclass(frozen=True)
class CodebookHealth:
    """How a set of codes uses its codebook.

    Args:
        num_codes: rows of the codebook.
        num_used: rows that occur.
        usage_share: num_used / num_codes.
        perplexity: exp of the entropy of the codes in nats: as many rows, equally used, would carry as much.
        top_share: share of the commonest code (on white pictures: the empty patch).
    """

    num_codes: int
    num_used: int
    usage_share: float
    perplexity: float
    top_share: float


def measure_codebook(codes: np.ndarray | torch.Tensor, num_codes: int) -> CodebookHealth:
    """Usage of a codebook of `num_codes` rows by `codes` (integers of any shape).

    Raises:
        VocabularyError: there are no codes, or one lies outside [0, num_codes).
    """
    flat = codes.detach().cpu().numpy().ravel() if isinstance(codes, torch.Tensor) else np.asarray(codes).ravel()
    if not flat.size:
        raise VocabularyError("No codes: the health of a codebook needs at least one.")
    if flat.min() < 0 or flat.max() >= num_codes:
        raise VocabularyError(f"Codes from {flat.min()} to {flat.max()}: expected 0 to {num_codes - 1}.")
    counts = np.bincount(flat.astype(np.int64), minlength=num_codes)
    shares = counts[counts > 0] / flat.size
    return CodebookHealth(
        num_codes=num_codes,
        num_used=len(shares),
        usage_share=len(shares) / num_codes,
        perplexity=float(np.exp(-(shares * np.log(shares)).sum())),
        top_share=float(shares.max()),
    )
