"""Comparison: may a winner be named? Only under one protocol, on the same items, and outside noise.

Rows (configurations with one or more seeds) are compared column by column with a reference row by paired bootstrap (`statistics.py`,
`arms.py`). Many columns are judged at once, and one in twenty equal columns would differ at 0.05 by chance: p-values are adjusted
by Holm's method over all verdicts of the comparison, which keeps the chance of *any* wrong winner at 5 % whatever the dependence of
the columns (they share pictures, prompts and seeds). The interval beside a verdict is of its column alone.

A verdict is about configurations, and what tells one from its luck are its seeds: where either of two rows has fewer than `LEAST_SEEDS`
runs of a column, the difference and its interval over items are given as that, and nobody wins.
It knows neither folders nor what a column means.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from plait.errors import RecipeError
from plait.evaluation.arms import Runs, compare_arms
from plait.evaluation.statistics import adjust_p_values

LEVEL = 0.05
UNDECIDED = "no difference shown"
LEAST_SEEDS = 3
"""of either row; two runs of one recipe differ by more than their items say (reports/demo.md)"""
TOO_FEW = f"no verdict below {LEAST_SEEDS} seeds a row"


def compare(
    runs: Runs, protocols: Mapping[str, Mapping[Any, Mapping[str, Any]]], reference: str, columns: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """As `compare_arms`; in `columns`, `minus_reference` has also `verdict`: the name of a row, `UNDECIDED` or `TOO_FEW`, and
    `p_adjusted` where it was judged; with too few seeds there is no p-value at all.

    Args:
        protocols: row -> seed -> how its figures were made (`plait.evaluation.protocol.describe_protocol`).
        columns: figures that are judged; fixed before the figures are seen. Those that a row lacks are not.

    Raises:
        RecipeError: protocols differ, or the rows share no column.
        DocumentError: two runs were not asked the same items.
    """
    check_protocols({f"{row}, seed {seed}": found for row, seeds in protocols.items() for seed, found in seeds.items()})
    results = compare_arms(runs, reference)
    judged = [
        (row, key, figures[key]["minus_reference"])
        for row, figures in results.items()
        for key in dict.fromkeys(columns)
        if row != reference and key in figures
    ]
    if len(results) > 1 and not judged:
        raise RecipeError(
            f"{list(results)} share none of the columns {list(columns)}: expected evaluations with the same plan. Next: evaluate "
            "them with the same plan."
        )
    for row, key, gap in judged:
        if min(len(results[name][key]["seeds"]) for name in (row, reference)) < LEAST_SEEDS:
            del gap["p_value"]
            gap["verdict"] = TOO_FEW
    judged = [item for item in judged if "verdict" not in item[2]]
    for (row, _, gap), p_value in zip(judged, adjust_p_values([gap["p_value"] for *_, gap in judged]), strict=True):
        is_shown = p_value <= LEVEL and not gap["low"] <= 0 <= gap["high"]
        gap |= {"p_adjusted": p_value, "verdict": (row if gap["value"] > 0 else reference) if is_shown else UNDECIDED}
    return results


def check_protocols(protocols: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises:
    RecipeError: two were not made in the same way; names the fields and both values.
    """
    (first, expected), *others = protocols.items()
    for name, found in others:
        fields = sorted(field for field in {*expected, *found} if expected.get(field) != found.get(field))
        if fields:
            differences = "; ".join(f"{field}: {found.get(field)!r} against {expected.get(field)!r}" for field in fields)
            raise RecipeError(
                f"{name} and {first} were evaluated under different protocols ({', '.join(fields)}): {differences}. Figures of different "
                "protocols are not compared. Next: evaluate both with the same settings (policy=fixed chooses one sampler for all)."
            )
