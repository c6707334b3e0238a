"""Choosing how to sample, on val and nowhere else: the image policy that draws most val scenes of two objects rightly.

The prompts are others than those whose figure is reported: a policy that was lucky on its prompts would be reported with its luck.
"""

from collections.abc import Mapping
from dataclasses import replace

from plait.errors import RecipeError
from plait.evaluation.bench import Bench
from plait.evaluation.examination import Choice
from plait.evaluation.figures import MAIN
from plait.protocols import Policy
from plait.worlds.emoji.examinations.generation import draw_captions


def choose_image_policy(bench: Bench, candidates: Mapping[str, Policy], n: int = 96) -> Choice:
    """Draw the same `n` val captions of two objects under every candidate; the best share of wholly right pictures wins, the
    earlier candidate among equals.

    Args:
        bench: its image policy is ignored; the first `bench.n` captions are those that it reports, the next are drawn here.
        candidates: name -> policy.

    Raises:
        RecipeError: there is no candidate, or val holds too few captions for both.
    """
    if not candidates:
        raise RecipeError("No image policy to choose from: give at least one candidate.")
    if len(candidates) == 1:
        ((name, policy),) = candidates.items()
        return Choice(name, policy, {})
    found = replace(bench, n=bench.n + n).take(bench.world.source("two_objects", "val"), name=lambda document: document.text)
    documents = found[bench.n :]
    if len(documents) < n:
        raise RecipeError(
            f"val holds {len(found)} different captions of two objects, expected {bench.n} to report (n) and {n} others to choose the "
            "sampler on (tuning_n). Next: lower n or tuning_n, or leave one image policy, which needs no choice."
        )
    shares = {}
    for name, policy in candidates.items():
        trial = replace(bench, policies={**bench.policies, "image": policy}, n=n)
        records = draw_captions(trial, "val/tuning", documents)
        shares[name] = sum(record.scores[MAIN] for record in records) / len(records)
    best = max(shares, key=lambda name: shares[name])
    return Choice(best, candidates[best], shares)
