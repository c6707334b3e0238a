"""The one place where a job runs: its folder, the check of its recipe, seeds, bases, the job, and a record of how it ended.

A job is the node `job` of a config: building that node runs it. This file does not know what a job does nor which system it is
about; `fit` is the job that trains, the others are functions of the library named by conf/encode.yaml, evaluate.yaml and so on.
"""

import logging
import math
import time
import warnings
from collections.abc import Mapping
from typing import Any

import lightning
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lightning_modules.callbacks.same_job import SameJob
from lightning_modules.composing.config_checks import check_config, collect_nodes
from lightning_modules.composing.instantiate import Assembly, locate, spell_missing
from lightning_modules.composing.licences import find_licences
from lightning_modules.composing.own_files import check_command
from lightning_modules.folders.going_on import accept_checkpoint, find_data
from lightning_modules.folders.identity import UNHASHED, config_hash, resolve
from lightning_modules.folders.lineage import trace_parents, write_lineage
from lightning_modules.folders.records import last_checkpoint
from lightning_modules.folders.run_folder import (
    GOES_ON,
    Intent,
    Stay,
    choose_folder,
    drop_empty_folder,
    enter_together,
    slurm_job,
)
from lightning_modules.processes.interruption import terminations_interrupt
from lightning_modules.processes.process_group import is_member
from lightning_modules.processes.ranks import SHARED, check_start, check_trainer, own_rank, shake_hands
from lightning_modules.running.device import check_trainer_device, choose_device, place_parts
from lightning_modules.running.starting import find_differences, read_model, spell, start_from
from lightning_modules.tracking.mirroring.job import check_mirror, mirrored, named_variables
from lightning_modules.training.checkpoint_io import FolderCheckpointIO
from lightning_modules.training.endings import describe_ending
from plait.checkpoints import bounded_by, load_weights, read_manifest
from plait.errors import CheckpointError, PlaitError, RecipeError

log = logging.getLogger(__name__)


def run_command(config: DictConfig) -> Any:
    """What every console command does.

    Returns:
        The metric named by `optimized_metric`, for hyperparameter searches; otherwise nothing.

    Raises:
        RecipeError: a value is missing in the config or refers to one that is not there, or no metric has that name.
    """
    # Lightning advertises there; what a person needs to know comes from the ledger and the log of the job
    # (and who is which of the processes, and that fonts are collected)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.distributed", "matplotlib.font_manager"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if own_rank() != 0:  # one voice; what goes wrong is said by every rank
        logging.getLogger().setLevel(logging.WARNING)
    try:
        if OmegaConf.select(config, "paths.folder") is not None:
            drop_empty_folder(config)
        check_command(config)
        result = launch(config)
    except OmegaConfBaseException as error:
        raise RecipeError(spell_missing(error.full_key, error)) from error
    finally:
        drop_empty_folder(config)
    metric = config.get("optimized_metric")
    return read_metric(result, metric) if metric else None


def read_metric(result: Any, name: str) -> float:
    """The objective of a search among the metrics that a job returned.

    Raises:
        RecipeError: it has no such metric, or the number is not finite, which no search can rank.
    """
    metrics = result if isinstance(result, Mapping) else {}
    value = metrics.get(name)
    if not isinstance(value, float) or not math.isfinite(value):
        raise RecipeError(
            f"optimized_metric={name} is {value}, expected a finite number under one of {', '.join(metrics) or 'no names at all'}. "
            "Next: name a metric of training; for val/loss a validation must fall within trainer.max_steps."
        )
    return value


def launch(config: DictConfig, given: Mapping[str, Any] | None = None, **facts: Any) -> Any:
    """Run the job of a config in its own folder and return what it returns.

    Args:
        config: composed; its `paths.folder` is filled in.
        given: path of a node -> object that stands for it (a callback of a notebook, say).
        facts: what the caller wants to find again in the record of the job.

    Raises:
        RecipeError: the config names no recipe, a key that nobody reads, a forbidden target, a machine that is not there, or a base
            that is not there; or the processes of this job are not about the same.
    """
    check_config(OmegaConf.to_container(config, resolve=False))
    adopt_run(config)
    if config.get("job") is None:
        raise RecipeError("No recipe chosen. Expected experiment=<system>/<name> or curriculum=<name>; `--help` lists them.")
    start_from(config)
    check_machine(config)
    check_mirror(config)
    assembly = Assembly(config, given)
    check_bases(config)
    check_data(config)
    if not isinstance(config.seed, int) or not 0 <= config.seed < 2**32:
        raise RecipeError(f"seed is {config.seed!r}, expected a whole number from 0 to {2**32 - 1}. Next: set seed=<number>.")
    config.paths.folder = choose_folder(config)
    assembly.look_over("job")
    identity = {"config_hash": config_hash(config)}
    identity["job_id"], config.paths.folder = shake_hands(identity["config_hash"], config.paths.folder)
    stay = enter_together(config.paths.folder, describe_intent(config, identity["config_hash"]))
    try:
        return run_in_folder(config, assembly, {**identity, "job_id": stay.before.get("id", identity["job_id"])}, stay, facts)
    finally:
        stay.leave()


def run_in_folder(
    config: DictConfig, assembly: Assembly, identity: Mapping[str, str], stay: Stay, facts: Mapping[str, Any]
) -> Any:
    """The job of a config in a folder that it holds: what it goes on from is accepted first, then its record is opened and the job run."""
    if stay.is_done:
        log.info("already finished, nothing to do: %s", stay.folder)
        return None
    if stay.checkpoint is not None:
        config.checkpoint = str(stay.checkpoint)
    with named_variables():
        stored = resolve(config)
    data = find_data(config, stored, assembly) if trains(config) else None
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    parents = load_bases(config, assembly)
    origins = trace_parents({part: last_checkpoint(config.base[part]) for part in parents})
    assembly.objects |= {"facts.parents": parents, "facts.config": stored, "facts.identity": identity}
    record = {
        **facts,
        "id": identity["job_id"],
        "job": config.job._target_,
        "name": config.name,
        "config_hash": identity["config_hash"],
        "data": data,
        "slurm_job": slurm_job(),
        "started": time.time(),
    }
    if trains(config) and config.get("checkpoint") not in (None, "last"):
        record |= accept_checkpoint(config, stored, assembly, parents, data, stay.before)
    record = stay.begin(record, OmegaConf.to_yaml(config))
    write_lineage(stay.folder, record, origins)
    try:
        with terminations_interrupt(), mirrored(config, assembly) as mirror:
            mirror.tell(stored, parents, facts)
            job = assembly.prepare("job")
            if not trains(config):
                place_parts(config, assembly)
            result = job()
    except BaseException as error:
        is_stop = isinstance(error, KeyboardInterrupt | SystemExit)
        reason = error.__context__ if isinstance(error, SystemExit) and error.__context__ is not None else error
        stay.end(record, {"state": "interrupted" if is_stop else "failed", "error": repr(reason)})
        if isinstance(error, PlaitError):
            stay.is_refused = True
        raise
    write_lineage(stay.folder, record, origins)
    ending = result.ending if isinstance(result, Metrics) else {"state": "finished"}
    duration_s = stay.end({**record, "parents": parents}, ending)
    log.info("%s in %.0f s: %s", " ".join(ending.values()), duration_s, stay.folder)
    return result


def describe_intent(config: DictConfig, job_hash: str) -> Intent:
    """What the folder of a job has to know of it."""
    return Intent(
        job=config.job._target_,
        name=config.name,
        config_hash=job_hash,
        trains=trains(config),
        goes_on=getattr(locate(config.job._target_, "job"), GOES_ON, False),
        checkpoint=config.get("checkpoint") if trains(config) else None,
    )


def trains(config: DictConfig) -> bool:
    """Whether the job of a config is training."""
    return config.job._target_ == f"{fit.__module__}.{fit.__name__}"


class Metrics(dict[str, float]):
    """The metrics of the last step, and how training ended (`ending`: state and, where it is not finished, why)."""

    ending: Mapping[str, str]


def fit(
    *,
    stage: lightning.LightningModule,
    data: lightning.LightningDataModule,
    trainer: Any,
    callbacks: Mapping[str, Any],
    loggers: Mapping[str, Any],
    folder: str,
    checkpoint: str | None = None,
    config: Mapping[str, Any] | None = None,
    parents: Mapping[str, str] | None = None,
    identity: Mapping[str, str] | None = None,
) -> Metrics:
    """Train a stage; the job of `plait-train`.

    Args:
        trainer: a partial `lightning.pytorch.Trainer`; it receives callbacks and loggers here.
        folder: of the run.
        checkpoint: what to resume from: None, "last" (of this folder), or a checkpoint folder.
        config: the resolved config, for the manifest of checkpoints.
        parents: part -> identity of the base it started from, likewise.
        identity: job_id and config_hash, which all ranks must share; None checks nothing.

    Returns:
        The metrics of the last step, and how training ended.

    Raises:
        RecipeError: the Trainer counts other processes than were started.
    """
    path = str(last_checkpoint(folder)) if checkpoint == "last" else checkpoint
    lineage = [{"part": part, "identity": identity} for part, identity in (parents or {}).items()]
    try:
        engine = trainer(
            callbacks=[*([SameJob(identity)] if identity else ()), *callbacks.values()],
            logger=list(loggers.values()),
            plugins=[FolderCheckpointIO(config=config, parents=lineage)],
            default_root_dir=folder,
        )
    except (MisconfigurationException, ValueError) as error:
        raise RecipeError(
            f"Lightning refuses the trainer: {error} Expected settings that this machine can serve. "
            "Next: choose another trainer=<cpu, gpu or ddp>, or change trainer.<setting>."
        ) from error
    check_trainer(engine)
    with warnings.catch_warnings():
        # Lightning 2.6 calls a name that torch has deprecated: nothing that a reader of the log could act on
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")
        # means are taken over all ranks before they are logged
        warnings.filterwarnings("ignore", message=r".*sync_dist=True.*")
        engine.fit(stage, datamodule=data, ckpt_path=path)
    metrics = Metrics({name: float(value) for name, value in engine.callback_metrics.items()})
    metrics.ending = describe_ending(engine)
    return metrics


def load_bases(config: DictConfig, assembly: Assembly) -> dict[str, str]:
    """Fill the parts that start from a pretrained base; returns part -> identity of its weights.

    Raises:
        RecipeError: a base is required and not given, is unfinished, or does not fit (with the command that makes it).
    """
    check_bases(config)
    parents = {}
    model = None if OmegaConf.is_missing(config.base, "model") else config.base.get("model")
    run = (
        OmegaConf.select(config, "paths.folder") if trains(config) else None
    )  # only what trains keeps something beside its weights
    assembly.objects["facts.folders"] = {"run": run, "model": model}
    for part in config.base:
        command = _base_command(config, part)
        where = config.base[part]
        if where == "random" and part in config.base_command:
            log.warning("base.%s=random: its weights are untrained. Trained ones: %s", part, config.base_command[part])
        if where is None or where == "random":
            continue
        try:
            checkpoint = last_checkpoint(where)
            manifest = read_manifest(checkpoint)
            if not manifest.is_complete:
                raise RecipeError(
                    f"base.{part}={where} is of a run that has not finished (step {manifest.step}), expected a finished one. "
                    f"{command or 'Next: go on with that run (checkpoint=last).'}"
                )
            with bounded_by(checkpoint):
                module = assembly.build(part)
            load_weights(module, checkpoint, part=part)
        except CheckpointError as error:
            if differences := _compare_with_base(config, part, where):
                raise RecipeError(
                    f"base.{part}={where} is of another size than this recipe: {spell(differences)}. "
                    f"Next: from={where} brings its sizes along."
                ) from error
            raise RecipeError(f"base.{part}={where}: {error} {command}") from error
        parents[part] = manifest.identity
        log.info("base.%s: %s (step %s, %s)", part, checkpoint, manifest.step, manifest.identity[:12])
    return parents


def _compare_with_base(config: DictConfig, part: str, where: str) -> Mapping[str, tuple[Any, Any]]:
    """Where the node of a part differs from that of the run which its weights are of; nothing where that cannot be told."""
    try:
        stored = OmegaConf.to_container(read_model(where, f"base.{part}"), resolve=False)
    except (CheckpointError, RecipeError):
        return {}
    named = {"model", "backbone"} if part == "model" else {part}
    return find_differences(config, {name: stored[name] for name in collect_nodes(stored, ["model"]) & named})


def check_bases(config: DictConfig) -> None:
    """Refuse a recipe whose bases are not all given, before a node that refers to one is resolved.

    Raises:
        RecipeError: with the command that makes the base.
    """
    for part in config.base:
        if OmegaConf.is_missing(config.base, part):
            raise RecipeError(
                f"{config.name} starts from a trained {part}, and base.{part} is not set. {_base_command(config, part)}, then give "
                f"its run folder as base.{part}=<folder>; base.{part}=random asks for untrained weights by name."
            )


def _base_command(config: DictConfig, part: str) -> str:
    return f"Next: {config.base_command[part]}" if part in config.base_command else ""


def adopt_run(config: DictConfig) -> None:
    """Where a config names a `run`, take the nodes that it lacks (model, world, ...) from that run's config, and its weights. A saved
    model stands for a run as far as it goes: it has no data. Where things are written and read is this command's affair, never the run's.

    Raises:
        RecipeError: there is no run in that folder, it has not finished, or its config is not one that is opened (stored.py).
    """
    if "run" not in config and not OmegaConf.is_missing(config, "run"):
        return
    if OmegaConf.is_missing(config, "run"):
        raise RecipeError("Which model? Expected run=<folder of a finished run>, for example run=outputs/demo/instruction.")
    stored = read_model(config.run, "run")
    with open_dict(config):
        config.setdefault("paths", {"root": "outputs", "folder": None, "cache": "${paths.root}/cache"})
        config.setdefault("base_command", {})
        config.setdefault("facts", {"config": {}, "parents": {}, "identity": {}, "folders": {}})
        for key in stored:
            if key not in config:
                config[key] = stored._get_node(key)
        config.base = {**stored.base, "model": config.run}


def check_machine(config: DictConfig) -> None:
    """Refuse a GPU that is not there, and what several processes cannot do (`check_start`)."""
    trainer = config.get("trainer") or {}
    if trains(config):
        check_trainer_device(config.get("device", "auto"), trainer.get("accelerator", "auto"))
    else:
        choose_device(config.get("device", "auto"))
    is_sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    # submitit and a curriculum start every job in processes of its own
    starts_processes = is_member() or (is_sweep and HydraConfig.get().launcher._target_.endswith(".SlurmLauncher"))
    check_start(
        is_shared=trains(config) or getattr(locate(config.job._target_, "job"), SHARED, False),
        is_sweep=is_sweep and not starts_processes,
        strategy=str(trainer.get("strategy", "auto")),
    )


def check_data(config: DictConfig) -> None:
    """Refuse to train on what is there to test on.

    Raises:
        RecipeError: naming it.
    """
    if not trains(config):
        return
    found = [one.what for one in find_licences(resolve(config, leave_out=UNHASHED)) if one.is_for_tests]
    if found:
        raise RecipeError(
            f"{config.name} would train on {' and on '.join(found)}, expected data that may be trained on: these are "
            "never trained on. Next: choose another data=<...>; plait-encode may read them."
        )
