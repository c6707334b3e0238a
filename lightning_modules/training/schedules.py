"""Learning-rate schedules by optimiser step, as factors on the base rate. The number of steps is given, never asked of the
Trainer (reading `estimated_stepping_batches` while optimisers are configured loses the data position on resume).

A warmup of w steps trains its first step at 1/w of the base rate, not at 0: step 1 moves every tensor.
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from plait.errors import RecipeError


def constant(optimizer: Optimizer, max_steps: int, warmup_steps: int = 0) -> LambdaLR:
    """Linear warmup, then the base rate."""
    _check(warmup_steps)
    return LambdaLR(optimizer, lambda step: _warmup(step, warmup_steps))


def cosine(
    optimizer: Optimizer, max_steps: int, warmup_steps: int = 0, final_ratio: float = 0.1, warmup_share: float = 0.0
) -> LambdaLR:
    """Linear warmup, over `warmup_steps` or, where these are 0, a share of all steps (rounded up), then half a cosine down to
    `final_ratio` of the base rate at `max_steps`."""
    warmup_steps = warmup_steps or math.ceil(warmup_share * max_steps)
    _check(warmup_steps, final_ratio=final_ratio, warmup_share=warmup_share)

    def factor(step: int) -> float:
        way = min(1.0, max(0.0, (step - warmup_steps) / max(1, max_steps - warmup_steps)))
        return _warmup(step, warmup_steps) * (final_ratio + (1 - final_ratio) * 0.5 * (1 + math.cos(math.pi * way)))

    return LambdaLR(optimizer, factor)


def trapezoid(
    optimizer: Optimizer, max_steps: int, warmup_steps: int = 0, decay_share: float = 0.3, final_ratio: float = 0.0
) -> LambdaLR:
    """Linear warmup, the base rate, and a linear descent to `final_ratio` over the last `decay_share` of all steps."""
    _check(warmup_steps, decay_share=decay_share, final_ratio=final_ratio)

    def factor(step: int) -> float:
        left = min(1.0, max(0.0, (max_steps - step) / max(1.0, decay_share * max_steps)))
        return _warmup(step, warmup_steps) * (final_ratio + (1 - final_ratio) * left)

    return LambdaLR(optimizer, factor)


def _check(warmup_steps: int, **shares: float) -> None:
    if warmup_steps < 0:
        raise RecipeError(f"warmup_steps is {warmup_steps}, expected at least 0. Next: set stage.schedule.warmup_steps.")
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise RecipeError(f"{name} is {share}, expected a share between 0 and 1. Next: set stage.schedule.{name}.")


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
