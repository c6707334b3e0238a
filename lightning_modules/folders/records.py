"""What a job leaves in its folder about itself: the config that it was composed from and the record of how it ended. It runs nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_modules.folders.ownership import is_alive
from plait import atomic
from plait.checkpoints import MANIFEST
from plait.errors import CheckpointError

JOB_FILE, CONFIG_FILE = "job.json", "config.yaml"
LARGEST, MOST_VALUES, DEEPEST = 2**21, 20_000, 40
"""characters, values and levels of a config that is read back: those of plait have 40,000, 800 and 8"""
LAST = Path("checkpoints", "last.ckpt")


def read_config(folder: str | Path) -> DictConfig:
    """The config of the job in this folder, references as they were composed. It is data: what it names is checked in stored.py.

    Raises:
        CheckpointError: it is damaged, or is no YAML that a job writes (tags, anchors, a size out of all proportion).
    """
    path = Path(folder) / CONFIG_FILE
    try:
        if not path.is_file():
            raise OSError("it is no file")
        with path.open(encoding="utf-8") as file:
            text = file.read(LARGEST + 1)
        _check_yaml(text)
        stored = OmegaConf.create(text)
    except (ValueError, OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise CheckpointError(_damaged(path, str(error).replace("\n", " "))) from error
    if not isinstance(stored, DictConfig) or "base" not in stored:
        raise CheckpointError(_damaged(path, "it has no node `base`"))
    return stored


def _check_yaml(text: str) -> None:
    """Refuse what no job writes, event by event: nothing is built of it yet, so that a small file cannot become a large one."""
    if len(text) > LARGEST:
        raise ValueError(f"it has more than {LARGEST:,} characters")
    level = 0
    for number, event in enumerate(yaml.parse(text, yaml.CSafeLoader)):
        line = f"line {event.start_mark.line + 1}"
        if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
            raise ValueError(f"{line} has an anchor, an alias or a tag")
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > DEEPEST or number > MOST_VALUES:
            raise ValueError(f"{line} is more than {DEEPEST} levels deep, or behind more than {MOST_VALUES:,} values")


def read_job(folder: str | Path) -> dict[str, Any] | None:
    """How the job in this folder ended, or None where there was none.

    Returns:
        The record; its `state` is running, finished, stopped (before its last step, by a limit of time), trial (it trained otherwise
        than its config says), interrupted, failed, or died: it says that it runs, and its process is gone.

    Raises:
        CheckpointError: the record is damaged.
    """
    path = Path(folder) / JOB_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(_damaged(path, error)) from error
    if record is not None and not (isinstance(record, dict) and "state" in record):
        raise CheckpointError(_damaged(path, "it is no record with a `state`"))
    if record is not None and record["state"] == "running" and not is_alive(record.get("owner"), folder, record.get("pid")):
        record["state"] = "died"
    return record


def last_checkpoint(run: str | Path) -> Path:
    """The checkpoint folder that a path means: itself, or the last one of a run folder.

    Raises:
        CheckpointError: there is neither.
    """
    run = Path(run)
    for candidate in (run, run / LAST):
        if (candidate / MANIFEST).is_file():
            return candidate
    raise CheckpointError(
        f"{run} holds no checkpoint: expected {run / MANIFEST} or {run / LAST / MANIFEST}. "
        "Next: check the path, or start without one."
    )


def find_neighbours(stored: DictConfig, folder: str | Path) -> dict[str, str]:
    """Let a run that is opened from elsewhere find what it names relative to where it was started: bases, the language model that its
    architecture is read from, and codes that are not here are looked for there, which the run's own folder tells
    ("<there>/outputs/demo/instruction"). The config is changed in place.

    Returns:
        what was named -> where it was found, of what was not here.
    """
    written, opened = Path(OmegaConf.select(stored, "paths.folder") or "/"), Path(folder).resolve()
    if written.is_absolute() or opened.parts[-len(written.parts) :] != written.parts:
        return {}
    there, found = opened.parents[len(written.parts) - 1], {}
    places = [(stored.base, part) for part in stored.base]
    places += [(stored, key) for key in ("text_base", "saved") if key in stored]
    places += [(stored.codes, "folder")] if OmegaConf.select(stored, "codes.folder") else []
    for node, key in places:
        named = None if OmegaConf.is_missing(node, key) else node[key]
        if isinstance(named, str) and not Path(named).exists() and (there / named).exists():
            node[key] = found[named] = str(there / named)
    return found


def _damaged(path: Path, finding: object) -> str:
    return f"{path} is damaged: {finding}. Expected what a job of plait wrote. Next: move {path.parent} aside and run it again."


@rank_zero_only
def write_job(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a job; the file is replaced as a whole."""
    write_text(folder / JOB_FILE, json.dumps(dict(record), indent=1))


@rank_zero_only
def write_text(path: Path, text: str) -> None:
    """Write a file of the job; it is replaced as a whole."""
    atomic.write_text(path, text)
