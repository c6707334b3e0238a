"""How the figures of a model grow while it trains: a few columns of the table on few prompts, looked at again and again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from lightning_modules.jobs.bases import Examine
from lightning_modules.jobs.examination import open_oracle
from plait.evaluation.bench import Bench, Codes
from plait.evaluation.blind import BlindAnswers
from plait.evaluation.protocol import EXAMINATIONS, HEADLINES, TEXT_EXAMINATIONS, list_training_scenes
from plait.evaluation.reconstruction import calibrate_oracle
from plait.protocols import Policy


def examine_learning(
    *,
    world: Any,
    codes: Codes,
    text_policy: Policy,
    image_policy: Policy,
    plan: Mapping[str, Sequence[str]],
    n: int = 96,
    seed: int = 0,
) -> Examine:
    """The columns of the common table that some examinations fill; the same prompts and seeds each time.

    Args:
        plan: split -> names of `plait.evaluation.protocol.EXAMINATIONS`.
        n: prompts of each.
    """
    oracle, blind = open_oracle(world), BlindAnswers(list_training_scenes(world, 50))
    policies = {"text": text_policy, "prose": text_policy, "image": image_policy}
    has_pictures = any(name not in TEXT_EXAMINATIONS for names in plan.values() for name in names)
    state = {"is_calibrated": not has_pictures}

    def examine(model: nn.Module, folder: Path) -> Mapping[str, Any]:
        bench = Bench(model, world, oracle, codes, policies, n=n, seed=seed)
        if not state["is_calibrated"]:  # on reconstructions of training pictures: the same at every step
            calibrate_oracle(bench)
            state["is_calibrated"] = True
        found = [EXAMINATIONS[name](bench, blind, split)[0] for split, names in plan.items() for name in names]
        return {key: figure.value for figures in found for key, figure in figures.items() if key.partition("/")[2] in HEADLINES}

    return examine
