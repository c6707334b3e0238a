"""How sure a figure is: bootstrap intervals for one mean and for the difference of two.

Items that share a picture or a story are not independent, so both functions resample whole clusters where clusters are given.
The interval is the percentile bootstrap (Efron 1979). It knows only what it saw: where all values are equal it has no width,
whatever n is, which is why every figure is printed with its n. Nothing here knows what a value means.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from plait.errors import DocumentError


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
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Mean of `values` with its percentile bootstrap interval.

    Args:
        values: one number per item.
        clusters: per item the name of the group that is drawn as a whole (picture, story); None: every item on its own.
        level: share of the bootstrap means between `low` and `high`.
        seed: the resampling is a pure function of it.

    Raises:
        DocumentError: no values, a value that is not finite, or not one cluster per value.
    """
    means = _resampled_means(np.asarray(values, dtype=np.float64)[:, None], clusters, resamples, seed)[:, 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean(values)), float(low), float(high), len(values))


def paired_bootstrap(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    """Mean of `a - b`, item by item: two models on the same prompts.

    The p-value counts twice the resamples on the far side of zero, plus one so that it never is zero.

    Raises:
        DocumentError: `a` and `b` are not of one length, or as for `bootstrap_mean`.
    """
    if len(a) != len(b):
        raise DocumentError(f"A paired comparison needs the same items twice: found {len(a)} and {len(b)} values.")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    means = _resampled_means(differences[:, None], clusters, resamples, seed)[:, 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p_value = min(1.0, 2 * (beyond + 1) / (resamples + 1))
    return Difference(float(differences.mean()), float(low), float(high), p_value, len(differences))


def _resampled_means(values: np.ndarray, clusters: Sequence[Hashable] | None, resamples: int, seed: int) -> np.ndarray:
    """(items, columns) -> (resamples, columns): means of samples of whole clusters, each item weighing the same."""
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
    sizes = np.bincount(index, minlength=len(places)).astype(np.float64)
    generator = np.random.default_rng(seed)
    # How often each cluster is drawn is multinomial: drawing the counts needs no table of resamples x items indices.
    weights = generator.multinomial(len(places), np.full(len(places), 1 / len(places)), size=resamples).astype(np.float64)
    return (weights @ sums) / (weights @ sizes)[:, None]
