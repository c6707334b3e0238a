"""Choosing how to sample, on val and nowhere else: the image policy that draws most val scenes of two objects rightly."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from plait.errors import RecipeError
from plait.evaluation.bench import Bench
from plait.evaluation.figures import MAIN
from plait.evaluation.generation import draw_captions
from plait.protocols import Policy


@dataclass(frozen=True)
class Choice:
    """The chosen image policy and what every candidate reached on val."""

    name: str
    policy: Policy
    shares: dict[str, float]


def choose_image_policy(bench: Bench, candidates: Mapping[str, Policy], n: int = 96) -> Choice:
    """Draw the same `n` val captions of two objects under every candidate; the best share of wholly right pictures wins, the
    earlier candidate among equals.

    Args:
        bench: its image policy is ignored.
        candidates: name -> policy.

    Raises:
        RecipeError: there is no candidate.
    """
    if not candidates:
        raise RecipeError("No image policy to choose from: give at least one candidate.")
    shares = {}
    for name, policy in candidates.items():
        trial = replace(bench, policies={**bench.policies, "image": policy}, n=n)
        documents = trial.take(bench.world.source("two_objects", "val"), name=lambda document: document.text)
        records = draw_captions(trial, "val/tuning", documents)
        shares[name] = sum(record.scores[MAIN] for record in records) / len(records)
    best = max(shares, key=lambda name: shares[name])
    return Choice(best, candidates[best], shares)
