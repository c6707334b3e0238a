"""What it costs to reach a level: from figures that were measured while models trained to the ratio of two recipes' costs.

A curve is examined at a few costs only. The level counts as reached at the first examination that shows it, and the cost is read on
the straight line from the examination before. With few prompts an examination is off by a few hundredths: levels near the end of a
curve are the least sure. Nothing here knows what a cost or a figure is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from plait.errors import DocumentError
from plait.evaluation.statistics import crossed_difference

Curve = tuple[Sequence[float], Sequence[float]]
"""costs, growing, and the figure at each"""


@dataclass(frozen=True)
class CostRatio:
    """Cost of an arm over that of the reference to reach a level: ratio of geometric means over seeds, and its 95 % interval.

    Args:
        value, low, high: None where a seed of either arm never reached the level, or where one seed gives no interval.
        reached: seeds that did, of the arm and of the reference.
        seeds: seeds of the arm and of the reference.
    """

    level: float
    value: float | None
    low: float | None
    high: float | None
    reached: tuple[int, int]
    seeds: tuple[int, int]


def cost_to_reach(curve: Curve, level: float) -> float | None:
    """The cost at which a figure first reaches a level; None if it never does.

    Raises:
        DocumentError: no points, or costs that do not grow.
    """
    costs, values = curve
    if not costs or len(costs) != len(values) or any(late <= early for early, late in pairwise(costs)):
        raise DocumentError(
            f"A learning curve needs growing costs and as many figures: found {list(costs)} and {list(values)}."
        )
    for index, value in enumerate(values):
        if value >= level:
            if index == 0:
                return float(costs[0])
            share = (level - values[index - 1]) / (value - values[index - 1])
            return float(costs[index - 1] + share * (costs[index] - costs[index - 1]))
    return None


def compare_costs(arm: Mapping[str, Curve], reference: Mapping[str, Curve], level: float, before: float = 0.0) -> CostRatio:
    """What an arm needs to reach a level, over what the reference needs.

    Costs are compared as logarithms; the seeds of the two arms are different runs, so the interval is Welch's, from the seeds alone.

    Args:
        arm, reference: seed -> curve.
        before: what the arm had cost before its curve began (a base that it starts from).
    """
    own = [cost_to_reach(curve, level) for curve in arm.values()]
    other = [cost_to_reach(curve, level) for curve in reference.values()]
    facts = {
        "level": level,
        "reached": (sum(cost is not None for cost in own), sum(cost is not None for cost in other)),
        "seeds": (len(own), len(other)),
    }
    if None in own or None in other:
        return CostRatio(value=None, low=None, high=None, **facts)
    # one item, several seeds: what is left of the interval is what the seeds say
    logs = (np.log([[cost + extra] for cost in costs]) for costs, extra in ((own, before), (other, 0.0)))
    gap = crossed_difference(*logs, resamples=20_000)
    low, high = (math.exp(gap.low), math.exp(gap.high)) if min(facts["seeds"]) > 1 else (None, None)
    return CostRatio(value=math.exp(gap.value), low=low, high=high, **facts)
