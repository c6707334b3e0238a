"""How sure a figure is: bootstrap intervals for one mean and for the difference of two, of one model or of several seeds of it.

Items that share a picture or a story are not independent, so both functions resample whole clusters where clusters are given.
The interval is the percentile bootstrap (Efron 1979). It knows only what it saw: where all values are equal it has no width,
whatever n is, which is why every figure is printed with its n. The p-value of a difference is that of the bootstrap distribution
moved to zero: counting resamples on the far side of zero instead would call four items to none a difference (2 e^-4 = 0.04, where
the sign test says 0.125). Nothing here knows what a value means.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from plait.errors import DocumentError

ENDS = (0.025, 0.975)
"""Quantiles between which an interval lies: 95 %, everywhere."""


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """The mean of `a - b` over the same items, its interval, and the two-sided bootstrap p-value of "no difference"."""

    value: float
    low: float
    high: float
    p_value: float
    n: int


def bootstrap_mean(
    values: Sequence[float] | np.ndarray,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Mean of `values` with its percentile bootstrap interval.

    Args:
        values: one number per item.
        clusters: per item the name of the group that is drawn as a whole (picture, story); None: every item on its own.
        seed: the resampling is a pure function of it.

    Raises:
        DocumentError: no values, a value that is not finite, or not one cluster per value.
    """
    means = _resampled_means(np.asarray(values, dtype=np.float64)[:, None], clusters, resamples, seed)[:, 0]
    low, high = np.quantile(means, ENDS)
    return Interval(float(np.mean(values)), float(low), float(high), len(values))


def bootstrap_ratio(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Mean of `a` over mean of `b` on the same items, with its percentile bootstrap interval.

    Raises:
        DocumentError: `a` and `b` are not of one length, the mean of `b` is 0 in a resample, or as for `bootstrap_mean`.
    """
    if len(a) != len(b):
        raise DocumentError(f"A ratio needs the same items twice: found {len(a)} and {len(b)} values.")
    values = np.stack([np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)], axis=1)
    means = _resampled_means(values, clusters, resamples, seed)
    if (means[:, 1] == 0).any():
        raise DocumentError(
            f"A ratio to a mean of {values[:, 1].mean():g} has no interval: some resamples of {len(b)} items give 0."
        )
    low, high = np.quantile(means[:, 0] / means[:, 1], ENDS)
    return Interval(float(values[:, 0].mean() / values[:, 1].mean()), float(low), float(high), len(a))


def paired_bootstrap(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    """Mean of `a - b`, item by item: two models on the same prompts.

    Raises:
        DocumentError: `a` and `b` are not of one length, or as for `bootstrap_mean`.
    """
    if len(a) != len(b):
        raise DocumentError(f"A paired comparison needs the same items twice: found {len(a)} and {len(b)} values.")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    means = _resampled_means(differences[:, None], clusters, resamples, seed)[:, 0]
    low, high = np.quantile(means, ENDS)
    value = float(differences.mean())
    return Difference(value, float(low), float(high), _p_value(means, value), len(differences))


def crossed_mean(
    table: np.ndarray,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean over seeds and items: both are resampled, each by itself (every seed met the same items).

    With three seeds an interval is rough, and too narrow rather than too wide: it has seen three seeds.

    Args:
        table: (seeds, items).
        clusters: per item, see `bootstrap_mean`.

    Raises:
        DocumentError: as for `bootstrap_mean`.
    """
    sums, sizes, item_weights = _draw_items(table, clusters, resamples, seed)
    means = _average(sums, sizes, item_weights, np.random.default_rng([seed, 1]))
    low, high = np.quantile(means, ENDS)
    return Interval(float(table.mean()), float(low), float(high), table.shape[1])


def crossed_difference(
    a: np.ndarray,
    b: np.ndarray,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 4000,
    seed: int = 0,
) -> Difference:
    """Mean of `a` less mean of `b`: two recipes, each with seeds of its own, on the same items.

    Items are resampled together. Seeds are too few to be resampled (of three, the spread would come out a fifth too small, and its
    tails much too light), so their part is drawn as Welch (1947) has it: Student's t with the standard error of the two means of
    seeds. A recipe with one seed adds nothing: the difference is then about that run.

    Args:
        a, b: (seeds, items); they may have different numbers of seeds.

    Raises:
        DocumentError: not the same number of items, or as for `bootstrap_mean`.
    """
    if a.shape[1] != b.shape[1]:
        raise DocumentError(f"A paired comparison needs the same items twice: found {a.shape[1]} and {b.shape[1]} values.")
    columns, sizes = _cluster(np.concatenate([a, b]).T, clusters)
    gaps = columns[:, : len(a)].mean(axis=1) - columns[:, len(a) :].mean(axis=1)
    weights = _draw_item_counts(seed, len(sizes), resamples)
    means = (weights @ gaps) / (weights @ sizes) + _draw_seed_noise((a, b), resamples, seed)
    low, high = np.quantile(means, ENDS)
    value = float(a.mean() - b.mean())
    return Difference(value, float(low), float(high), _p_value(means, value), a.shape[1])


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """p-values such that rejecting those below a level errs anywhere at most that often: Holm (1979), whatever their dependence."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _draw_seed_noise(tables: Sequence[np.ndarray], resamples: int, seed: int) -> np.ndarray:
    """What other seeds would have added to the difference of two means, one draw per resample."""
    parts = [(table.mean(axis=1).var(ddof=1) / len(table), len(table) - 1) for table in tables if len(table) > 1]
    variance = sum(part for part, _ in parts)
    if not variance:
        return np.zeros(resamples)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    return np.sqrt(variance) * np.random.default_rng([seed, 1]).standard_t(freedom, size=resamples)


def _draw_items(
    table: np.ndarray, clusters: Sequence[Hashable] | None, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, items) -> sums (rows, clusters), sizes (clusters), how often each cluster is drawn (resamples, clusters)."""
    columns, sizes = _cluster(table.T, clusters)
    return columns.T, sizes, _draw_item_counts(seed, len(sizes), resamples)


@lru_cache(maxsize=4)
def _draw_item_counts(seed: int, size: int, resamples: int) -> np.ndarray:
    # the same for every recipe and every score that are compared on the same items
    return _draw_counts(np.random.default_rng(seed), size, resamples)


def _average(sums: np.ndarray, sizes: np.ndarray, item_weights: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Means over drawn rows and drawn clusters, one per resample."""
    row_weights = _draw_counts(generator, len(sums), len(item_weights))
    totals = np.einsum("rs,sc,rc->r", row_weights, sums, item_weights, optimize=True)
    return totals / (len(sums) * (item_weights @ sizes))


def _p_value(means: np.ndarray, value: float) -> float:
    # One is added so that it never is zero; what differs from the value in the last digits only is as far away as it is.
    beyond = int((np.abs(means - value) >= abs(value) - 1e-12).sum())
    return (beyond + 1) / (len(means) + 1)


def _draw_counts(generator: np.random.Generator, size: int, resamples: int) -> np.ndarray:
    # How often each cluster is drawn is multinomial: drawing the counts needs no table of resamples x items indices.
    return generator.multinomial(size, np.full(size, 1 / size), size=resamples).astype(np.float64)


def _resampled_means(values: np.ndarray, clusters: Sequence[Hashable] | None, resamples: int, seed: int) -> np.ndarray:
    """(items, columns) -> (resamples, columns): means of samples of whole clusters, each item weighing the same."""
    sums, sizes = _cluster(values, clusters)
    weights = _draw_counts(np.random.default_rng(seed), len(sizes), resamples)
    return (weights @ sums) / (weights @ sizes)[:, None]


def _cluster(values: np.ndarray, clusters: Sequence[Hashable] | None) -> tuple[np.ndarray, np.ndarray]:
    """(items, columns) -> sums (clusters, columns) and sizes (clusters)."""
    if len(values) == 0:
        raise DocumentError("No values to average: the figure has no items. Check the split and the filter of its prompts.")
    if not np.isfinite(values).all():
        raise DocumentError(f"{int((~np.isfinite(values)).sum())} of {values.size} values are not finite: a metric is broken.")
    if clusters is not None and len(clusters) != len(values):
        raise DocumentError(f"Found {len(clusters)} cluster names for {len(values)} values: expected one per value.")
    names = range(len(values)) if clusters is None else clusters
    places: dict[Hashable, int] = {}
    index = np.array([places.setdefault(name, len(places)) for name in names])
    sums = np.zeros((len(places), values.shape[1]))
    np.add.at(sums, index, values)
    return sums, np.bincount(index, minlength=len(places)).astype(np.float64)
