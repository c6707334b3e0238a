"""Arms of a study side by side: every figure over seeds and items, and how far each arm is from the reference arm.

An arm is a recipe that ran with several seeds; all runs were examined on the same items in the same order (checked). It does not
know what was varied, nor where runs lie.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from plait.errors import DocumentError
from plait.evaluation.figures import MAIN
from plait.evaluation.statistics import crossed_difference, crossed_mean

Items = Mapping[str, Sequence[Mapping[str, Any]]]
"""figure name -> judged items {expected, cluster, scores}, as the evaluation of one run writes them"""


def compare_arms(runs: Mapping[str, Mapping[int, Items]], reference: str) -> dict[str, dict[str, Any]]:
    """arm -> figure -> {value, low, high, n, seeds: {seed: mean}} and, beside the reference, `minus_reference`: {value, low, high,
    p_value}. Intervals are 95 %, over seeds and items. A figure counts the runs that were examined on it; `seeds` names them.

    Args:
        runs: arm -> seed -> its items.
        reference: the arm that the others are compared with.

    Raises:
        DocumentError: there is no run of the reference arm, or two runs were not asked the same.
    """
    if not runs.get(reference):
        raise DocumentError(f"No run of the reference arm {reference!r} has finished; finished are {sorted(runs) or 'none'}.")
    tables = {arm: {seed: dict(_tabulate(items)) for seed, items in seeds.items()} for arm, seeds in runs.items()}
    results: dict[str, dict[str, Any]] = {arm: {} for arm in runs}
    for key in dict.fromkeys(key for table in tables[reference].values() for key in table):
        asked = {arm: {seed: table[key] for seed, table in seeds.items() if key in table} for arm, seeds in tables.items()}
        names, clusters, _ = next(iter(asked[reference].values()))
        _check_same(key, names, asked)
        stacked = {arm: np.stack([values for *_, values in seeds.values()]) for arm, seeds in asked.items() if seeds}
        for arm, table in stacked.items():
            mean = crossed_mean(table, clusters)
            figure = {"value": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}
            figure["seeds"] = {str(seed): float(row.mean()) for seed, row in zip(asked[arm], table, strict=True)}
            if arm != reference:
                gap = crossed_difference(table, stacked[reference], clusters)
                figure["minus_reference"] = {name: getattr(gap, name) for name in ("value", "low", "high", "p_value")}
            results[arm][key] = figure
    return results


def _tabulate(items: Items) -> Iterator[tuple[str, tuple[list[str], list[str], np.ndarray]]]:
    """figure, or figure_<score>, -> what was asked, clusters, values."""
    for key, listed in items.items():
        for score in dict.fromkeys(name for item in listed for name in item["scores"]):
            members = [item for item in listed if score in item["scores"]]
            names, clusters = ([item[field] for item in members] for field in ("expected", "cluster"))
            values = np.array([item["scores"][score] for item in members], dtype=np.float64)
            yield key if score == MAIN else f"{key}_{score}", (names, clusters, values)


def _check_same(key: str, names: list[str], asked: Mapping[str, Mapping[int, tuple]]) -> None:
    for arm, seeds in asked.items():
        for seed, (found, *_) in seeds.items():
            if found != names:
                raise DocumentError(
                    f"{key}: {arm}, seed {seed} was not asked the {len(names)} items of the reference arm. Expected one n and one "
                    "seed of the evaluation for all runs of a study. Next: evaluate that run anew."
                )
