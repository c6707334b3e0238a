"""How the figures of a model grow while it trains: a few columns of the table on few prompts, looked at again and again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from lightning_modules.jobs.bases import Examine
from lightning_modules.jobs.examination import open_oracle
from plait.evaluation.bench import Bench, Codes
from plait.evaluation.blind import BlindAnswers
from plait.evaluation.figures import MAIN
from plait.evaluation.protocol import EXAMINATIONS, list_training_scenes
from plait.evaluation.reconstruction import calibrate_oracle
from plait.protocols import Policy


def examine_learning(
    *,
    world: Any,
    codes: Codes,
    text_policy: Policy,
    image_policy: Policy,
    examinations: Sequence[str] = ("two_objects", "captions"),
    split: str = "val",
    n: int = 96,
    seed: int = 0,
) -> Examine:
    """The main figures of some examinations; the same prompts and seeds each time.

    Args:
        examinations: names of `plait.evaluation.protocol.EXAMINATIONS`.
        n: prompts of each.
    """
    oracle, blind = open_oracle(world), BlindAnswers(list_training_scenes(world, 50))
    policies = {"text": text_policy, "prose": text_policy, "image": image_policy}
    state = {"is_calibrated": False}

    def examine(model: nn.Module, folder: Path) -> Mapping[str, Any]:
        bench = Bench(model, world, oracle, codes, policies, n=n, seed=seed)
        if not state["is_calibrated"]:  # on reconstructions of training pictures: the same at every step
            calibrate_oracle(bench)
            state["is_calibrated"] = True
        figures = {}
        for name in examinations:
            records = EXAMINATIONS[name](bench, blind, split)[1]
            figures[f"{split}/{name}"] = sum(record.scores[MAIN] for record in records) / len(records)
        return figures

    return examine
