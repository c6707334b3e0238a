"""What a job leaves in its folder about itself: the config that it was composed from and the record of how it ended. It runs nothing."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from plait.errors import CheckpointError

JOB_FILE, CONFIG_FILE = "job.json", "config.yaml"


def read_config(folder: str | Path) -> DictConfig:
    """The config of the job in this folder, references as they were composed.

    Raises:
        CheckpointError: it is damaged.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        stored = OmegaConf.load(path)
    except (ValueError, OSError, YAMLError, OmegaConfBaseException) as error:
        raise CheckpointError(_damaged(path, str(error).replace("\n", " "))) from error
    if not isinstance(stored, DictConfig) or "base" not in stored:
        raise CheckpointError(_damaged(path, "it has no node `base`"))
    return stored


def read_job(folder: str | Path) -> dict[str, Any] | None:
    """How the job in this folder ended, or None where there was none.

    Raises:
        CheckpointError: the record is damaged.
    """
    path = Path(folder) / JOB_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise CheckpointError(_damaged(path, error)) from error
    if record is not None and not (isinstance(record, dict) and "state" in record):
        raise CheckpointError(_damaged(path, "it is no record with a `state`"))
    return record


def _damaged(path: Path, finding: object) -> str:
    return f"{path} is damaged: {finding}. Expected what a job of plait wrote. Next: move {path.parent} aside and run it again."


@rank_zero_only
def write_job(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a job; the file is replaced as a whole."""
    write_text(folder / JOB_FILE, json.dumps(dict(record), indent=1))


@rank_zero_only
def write_text(path: Path, text: str) -> None:
    """Write a file of the job; it is replaced as a whole."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
