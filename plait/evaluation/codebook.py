"""Is the codebook of a vision tokenizer used? Shares and perplexities of observed codes, level by level."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plait.errors import VocabularyError


@dataclass(frozen=True)
class CodebookHealth:
    """Use of one code level (or of one digit of it).

    Args:
        used: share of the codes that occur.
        perplexity: exp of the entropy of the code frequencies; the codebook size when all are used alike.
        size: codes there are.
    """

    used: float
    perplexity: float
    size: int


def measure_codebook(codes: np.ndarray, size: int) -> CodebookHealth:
    """Health of a codebook from observed codes.

    Raises:
        VocabularyError: no codes, or a code outside the codebook.
    """
    codes = np.asarray(codes).ravel()
    if codes.size == 0 or codes.min() < 0 or codes.max() >= size:
        found = f"codes {codes.min()}..{codes.max()}" if codes.size else "no codes"
        raise VocabularyError(f"Codebook of size {size}: found {found}. The code cache belongs to another tokenizer.")
    counts = np.bincount(codes, minlength=size)
    shares = counts[counts > 0] / codes.size
    return CodebookHealth(float((counts > 0).mean()), float(np.exp(-(shares * np.log(shares)).sum())), size)


def measure_codebooks(
    grids: Sequence[tuple[np.ndarray, ...]], digit_sizes: Sequence[Sequence[int]]
) -> dict[str, CodebookHealth]:
    """Health of every level, and of every digit where codes have several.

    Args:
        grids: per picture one grid per level.
        digit_sizes: per level the sizes of the digits, least significant first; one digit is a plain codebook.

    Returns:
        "level_0", "level_0_digit_0", ... -> health.
    """
    found = {}
    for level, sizes in enumerate(digit_sizes):
        codes = np.concatenate([np.asarray(grid[level]).ravel() for grid in grids])
        found[f"level_{level}"] = measure_codebook(codes, int(np.prod(sizes)))
        if len(sizes) > 1:
            for digit, size in enumerate(sizes):
                found[f"level_{level}_digit_{digit}"] = measure_codebook(codes % size, size)
                codes = codes // size
    return found
