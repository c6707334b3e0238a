"""A curriculum: jobs in order in one command, each handed over by the folder it leaves, resumable at any point.

A stage is a name, the config of its command (train, encode, evaluate, report) and overrides; `<name>` in an override is the
folder of an earlier stage. Stop it anywhere and start it again: a finished stage whose config and parents are the same is
skipped, an unfinished one goes on from its last checkpoint, and one whose config has changed is set aside and made anew.
Nothing is deleted.

It does not know what the stages do. The same seed, the same code and the same config give the same stage; a change of *code* is
not noticed (the passport of each stage names its commit): remove the folder of a stage to make it again.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.composing.own_files import check_files
from lightning_modules.folders.records import LAST, read_job
from lightning_modules.folders.run_folder import goes_on, set_aside
from lightning_modules.processes.device_queue import Job, find_failure, run_queue
from lightning_modules.processes.process_group import count_processes, run_alone, run_in_group
from lightning_modules.running.launch import adopt_run, config_hash, launch
from lightning_modules.running.refusals import explain
from lightning_modules.running.starting import start_from
from lightning_modules.tracking.mirroring.job import list_typed
from plait.errors import RecipeError

REFERENCE = re.compile(r"<([\w-]+)>")
PRIVATE = ("curriculum", "name=", "paths.folder=", "job.")
"""Overrides of the command line that are about the curriculum itself."""
SHARED_OUT = ("train", "encode")
"""Commands whose work the processes of a trainer share."""

log = logging.getLogger(__name__)


@goes_on
def run_curriculum(
    *,
    stages: Sequence[Mapping[str, Any]],
    folder: str,
    overrides: Sequence[str] = (),
    trainer: str | None = None,
    at_once: int = 1,
    closing: Callable[[], str] | None = None,
    group: str | None = None,
    apart: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Run the stages that are not finished; the job of `plait-train curriculum=...`.

    Args:
        stages: each {name, config, overrides, takes_overrides}; what works on a finished run takes its recipe from there, and
            those of the command line do not concern it (`takes_overrides: false`).
        folder: of the curriculum; a stage works in `folder/<name>`.
        overrides: for every stage, after its own (those of the command line).
        trainer: of the stages that train or encode, where the overrides name none. Every stage then runs in processes of its own,
            these in as many as their trainer shares them among (trainer=ddp: one per GPU). None runs all of them in this process.
        at_once: how many neighbours that do not start from each other run side by side, each in a process of its own; what they print
            goes to `folder/<name>.log`.
        closing: what is said when all have finished.
        group: of every stage in W&B; None takes the name of the folder, and a `group=` among the overrides wins.
        apart: what tells this curriculum from others of a study (arm, seed), for the names of its stages in W&B.

    Returns:
        stage name -> its folder.

    Raises:
        RecipeError: two stages share a name, or a stage refers to one that does not come before it.
        FailedJobsError: a stage failed in a process of its own.
    """
    check_stages(stages)
    shared = [item for item in overrides if not item.lstrip("+~").startswith(PRIVATE)]
    default = () if trainer is None or any(item.startswith("trainer=") for item in shared) else (f"trainer={trainer}",)
    group = next((item.partition("=")[2] for item in reversed(shared) if item.startswith("group=")), group or Path(folder).name)
    typed = shared
    if HydraConfig.initialized() and list(HydraConfig.get().overrides.task) == list(overrides):
        typed = [item for item in list_typed() if not item.lstrip("+~").startswith(PRIVATE)]
    folders: dict[str, str] = {}
    keys: dict[str, str] = {}
    for neighbours in _group(stages) if at_once > 1 else [[stage] for stage in stages]:
        jobs = []
        for stage in neighbours:
            name, takes = stage["name"], stage.get("takes_overrides", True)
            place, kind = Path(folder) / name, stage.get("config", "train")
            own = [REFERENCE.sub(lambda match: folders[match[1]], item) for item in stage.get("overrides", ())]
            if kind in SHARED_OUT and not any(item.startswith("trainer=") for item in own):
                own = [*default, *own]
            config = compose_job(kind, [*own, *(shared if takes else ()), f"paths.folder={place}"])
            adopt_run(config)
            start_from(config)
            if "group" in config and config.group is None:
                config.group = group
            log.info("curriculum, %d of %d: %s", len(folders) + 1, len(stages), name)
            key = _stage_key(config, {parent: keys[parent] for parent in _parents(stage)})
            start = launch
            if trainer is not None:
                start = partial(_launch_in_group, count_processes(config.trainer) if kind in SHARED_OUT else None)
            start = partial(start, stage=name, overrides=[*own, *(typed if takes else ())], apart=dict(apart or {}))
            jobs.append(partial(run_stage, config, place, key, start=start))
            folders[name] = str(place)
        names = [stage["name"] for stage in neighbours]
        records = (
            [job() for job in jobs]
            if at_once == 1
            else _run_beside_each_other(dict(zip(names, jobs, strict=True)), folder, at_once)
        )
        keys |= {name: f"{record['key']} {record['id']}" for name, record in zip(names, records, strict=True)}
    if closing is not None:
        print(closing())
    return folders


def run_stage(
    config: DictConfig,
    place: Path,
    key: str,
    given: Mapping[str, Any] | None = None,
    start: Callable[..., Any] = launch,
) -> dict[str, Any]:
    """Skip, resume or start one stage, whichever its folder calls for; returns the record of the finished job.

    Args:
        key: what the stage computes; a folder with another one is set aside.
        given: see `launch`.
        start: what runs the job, called as `launch` is.
    """
    found = read_job(place) or {}
    if found.get("key") == key and found["state"] == "finished":
        log.info("already finished: %s", place)
        return found
    Assembly(config, given).look_over("job")  # what is refused leaves everything in its place
    if place.exists() and found.get("key") != key:
        log.info("the config or a parent of this stage is another one now: %s", place)
        set_aside(place).release(is_unused=True)
    elif place.exists() and (place / LAST).exists():
        config.checkpoint = "last"
    start(config, given, key=key)
    return read_job(place)


def compose_job(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose a config as the command line would, inside a running command or outside of one.

    Raises:
        RecipeError: an override does not fit.
    """
    try:
        if GlobalHydra.instance().is_initialized():
            config = compose(config_name, overrides=list(overrides))
            check_files(config, config_name, list(overrides))
            return config
        with initialize_config_module("plait.conf", version_base="1.3"):
            return compose(config_name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        refusal = explain(error) if isinstance(error, HydraException) else error
        raise RecipeError(f"{config_name} does not compose with {' '.join(overrides)}: {refusal}") from error


def check_stages(stages: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a stage without a name, a name used twice and a reference to what does not come before, ahead of all work.

    Raises:
        RecipeError: see above.
    """
    seen: list[str] = []
    for stage in stages:
        unknown = sorted(set(stage) - {"name", "config", "overrides", "takes_overrides"})
        if unknown or not stage.get("name"):
            raise RecipeError(f"Curriculum stage {dict(stage)}: expected the keys name, config, overrides, takes_overrides.")
        if stage["name"] in seen:
            raise RecipeError(
                f"Two stages of the curriculum are called {stage['name']!r}: names are folders, give each its own."
            )
        missing = [name for name in _parents(stage) if name not in seen]
        if missing:
            raise RecipeError(
                f"Stage {stage['name']!r} refers to <{missing[0]}>, but before it come only {seen or 'no stages'}."
            )
        seen.append(stage["name"])


def _group(stages: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Neighbours of which none starts from another, in order."""
    groups: list[list[Mapping[str, Any]]] = []
    for stage in stages:
        if not groups or {other["name"] for other in groups[-1]}.intersection(_parents(stage)):
            groups.append([])
        groups[-1].append(stage)
    return groups


def _run_beside_each_other(jobs: Mapping[str, Callable[[], Any]], folder: str, at_once: int) -> list[Any]:
    """What the jobs return, each from a process of its own."""
    queue = [
        Job(number, name, partial(run_alone, run), Path(folder, f"{name}.log"))
        for number, (name, run) in enumerate(jobs.items(), start=1)
    ]
    outcomes = run_queue(queue, [None] * min(at_once, len(queue)))
    if failure := find_failure(queue, outcomes):
        raise failure
    return [outcome.value for outcome in outcomes]


def _launch_in_group(ranks: int | None, config: DictConfig, given: Mapping[str, Any] | None, **facts: Any) -> None:
    def run() -> None:  # without the value: metrics of a training are in its folder
        launch(config, given, **facts)

    run_in_group(run, ranks)


def _parents(stage: Mapping[str, Any]) -> list[str]:
    return sorted({name for item in stage.get("overrides", ()) for name in REFERENCE.findall(item)})


def _stage_key(config: DictConfig, parents: Mapping[str, str]) -> str:
    """What a stage computes: its config, and the very runs that it starts from."""
    text = json.dumps([config_hash(config), dict(sorted(parents.items()))])
    return hashlib.sha256(text.encode()).hexdigest()
