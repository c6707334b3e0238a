"""Comparison: a winner only outside noise, under one protocol, on the same items; equal systems are called equal."""

import numpy as np
import pytest

from benchmarks.measure_verdicts import COLUMNS, PROTOCOL, draw_runs, list_items, share_of_winners
from plait.errors import DocumentError, RecipeError
from plait.evaluation.comparison import TOO_FEW, UNDECIDED, check_protocols, compare
from plait.evaluation.statistics import adjust_p_values, crossed_difference, paired_bootstrap

SEEDS = (1, 2, 3)
PROTOCOLS = {name: dict.fromkeys(SEEDS, PROTOCOL) for name in ("one", "other")}
FEW, NUM_ITEMS = COLUMNS[:4], 90


def draw(one: float, other: float, num_seeds: int = len(SEEDS)) -> dict:
    """Runs of each, with these shares of right items."""
    return draw_runs({"one": one, "other": other}, num_seeds, 0.0, np.random.default_rng(0), FEW, NUM_ITEMS)


def call(one: float, other: float, num_seeds: int = len(SEEDS)) -> list[dict]:
    """The verdicts on them."""
    found = compare(draw(one, other, num_seeds), PROTOCOLS, "other", FEW)
    return [found["one"][key]["minus_reference"] for key in FEW]


def test_a_clear_winner_is_named_in_either_direction_and_a_small_lead_is_not():
    assert {gap["verdict"] for gap in call(0.95, 0.3)} == {"one"}
    assert {gap["verdict"] for gap in call(0.3, 0.95)} == {"other"}
    assert {gap["verdict"] for gap in call(0.71, 0.7)} == {UNDECIDED}
    for gap in (*call(0.8, 0.7), *call(0.9, 0.4)):
        assert gap["low"] > 0 or gap["high"] < 0 or gap["verdict"] == UNDECIDED
        assert gap["p_adjusted"] >= gap["p_value"]


@pytest.mark.parametrize(("one", "other"), [(1, 1), (2, 2), (2, 3), (3, 2), (1, 3)])
def test_below_three_seeds_a_row_nobody_wins_however_far_apart(one, other):
    runs = {
        "one": dict(list(draw(0.95, 0.3)["one"].items())[:one]),
        "other": dict(list(draw(0.95, 0.3)["other"].items())[:other]),
    }
    found = compare(runs, PROTOCOLS, "other", FEW)["one"]
    for key in FEW:
        gap = found[key]["minus_reference"]
        assert gap["verdict"] == TOO_FEW
        assert not {"p_value", "p_adjusted"} & set(gap)
        assert gap["low"] > 0  # the interval over items is given as that


def test_rows_with_too_few_seeds_do_not_weaken_the_verdicts_on_others():
    runs = draw(0.95, 0.3)
    runs |= {"lone": {1: runs["one"][1]}}
    found = compare(runs, {**PROTOCOLS, "lone": {1: PROTOCOL}}, "other", FEW)
    assert [found["one"][key]["minus_reference"] for key in FEW] == call(0.95, 0.3)
    assert {found["lone"][key]["minus_reference"]["verdict"] for key in FEW} == {TOO_FEW}


def test_a_lead_that_one_column_alone_would_show_is_not_shown_among_twenty():
    columns, equal = [f"val/{number}" for number in range(20)], list_items([0, 1] * 60)
    one = {**dict.fromkeys(columns, equal), "val/0": list_items([1] * 18 + [0] * 102)}  # six clusters to none
    other = {**dict.fromkeys(columns, equal), "val/0": list_items([0] * 120)}
    runs = {"one": dict.fromkeys(SEEDS, one), "other": dict.fromkeys(SEEDS, other)}
    alone = compare(runs, PROTOCOLS, "other", columns[:1])["one"]["val/0"]["minus_reference"]
    among = compare(runs, PROTOCOLS, "other", columns)["one"]["val/0"]["minus_reference"]
    assert (alone["verdict"], among["verdict"]) == ("one", UNDECIDED)
    assert among["low"] > 0  # the interval is of its column alone
    assert among["p_adjusted"] == pytest.approx(min(1.0, 20 * alone["p_value"]))


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_equal_systems_have_a_winner_in_one_comparison_of_twenty_at_most(spread):
    # 30 of them here; benchmarks/measure_verdicts.py makes 200 of each kind. At a true 0.05, 5 or more come once in 60 times.
    assert share_of_winners(30, 3, spread, columns=FEW[:3], num_items=60) <= 4 / 30


def test_the_p_value_of_a_few_items_is_that_of_a_sign_test():
    """Four items to none among three hundred: 2 x 0.5 ** 4 = 0.125."""
    a, b = np.array([1.0] * 4 + [0.0] * 296), np.zeros(300)
    assert 0.05 < paired_bootstrap(a, b, resamples=4000).p_value < 0.16
    a[:9] = 1.0
    assert paired_bootstrap(a, b, resamples=4000).p_value < 0.02


def test_the_difference_of_seeds_is_student_t():
    shares = np.array([0.5, 0.6, 0.7])
    a, b = np.repeat(shares[:, None], 50, axis=1), np.full((1, 50), 0.4)
    gap = crossed_difference(a, b, resamples=20_000)
    error = 4.303 * shares.std(ddof=1) / 3**0.5  # 97.5 % of t with two degrees of freedom
    assert gap.value == pytest.approx(0.2)
    assert gap.high - gap.low == pytest.approx(2 * error, rel=0.1)


def test_holm_adjusts_from_the_smallest_up():
    assert adjust_p_values([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert adjust_p_values([0.9, 0.8]) == [1.0, 1.0]
    assert adjust_p_values([]) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampler_image", "hot"),
        ("guidance", [3.0]),
        ("n", 200),
        ("seed", 1),
        ("data", "other"),
        ("rejected_beyond", {"worst": 0.2}),
    ],
)
def test_different_protocols_are_refused_by_name(field, value):
    runs = draw(0.9, 0.5)
    with pytest.raises(RecipeError, match=rf"one, seed 1 and other, seed 1|other, seed 1 and one, seed 1.*{field}") as error:
        compare(runs, {**PROTOCOLS, "other": {seed: {**PROTOCOL, field: value} for seed in SEEDS}}, "other", FEW)
    assert field in str(error.value)
    assert repr(value) in str(error.value)
    assert "policy=fixed" in str(error.value)


def test_all_fields_that_differ_are_named_and_equal_ones_are_not():
    with pytest.raises(RecipeError, match=r"different protocols \(guidance, n\)"):
        check_protocols({"one": PROTOCOL, "other": {**PROTOCOL, "n": 3, "guidance": [2.0]}})
    check_protocols({"one": PROTOCOL, "other": dict(PROTOCOL)})


def test_other_items_and_other_columns_are_refused():
    runs = draw(0.9, 0.5)
    moved = {"one": runs["one"], "other": {1: {key: items[1:] for key, items in runs["other"][1].items()}}}
    with pytest.raises(DocumentError, match="was not asked the 90 items of one, seed 1"):
        compare(moved, PROTOCOLS, "other", FEW)
    with pytest.raises(RecipeError, match=r"share none of the columns \['val/poems'\]"):
        compare(runs, PROTOCOLS, "other", ["val/poems"])
