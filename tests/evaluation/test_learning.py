"""The cost of reaching a level is read off curves, and a ratio of costs has the interval that its seeds allow."""

import math

import pytest

from plait.errors import DocumentError
from plait.evaluation.learning import compare_costs, cost_to_reach

CURVE = ([10.0, 20.0, 30.0], [0.0, 0.5, 0.4])


@pytest.mark.parametrize(("level", "cost"), [(0.0, 10.0), (0.25, 15.0), (0.5, 20.0), (0.6, None)])
def test_a_level_is_reached_on_the_line_between_examinations(level, cost):
    assert cost_to_reach(CURVE, level) == cost


@pytest.mark.parametrize("curve", [([], []), ([2.0, 1.0], [0.0, 1.0]), ([1.0, 2.0], [0.0])])
def test_a_curve_must_go_on(curve):
    with pytest.raises(DocumentError, match="needs growing costs"):
        cost_to_reach(curve, 0.5)


def line(cost: float) -> tuple[list[float], list[float]]:
    """Reaches 1 at a cost."""
    return [0.0, cost], [0.0, 1.0]


def test_a_recipe_of_half_the_cost_has_the_ratio_one_half():
    ratio = compare_costs({"1": line(4.0), "2": line(6.0)}, {"1": line(8.0), "2": line(12.0)}, 0.5)
    assert ratio.value == pytest.approx(0.5)
    assert ratio.low < 0.5 < ratio.high
    assert (ratio.reached, ratio.seeds) == ((2, 2), (2, 2))


def test_what_a_base_cost_counts_where_it_is_given():
    assert compare_costs({"1": line(4.0)}, {"1": line(8.0)}, 0.5, before=2.0).value == pytest.approx(1.0)


def test_one_seed_gives_no_interval_and_a_level_out_of_reach_no_ratio():
    assert compare_costs({"1": line(4.0)}, {"1": line(8.0)}, 0.5).low is None
    missed = compare_costs({"1": line(4.0), "2": ([0.0, 9.0], [0.0, 0.3])}, {"1": line(8.0)}, 0.5)
    assert (missed.value, missed.reached) == (None, (1, 1))


def test_the_interval_is_welchs():
    # logarithms 0 and 2 against 0 and 2: means equal, standard error sqrt(1 + 1), two degrees of freedom, t = 4.303
    costs = {"1": line(2.0), "2": line(2.0 * math.e**2)}
    ratio = compare_costs(costs, costs, 0.5)
    assert math.log(ratio.high) == pytest.approx(4.303 * math.sqrt(2), rel=0.1)
