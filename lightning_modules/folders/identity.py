"""What a job computes: the part of its config that decides it, and one number for that part. It runs and builds nothing."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_modules.composing.config_checks import collect_nodes
from lightning_modules.folders.records import last_checkpoint
from plait.checkpoints import read_manifest
from plait.errors import CheckpointError

UNHASHED = (
    *("paths", "budget", "logger", "callbacks", "checkpoint", "group", "name", "tags", "config", "parents", "overrides"),
    "num_workers",
)


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
