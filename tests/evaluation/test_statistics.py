"""Bootstrap intervals against values known from theory."""

import numpy as np
import pytest

from plait.errors import DocumentError
from plait.evaluation.statistics import bootstrap_mean, bootstrap_ratio, crossed_difference, crossed_mean, paired_bootstrap


def test_the_interval_of_a_share_is_the_binomial_one():
    values = [1.0] * 180 + [0.0] * 120
    interval = bootstrap_mean(values)
    error = 1.96 * (0.6 * 0.4 / 300) ** 0.5
    assert interval.value == pytest.approx(0.6)
    assert interval.n == 300
    assert interval.low == pytest.approx(0.6 - error, abs=0.008)
    assert interval.high == pytest.approx(0.6 + error, abs=0.008)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    intervals = [bootstrap_mean(generator.random(120) < 0.7, resamples=400, seed=i) for i in range(300)]
    covered = np.mean([interval.low <= 0.7 <= interval.high for interval in intervals])
    assert 0.91 <= covered <= 0.98


def test_copies_of_one_item_add_nothing_when_they_are_one_cluster():
    values = np.random.default_rng(2).random(50)
    single = bootstrap_mean(values)
    copied, names = np.repeat(values, 8), np.repeat(np.arange(50), 8)
    clustered = bootstrap_mean(copied, clusters=names.tolist())
    naive = bootstrap_mean(copied)
    assert clustered.value == pytest.approx(single.value)
    assert clustered.high - clustered.low == pytest.approx(single.high - single.low, rel=0.1)
    assert naive.high - naive.low < 0.5 * (single.high - single.low)


def test_clusters_of_different_size_keep_every_item_at_the_same_weight():
    values, names = [1.0] * 9 + [0.0], ["long"] * 9 + ["short"]
    interval = bootstrap_mean(values, names)
    assert interval.value == pytest.approx(0.9)
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_equal_values_have_no_width_and_the_seed_decides_the_rest():
    assert bootstrap_mean([1.0] * 40) == bootstrap_mean([1.0] * 40, seed=5)
    values = np.random.default_rng(0).random(40)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_pairing_sees_a_small_difference_that_two_intervals_hide():
    generator = np.random.default_rng(3)
    a = generator.random(200)
    b = a - 0.02 + 0.01 * generator.standard_normal(200)
    difference = paired_bootstrap(a, b)
    assert difference.value == pytest.approx(0.02, abs=0.003)
    assert difference.low > 0.015
    assert difference.p_value < 0.005
    assert bootstrap_mean(a).low < bootstrap_mean(b).high
    mirrored = paired_bootstrap(b, a)
    assert mirrored.value == pytest.approx(-difference.value)
    assert mirrored.p_value < 0.005


def test_no_difference_has_a_large_p_value():
    a = [1.0, 0.0] * 100
    b = [0.0, 1.0] * 100
    assert paired_bootstrap(a, b).p_value > 0.3
    assert paired_bootstrap(a, a).p_value == 1.0


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(DocumentError, match=r"No values to average.*Check the split"):
        bootstrap_mean([])
    with pytest.raises(DocumentError, match="1 of 2 values are not finite"):
        bootstrap_mean([1.0, float("nan")])
    with pytest.raises(DocumentError, match="2 cluster names for 3 values"):
        bootstrap_mean([1.0, 0.0, 1.0], ["a", "b"])
    with pytest.raises(DocumentError, match="the same items twice: found 2 and 1"):
        paired_bootstrap([1.0, 0.0], [1.0])


def test_seeds_that_differ_widen_the_interval_and_seeds_that_agree_do_not():
    items = (np.arange(400) % 2).astype(float)
    alike = crossed_mean(np.stack([items] * 3))
    single = bootstrap_mean(items)
    assert (alike.value, alike.n) == (0.5, 400)
    assert alike.high - alike.low == pytest.approx(single.high - single.low, rel=0.15)
    differing = crossed_mean(np.stack([np.zeros(400), items, np.ones(400)]))
    assert differing.value == pytest.approx(0.5)
    assert differing.high - differing.low > 0.6


def test_the_spread_over_many_seeds_is_that_of_their_mean():
    shares = np.random.default_rng(0).normal(0.5, 0.1, size=30)
    interval = crossed_mean(np.repeat(shares[:, None], 50, axis=1))
    error = 1.96 * shares.std() / 30**0.5
    assert interval.high - interval.low == pytest.approx(2 * error, rel=0.15)


def test_a_difference_of_recipes_is_paired_by_item_and_not_by_seed():
    hard = np.random.default_rng(0).random(300)
    a, b = np.stack([hard + 0.1] * 3), np.stack([hard] * 2)
    gap = crossed_difference(a, b)
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.1, 0.1, 0.1))  # items cancel
    assert gap.p_value < 0.01
    shift = np.array([[-0.3], [0.0], [0.3]])
    noisy = crossed_difference(a + shift, a + shift)
    assert noisy.value == pytest.approx(0)
    assert noisy.low < -0.2 < 0.2 < noisy.high  # seeds of one number are no pair: they do not cancel
    assert noisy.p_value > 0.5
    with pytest.raises(DocumentError, match="found 300 and 299"):
        crossed_difference(a, b[:, :299])


def test_a_ratio_of_means_has_the_interval_of_the_pair():
    generator = np.random.default_rng(4)
    b = 1 + generator.random(300)
    a = 0.8 * b + 0.01 * generator.standard_normal(300)
    ratio = bootstrap_ratio(a, b)
    assert ratio.value == pytest.approx(a.mean() / b.mean())
    assert ratio.low < ratio.value < ratio.high
    assert ratio.high - ratio.low < 0.005  # pairing: the means alone vary by a percent
    with pytest.raises(DocumentError, match="found 2 and 1 values"):
        bootstrap_ratio([1.0, 2.0], [1.0])
    with pytest.raises(DocumentError, match="some resamples of 2 items give 0"):
        bootstrap_ratio([1.0, 1.0], [0.0, 1.0])
