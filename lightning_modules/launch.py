"""The one place where a job runs: its folder, the check of its recipe, seeds, bases, the job, and a record of how it ended.

A job is the node `job` of a config: building that node runs it. This file does not know what a job does nor which system it is
about; `fit` is the job that trains, the others are functions of the library named by conf/encode.yaml, evaluate.yaml and so on.
"""

import hashlib
import json
import logging
import math
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lightning_modules.callbacks.same_job import SameJob
from lightning_modules.checkpoint_io import FolderCheckpointIO
from lightning_modules.config_checks import check_config
from lightning_modules.devices import check_accelerator
from lightning_modules.instantiate import Assembly
from lightning_modules.licences import find_licences
from lightning_modules.lineage import trace_parents, write_lineage
from lightning_modules.mirroring.job import check_mirror, mirrored, named_variables
from lightning_modules.process_group import is_member
from lightning_modules.ranks import check_start, check_trainer, own_rank, shake_hands
from lightning_modules.recipes import collect_nodes, is_saved_model, read_recipe
from lightning_modules.records import CONFIG_FILE, JOB_FILE, find_neighbours, read_config, read_job, write_job, write_text
from lightning_modules.stored import check_stored
from plait.checkpoints import load_weights, read_manifest
from plait.errors import CheckpointError, RecipeError

UNHASHED = ("paths", "budget", "logger", "callbacks", "checkpoint", "group", "name", "tags", "config", "parents", "overrides")

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
        result = launch(config)
    except OmegaConfBaseException as error:
        raise RecipeError(
            f"{error.full_key or 'the config'}: {str(error).splitlines()[0]}. Expected a value in the config. "
            "Next: set it on the command line or in the experiment; `--cfg job` prints what is there."
        ) from error
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
    check_machine(config)
    check_mirror(config)
    assembly = Assembly(config, given)
    check_bases(config)
    check_data(config)
    if not isinstance(config.seed, int) or not 0 <= config.seed < 2**32:
        raise RecipeError(f"seed is {config.seed!r}, expected a whole number from 0 to {2**32 - 1}. Next: set seed=<number>.")
    started = time.time()
    identity = {"config_hash": config_hash(config)}
    identity["job_id"], config.paths.folder = shake_hands(identity["config_hash"], choose_folder(config))
    folder = Path(config.paths.folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = {**facts, "id": identity["job_id"], "config_hash": identity["config_hash"], "started": started, "pid": os.getpid()}
    write_job(folder, {**record, "state": "running"})
    write_text(folder / CONFIG_FILE, OmegaConf.to_yaml(config))
    try:
        with mirrored(config, assembly) as mirror:
            lightning.seed_everything(config.seed, workers=True, verbose=False)
            parents = load_bases(config, assembly)
            origins = trace_parents({part: last_checkpoint(config.base[part]) for part in parents})
            write_lineage(folder, record, origins)
            with named_variables():
                stored = resolve(config)
            assembly.objects |= {"facts.parents": parents, "facts.config": stored, "facts.identity": identity}
            mirror.tell(stored, parents, facts)
            result = assembly.build("job")
    except BaseException as error:
        is_stop = isinstance(error, KeyboardInterrupt | SystemExit)
        write_job(folder, {**record, "state": "interrupted" if is_stop else "failed", "error": repr(error)})
        raise
    write_lineage(folder, record, origins)
    record |= {"parents": parents, "duration_s": time.time() - started}
    write_job(folder, {**record, "state": "finished"})
    log.info("finished in %.0f s: %s", record["duration_s"], folder)
    return result


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
) -> dict[str, float]:
    """Train a stage; the job of `plait-train`.

    Args:
        trainer: a partial `lightning.pytorch.Trainer`; it receives callbacks and loggers here.
        folder: of the run.
        checkpoint: what to resume from: None, "last" (of this folder), or a checkpoint folder.
        config: the resolved config, for the manifest of checkpoints.
        parents: part -> identity of the base it started from, likewise.
        identity: job_id and config_hash, which all ranks must share; None checks nothing.

    Returns:
        The metrics of the last step.

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
    return {name: float(value) for name, value in engine.callback_metrics.items()}


def last_checkpoint(run: str | Path) -> Path:
    """The checkpoint folder that a path means: itself, or the last one of a run folder.

    Raises:
        CheckpointError: there is neither.
    """
    run = Path(run)
    for candidate in (run, run / "checkpoints" / "last.ckpt"):
        if (candidate / "manifest.json").is_file():
            return candidate
    raise CheckpointError(
        f"{run} holds no checkpoint: expected {run / 'manifest.json'} or {run / 'checkpoints' / 'last.ckpt'}. "
        "Next: check the path, or start without one."
    )


def load_bases(config: DictConfig, assembly: Assembly) -> dict[str, str]:
    """Fill the parts that start from a pretrained base; returns part -> identity of its weights.

    Raises:
        RecipeError: a base is required and not given, is unfinished, or does not fit (with the command that makes it).
    """
    check_bases(config)
    parents = {}
    model = None if OmegaConf.is_missing(config.base, "model") else config.base.get("model")
    assembly.objects["facts.folders"] = {"run": OmegaConf.select(config, "paths.folder"), "model": model}
    for part in config.base:
        command = _base_command(config, part)
        where = config.base[part]
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
            load_weights(assembly.build(part), checkpoint, part=part)
        except CheckpointError as error:
            raise RecipeError(f"base.{part}={where}: {error} {command}") from error
        parents[part] = manifest.identity
        log.info("base.%s: %s (step %s, %s)", part, checkpoint, manifest.step, manifest.identity[:12])
    return parents


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
    stored = read_recipe(config.run) if is_saved_model(config.run) else _read_run(config.run)
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
    check_accelerator(trainer.get("accelerator", "auto"))
    is_sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    # submitit and a curriculum start every job in processes of its own
    starts_processes = is_member() or (is_sweep and HydraConfig.get().launcher._target_.endswith(".SlurmLauncher"))
    check_start(
        trains=config.job._target_ == f"{fit.__module__}.{fit.__name__}",
        is_sweep=is_sweep and not starts_processes,
        strategy=str(trainer.get("strategy", "auto")),
    )


def check_data(config: DictConfig) -> None:
    """Refuse to train on what is there to test on.

    Raises:
        RecipeError: naming it.
    """
    if config.job._target_ != f"{fit.__module__}.{fit.__name__}":
        return
    found = [one.what for one in find_licences(resolve(config, leave_out=UNHASHED)) if one.is_for_tests]
    if found:
        raise RecipeError(
            f"{config.name} would train on {' and on '.join(found)}, expected data that may be trained on: these are "
            "never trained on. Next: choose another data=<...>; plait-encode may read them."
        )


def choose_folder(config: DictConfig) -> str:
    """The run folder: `paths.folder`, or the one that Hydra made for this job.

    Raises:
        RecipeError: there is neither.
    """
    if config.paths.folder is not None:
        return config.paths.folder
    if not HydraConfig.initialized():
        raise RecipeError("paths.folder is not set. Expected a folder for this run; next: add paths.folder=<folder>.")
    folder, here = Path(HydraConfig.get().runtime.output_dir), Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def _read_run(run: str) -> DictConfig:
    record = read_job(run)
    if record is None or not (Path(run) / CONFIG_FILE).is_file():
        raise RecipeError(
            f"run={run} is no run folder: expected {CONFIG_FILE} and {JOB_FILE} in it. Next: check the path, or train one "
            "(plait-train --help)."
        )
    if record["state"] != "finished":
        raise RecipeError(f"run={run} is {record['state']}, expected a finished run. Next: go on with it, or wait.")
    stored = read_config(run)
    check_stored(OmegaConf.to_container(stored, resolve=False), run)
    if "model" not in stored:
        inside = ", ".join(path.parent.name for path in sorted(Path(run).glob(f"*/{JOB_FILE}"))) or "nothing"
        raise RecipeError(f"run={run} holds no model. Expected the folder of a training run; inside are: {inside}.")
    for named, found in find_neighbours(stored, run).items():
        log.info("%s is not here, found beside the run: %s", named, found)
    return stored


def config_hash(config: DictConfig) -> str:
    """sha256 of what a job computes: its resolved config without `UNHASHED`, and the weights that it starts from."""
    counted = resolve(config, leave_out=UNHASHED)
    counted["job"] = {key: value for key, value in counted["job"].items() if key not in (*UNHASHED, "folder", "loggers")}
    counted["base"] = {part: _identity(where) for part, where in OmegaConf.to_container(config.base).items()}
    counted["run"] = _identity(config.get("run"))
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def resolve(config: DictConfig, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """The nodes that the job of a config refers to, directly or through others, with every reference written out."""
    raw = OmegaConf.to_container(config, resolve=False)
    names = collect_nodes(raw, ("job", "name", "tags", "seed", "base"), (*leave_out, "facts"))
    return {name: _plain(config, name) for name in sorted(names)}


def _plain(config: DictConfig, name: str) -> Any:
    if name == "base":  # a base that is missing is reported in its own words
        return OmegaConf.to_container(config.base)
    return OmegaConf.to_container(config[name], resolve=True) if OmegaConf.is_config(config[name]) else config[name]


def _identity(base: str | None) -> str | None:
    try:
        return base if base in (None, "random", "???") else read_manifest(last_checkpoint(base)).identity
    except CheckpointError:
        return base
