"""What a model has kept of the one that it was trained from: ratios of the same figures on the same items, text and pictures alike.

1 keeps all, more gains. Of a loss it is the base's over the model's, of anything else the model's over the base's. Items are resampled
together (the two models met the same ones), whole pictures and stories at a time.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from plait.errors import DocumentError, RecipeError
from plait.evaluation.figures import MAIN, Figure, skip
from plait.evaluation.statistics import bootstrap_ratio

Items = Mapping[str, Sequence[Mapping[str, Any]]]
"""figure name -> judged items, each with its scores, what was expected, and its cluster"""
KEPT = "kept"


def keep_shares(items: Items, base: Items, losses: Collection[str]) -> dict[str, Figure]:
    """Retention in every figure that both models have.

    Args:
        items, base: of the model and of its base.
        losses: names of figures of which less is better.

    Returns:
        `<figure>_kept`, skipped where the base has so little of it that a resample has none.

    Raises:
        DocumentError: the base was examined on other items.
        RecipeError: the two evaluations share no figure.
    """
    figures: dict[str, Figure] = {}
    for key in items:
        asked, there = ([(item["expected"], item["cluster"]) for item in found.get(key, ())] for found in (items, base))
        scored = [[item["scores"].get(MAIN) for item in found.get(key, ())] for found in (items, base)]
        if not there or None in (*scored[0], *scored[1]):
            continue
        if asked != there:
            raise DocumentError(
                f"{key}: the base was examined on {len(there)} other items than the model ({len(asked)}). Expected the same prompts: "
                "evaluate both with the same n and seed, on the same data."
            )
        over, under = reversed(scored) if key.rpartition("/")[2] in losses else scored
        try:
            ratio = bootstrap_ratio(over, under, [cluster for _, cluster in asked])
        except DocumentError as error:
            figures |= skip(f"{key}_{KEPT}", len(asked), str(error))
            continue
        figures[f"{key}_{KEPT}"] = Figure(ratio.value, ratio.low, ratio.high, ratio.n)
    if not figures:
        raise RecipeError(
            f"The evaluations share no figure: the model has {sorted(items)}, its base {sorted(base)}. Expected the same data in both. "
            "Next: evaluate the base on the data that the model is evaluated on."
        )
    return figures
