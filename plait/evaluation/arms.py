"""Arms side by side: every figure over seeds and items, and how far each arm is from the reference arm.

An arm is a recipe that ran with several seeds; all runs were examined on the same items in the same order (checked). It does not
know what was varied, nor where runs lie.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from plait.errors import DocumentError
from plait.evaluation.figures import MAIN
from plait.evaluation.statistics import crossed_difference, crossed_mean

Items = Mapping[str, Sequence[Mapping[str, Any]]]
"""figure name -> judged items {expected, cluster, scores, and asked, part_of where they are}, as the evaluation of one run writes them"""

Runs = Mapping[str, Mapping[Hashable, Items]]
"""arm -> seed, or whatever tells its runs apart -> items"""


def compare_arms(runs: Runs, reference: str) -> dict[str, dict[str, Any]]:
    """arm -> figure -> {value, low, high, n, seeds: {seed: mean}} and, beside the reference, `minus_reference`: {value, low, high,
    p_value}. Intervals are 95 %, over seeds and items. A figure counts the runs that were examined on it; `seeds` names them.
    Scores that only some items of some runs have, because of what a model wrote (the closing answers of stories), are left out.

    Args:
        reference: the arm that the others are compared with.

    Raises:
        DocumentError: there is no run of the reference arm, or two runs were not asked the same.
    """
    if not runs.get(reference):
        raise DocumentError(f"No run of the reference arm {reference!r} has finished; finished are {sorted(runs) or 'none'}.")
    for key in dict.fromkeys(key for items in runs[reference].values() for key in items):
        check_same(
            key, {(arm, seed): items[key] for arm, seeds in runs.items() for seed, items in seeds.items() if key in items}
        )
    tables = {arm: {seed: dict(_tabulate(items)) for seed, items in seeds.items()} for arm, seeds in runs.items()}
    results: dict[str, dict[str, Any]] = {arm: {} for arm in runs}
    for key in dict.fromkeys(key for table in tables[reference].values() for key in table):
        asked = {arm: {seed: table[key] for seed, table in seeds.items() if key in table} for arm, seeds in tables.items()}
        members = [places for seeds in asked.values() for places, *_ in seeds.values()]
        if any(places != members[0] for places in members):
            continue
        _, clusters, _ = next(iter(asked[reference].values()))
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


def check_same(key: str, runs: Mapping[tuple[str, Hashable], Sequence[Mapping[str, Any]]]) -> None:
    """Raises:
    DocumentError: two runs were not asked the same items of a figure.
    """
    (first, items), *others = runs.items()
    names = [item.get("asked") or item["expected"] for item in items]
    for (arm, seed), other in others:
        if [item.get("asked") or item["expected"] for item in other] != names:
            raise DocumentError(
                f"{key}: {arm}, seed {seed} was not asked the {len(names)} items of {first[0]}, seed {first[1]}. Expected one n and "
                "one seed of the evaluation for all runs. Next: evaluate that run anew."
            )


def _tabulate(items: Items) -> Iterator[tuple[str, tuple[list[int], list[str], np.ndarray]]]:
    """figure, or figure_<score>, -> places of its items, clusters, values; averages of figures follow their parts."""
    wholes: dict[str, list[tuple[list[str], np.ndarray]]] = {}
    for key, listed in items.items():
        for score in dict.fromkeys(name for item in listed for name in item["scores"]):
            places = [index for index, item in enumerate(listed) if score in item["scores"]]
            clusters = [listed[index]["cluster"] for index in places]
            values = np.array([listed[index]["scores"][score] for index in places], dtype=np.float64)
            yield key if score == MAIN else f"{key}_{score}", (places, clusters, values)
            whole = listed[0].get("part_of")
            if whole and score == MAIN:
                wholes.setdefault(whole, []).append((clusters, values))
    for whole, parts in wholes.items():
        total = sum(len(values) for _, values in parts)
        # every part weighs the same, whatever its number of items
        values = np.concatenate([values * total / (len(parts) * len(values)) for _, values in parts])
        yield whole, (list(range(total)), [name for clusters, _ in parts for name in clusters], values)
