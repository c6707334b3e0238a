"""What a run costs: parameters, tokens, positions per image, floating point operations, time, memory.

Quality figures of two systems mean little apart from what each may spend, so the cost stands in the same results.
Operations are given twice where both can be had: by the rule 6 x parameters x tokens (Kaplan et al., arXiv 2001.08361,
section 2.1), and counted by torch from the calls that really ran, which also sees attention and the head. The module does
not know what the model is.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from plait.errors import RecipeError


@dataclass
class Reading:
    """What a measured block took; filled when the block ends.

    Args:
        duration_s: wall clock seconds.
        peak_memory_bytes: highest resident memory of this process so far (the system reports no peak per block).
        peak_device_bytes: highest memory of the accelerator inside the block; 0 without one.
    """

    duration_s: float = 0.0
    peak_memory_bytes: int = 0
    peak_device_bytes: int = 0


@dataclass(frozen=True)
class Cost:
    """The cost of a run; None where it was not given, never guessed."""

    parameters: int
    parameters_trained: int
    positions_per_image: int
    training_tokens: int | None = None
    training_flops_by_rule: float | None = None
    training_flops_counted: float | None = None
    training_duration_s: float | None = None
    peak_memory_bytes: int | None = None

    def to_dict(self) -> dict[str, float | int]:
        """The known fields, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def count_parameters(parts: Mapping[str, nn.Module]) -> tuple[int, int]:
    """(all, trained) parameters of the parts; a tensor that two parts share counts once.

    Raises:
        RecipeError: there is no parameter at all.
    """
    tensors = {id(tensor): tensor for part in parts.values() for tensor in part.parameters()}
    if not tensors:
        raise RecipeError(f"The parts {sorted(parts)} hold no parameters: pass the `parts` of a built model.")
    total = sum(tensor.numel() for tensor in tensors.values())
    return total, sum(tensor.numel() for tensor in tensors.values() if tensor.requires_grad)


def count_flops(call: Callable[[], Any]) -> float:
    """Floating point operations of one call, as torch counts them (matrix products, attention; a multiply-add is 2)."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


@contextmanager
def measure() -> Iterator[Reading]:
    """Time and peak memory of the block: `with measure() as reading: ...`."""
    reading = Reading()
    has_device = torch.cuda.is_available()
    if has_device:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    try:
        yield reading
    finally:
        if has_device:
            torch.cuda.synchronize()
            reading.peak_device_bytes = torch.cuda.max_memory_allocated()
        reading.duration_s = time.perf_counter() - start
        unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts in bytes there, in KiB on Linux
        reading.peak_memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def summarise_cost(
    parts: Mapping[str, nn.Module],
    positions_per_image: int,
    training_tokens: int | None = None,
    training_flops_counted: float | None = None,
    training: Reading | None = None,
) -> Cost:
    """The cost of a run from the model's parts and what the run recorded.

    Args:
        positions_per_image: backbone positions that one image occupies.
        training_tokens: backbone positions trained on, over all steps.
        training_flops_counted: `count_flops` of one step, times the steps.
        training: the reading around training.
    """
    total, trained = count_parameters(parts)
    return Cost(
        parameters=total,
        parameters_trained=trained,
        positions_per_image=positions_per_image,
        training_tokens=training_tokens,
        training_flops_by_rule=None if training_tokens is None else 6.0 * total * training_tokens,
        training_flops_counted=training_flops_counted,
        training_duration_s=None if training is None else training.duration_s,
        peak_memory_bytes=None if training is None else training.peak_memory_bytes,
    )
