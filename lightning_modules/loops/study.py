"""A study: several arms and seeds of one question, each a curriculum of its own behind stages that all of them share.

The job is one arm with one seed; `plait-train -m` runs them all, one after the other. Shared stages (a tokenizer, its codes) are
made by whoever comes first while others wait; an arm and seed that another process works on is left to it. So the same command
started twice shares the work between two cores, and started again it goes on where it was. After each arm the results of all
that has finished are written anew. It does not know what the arms vary: an arm is a list of overrides for the stages that train.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from lightning_modules.folders.ownership import hold
from lightning_modules.folders.run_folder import goes_on
from lightning_modules.jobs.study import collect
from lightning_modules.loops.curriculum import run_curriculum
from plait.errors import RecipeError

OWN = ("experiment=", "arm=", "seed=", "n=", "place=", "paths.", "job.")
"""Overrides of the command line that are about the study itself; the others reach every stage that trains."""

log = logging.getLogger(__name__)


@goes_on
def run_arm(
    *,
    name: str,
    folder: str,
    arm: str,
    seed: int,
    arms: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    reference: str,
    shared: Sequence[Mapping[str, Any]],
    stages: Sequence[Mapping[str, Any]],
    starts_from: Mapping[str, str] | None = None,
    trainer: str | None = None,
    report: str | None = None,
    per_run: Sequence[str] = (),
    group: str | None = None,
    overrides: Sequence[str] | None = None,
) -> bool:
    """Run what is not finished of one arm with one seed, then collect.

    Args:
        folder: of the study: shared stages work in `folder/shared/<stage>`, those of an arm in `folder/<arm>/seed-<seed>/<stage>`.
        arms: arm -> its overrides, for those of `stages` that train. A reference that is to stand in their configs is written with a
            backslash, `\\${seed}`: resolved here it would make every seed a configuration of its own.
        seeds: all seeds of the study.
        reference: the arm that the others are compared with.
        shared, stages: see `run_curriculum`; the seed of `stages` is that of the arm.
        starts_from: arm -> the shared stage that trained what it starts from, whose cost is counted where costs are compared.
        trainer: of the stages that train, where neither their arm nor the command line names one; see `run_curriculum`.
        group: of every job of the study in W&B; None takes its name.
        report: folder for results and sheets; None writes none.
        per_run: see `lightning_modules.jobs.study.collect`.
        overrides: for every stage that trains; None takes those of the command line.

    Returns:
        Whether the arm has finished; False where another process works on it.

    Raises:
        RecipeError: there is no such arm or seed.
    """
    if arm not in arms or seed not in seeds:
        raise RecipeError(f"{name} has no arm {arm!r} with seed {seed}: expected one of {list(arms)} and one of {list(seeds)}.")
    if overrides is None:
        overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    group = group or name
    passed = [item for item in overrides if not item.lstrip("+~").startswith(OWN)]
    place = Path(folder, arm, f"seed-{seed}")
    with hold(Path(folder, "shared")):
        settings = {"overrides": passed, "trainer": trainer, "group": group}
        run_curriculum(stages=shared, folder=str(Path(folder, "shared")), **settings)
    with hold(place, waits=False) as is_mine:
        if not is_mine:
            log.info("%s, seed %d: another process works on it", arm, seed)
            return False
        own = [
            {**stage, "overrides": [*stage["overrides"], f"seed={seed}", *arms[arm]]} if _trains(stage) else stage
            for stage in stages
        ]
        try:
            run_curriculum(stages=own, folder=str(place), apart={"arm": arm, "seed": seed}, **settings)
        except Exception as error:
            # a multirun goes on and raises at its end, hours later
            log.error("%s, seed %d failed: %s", arm, seed, error)
            raise
    if report is not None:
        with hold(Path(folder)):
            collect(
                name=name,
                folder=folder,
                arms=arms,
                seeds=seeds,
                reference=reference,
                report=report,
                starts_from=starts_from or {},
                trainings=[stage["name"] for stage in stages if _trains(stage)],
                per_run=per_run,
            )
    return True


def _trains(stage: Mapping[str, Any]) -> bool:
    return stage.get("config", "train") == "train"
