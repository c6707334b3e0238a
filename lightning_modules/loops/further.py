"""A finished run's model trained a little further, in a notebook: each call is a run of its own that can be stopped and called again.

The recipe, its data and its optimiser are those of the run; it starts from the run's weights, with fresh optimiser state and a new
stretch of data. It does not know what is trained.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lightning_modules.composing.arguments import check_count
from lightning_modules.composing.stored import check_stored
from lightning_modules.folders.records import find_neighbours, read_config
from lightning_modules.loops.curriculum import run_stage
from lightning_modules.processes.interruption import raising_interrupts
from lightning_modules.running.launch import config_hash, fit
from lightning_modules.tracking.loggers import JsonlLogger
from plait.errors import RecipeError
from plait.runs import Run

LEFT_OUT = ("progress", "gallery", "examination")
"""callbacks that a short run in a cell goes without"""


def train_further(
    run: str | Path,
    steps: int,
    folder: str | Path,
    *,
    overrides: Sequence[str] = (),
    callbacks: Mapping[str, Any] | None = None,
) -> Run:
    """Train the model of a finished run `steps` optimiser steps further.

    Stopped (Ctrl-C, the stop button) it finishes the step it is in, saves, and raises KeyboardInterrupt; the same call then goes on
    with the next step, and does nothing once all are done. With other arguments the old folder is set aside and a new run begins.

    Args:
        run: folder of the run; it is only read.
        folder: of the new run.
        overrides: `key=value` for keys of the run's own config, such as stage.optimizer.lr=1e-4.
        callbacks: name -> Lightning callback that joins those of the recipe; not part of what the run is.

    Raises:
        RecipeError: the run has no recipe or has not finished, or an override names no key.
        KeyboardInterrupt: it was stopped.
    """
    config = _extend(read_config(run), Path(run), check_count(steps, "steps"), Path(folder), overrides)
    with open_dict(config):
        config.callbacks.update(dict.fromkeys(callbacks or ()))
    given = {f"callbacks.{name}": callback for name, callback in (callbacks or {}).items()}
    with raising_interrupts():
        run_stage(config, Path(folder), config_hash(config), given)
    return Run(folder)


def _one_process(stored: DictConfig) -> dict[str, Any]:
    """What a trainer needs to run in this process, however many shared the run, and on this machine, whatever that one had: the batches
    are the same."""
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    accelerator = (
        "cpu" if stored.get("accelerator") in ("gpu", "cuda", "mps") and not has_gpu else stored.get("accelerator", "auto")
    )
    changed = {"accelerator": accelerator} if accelerator != stored.get("accelerator", "auto") else {}
    if changed and stored.get("precision") != "32-true":
        changed["precision"] = "32-true"
    if stored.get("strategy", "auto") != "auto":
        changed |= {"strategy": "auto", "devices": 1, "num_nodes": 1}
    if changed:
        # on standard output: a cell shows what is logged as a warning in red, and less not at all
        print("trained here in this one process:", ", ".join(f"trainer.{key}={value}" for key, value in changed.items()))
    return changed


def _extend(config: DictConfig, run: Path, steps: int, folder: Path, overrides: Sequence[str]) -> DictConfig:
    """The config of a run, for `steps` steps that start from its weights."""
    raw = OmegaConf.to_container(config, resolve=False)
    if (raw.get("job") or {}).get("_target_") != f"{fit.__module__}.{fit.__name__}":
        raise RecipeError(f"{run} is no training run: its job does not train. Expected the folder of a stage that trained.")
    check_stored(raw, run, trains=True)
    find_neighbours(config, run)  # a notebook may stand elsewhere than the run was started from
    with open_dict(config):
        config.base = {**config.base, "model": str(run)}
        config.name = f"{config.name}_further"  # the name of the stream of data: other documents than the run has read
        config.checkpoint = None
        config.paths.folder = str(folder)
        config.trainer = {
            **OmegaConf.to_container(config.trainer, resolve=False),
            **_one_process(config.trainer),
            "max_steps": steps,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
        }
        # the record alone: a try in a cell is no run of W&B
        config.logger = {
            "metrics": {"_target_": f"{JsonlLogger.__module__}.{JsonlLogger.__name__}", "folder": "${paths.folder}"}
        }
        config.callbacks = {name: node for name, node in config.callbacks.items() if name not in LEFT_OUT}
    OmegaConf.set_struct(config, True)
    try:
        return OmegaConf.merge(config, OmegaConf.from_dotlist(list(overrides)))
    except OmegaConfBaseException as error:
        raise RecipeError(
            f"overrides={list(overrides)}: {str(error).splitlines()[0]}. Expected key=value for keys that the run's config.yaml has."
        ) from error
