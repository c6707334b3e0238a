"""How the figures of a model grow while it trains: a few columns of the table on few prompts, looked at again and again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from lightning_modules.jobs.bases import Examine
from lightning_modules.jobs.examination import find_examinations
from plait.data.filling import Pictures
from plait.evaluation.bench import Bench
from plait.protocols import Policy, World


def examine_learning(
    *,
    world: World,
    pictures: Pictures,
    text_policy: Policy,
    image_policy: Policy,
    plan: Mapping[str, Sequence[str]],
    n: int = 96,
    seed: int = 0,
) -> Examine:
    """The columns of the common table that some examinations fill; the same prompts and seeds each time.

    Args:
        plan: split -> names of examinations of the world.
        n: prompts of each.
    """
    names = [name for names in plan.values() for name in names]
    asked = find_examinations(world, names)
    policies = {"text": text_policy, "prose": text_policy, "image": image_policy}
    state = {"is_calibrated": not any(asked.examinations[name].needs_pictures for name in names)}

    def examine(model: nn.Module, folder: Path) -> Mapping[str, Any]:
        bench = Bench(model, world, asked.judge, pictures, policies, n=n, seed=seed)
        if not state["is_calibrated"]:  # on reconstructions of training pictures: the same at every step
            asked.calibrate(bench)
            state["is_calibrated"] = True
        blind = asked.prepare(bench, is_brief=True)
        found = [asked.examinations[name](bench, blind, split)[0] for split, names in plan.items() for name in names]
        return {key: figure.value for figures in found for key, figure in figures.items() if asked.about.is_headline(key)}

    return examine
