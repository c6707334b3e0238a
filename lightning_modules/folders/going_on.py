"""What a training goes on from is read and accepted before anything is written: the checkpoint, its recipe, weights, data and bases.

A refusal leaves the folder as it was, to the byte. What is accepted is said in the log and goes into the record of the job: from which
step on it holds, when that was saved, and what is different now.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.folders.changes import Changes, check_changes, find_changes, is_harmless, spell
from lightning_modules.folders.records import LAST, read_job
from lightning_modules.processes.ranks import own_rank
from plait.checkpoints import MANIFEST, Manifest, check_weights, read_checkpoint, read_manifest
from plait.errors import RecipeError

log = logging.getLogger(__name__)


def find_data(config: DictConfig, resolved: Mapping[str, Any], assembly: Assembly) -> str | None:
    """The fingerprint of what a job reads; None where its data has none."""
    if "world" not in resolved or OmegaConf.select(config, "world._target_") is None:
        return None
    world = assembly.build("world")
    return str(world.fingerprint()) if hasattr(world, "fingerprint") else None


def accept_checkpoint(
    config: DictConfig,
    resolved: Mapping[str, Any],
    assembly: Assembly,
    parents: Mapping[str, str],
    data: str | None,
    before: Mapping[str, Any],
) -> dict[str, Any]:
    """Read what `config.checkpoint` names and compare it with what is to go on.

    Args:
        resolved: the config, as the checkpoint will hold it.
        parents: part -> identity of the weights that the job starts from.
        data: fingerprint of its data.
        before: the record of the job that is gone on with; empty where the checkpoint is of another folder.

    Returns:
        For the record: `from_step`, `went_on_from` and `changes`.

    Raises:
        CheckpointError: the checkpoint is damaged, or holds other weights than the model has.
        RecipeError: the recipe, data or bases are other ones and not named in `resume.changes`.
    """
    checkpoint = Path(config.checkpoint)
    manifest = read_manifest(checkpoint)
    if not before and checkpoint.parts[-2:] == LAST.parts:
        before = read_job(checkpoint.parent.parent) or {}
    changes = _find_all(config, resolved, manifest, parents, data, before)
    named = list(OmegaConf.select(config, "resume.changes") or ())
    _check_names(named, manifest.config, resolved)
    harmless = [key for key in changes if is_harmless(key, manifest.config, resolved)]
    check_changes(changes, harmless, named, f"{checkpoint} (step {manifest.step})")
    if own_rank() == 0:
        weights = read_checkpoint(checkpoint, with_state=True).weights
        check_weights(assembly.build("job.stage").model, weights, str(checkpoint))
    saved = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime((checkpoint / MANIFEST).stat().st_mtime))
    log.info("going on after step %s, saved at %s: %s", manifest.step, saved, checkpoint)
    for key, pair in changes.items():
        log.log(logging.INFO if key in harmless else logging.WARNING, "from here on: %s", spell(key, pair))
    if not manifest.config:
        log.warning("%s does not say with which config it was made: nothing could be compared.", checkpoint)
    return {
        "from_step": manifest.step,
        "went_on_from": {"checkpoint": str(checkpoint), "identity": manifest.identity, "saved": saved},
        "changes": {key: list(pair) for key, pair in changes.items()},
    }


def _find_all(
    config: DictConfig,
    resolved: Mapping[str, Any],
    manifest: Manifest,
    parents: Mapping[str, str],
    data: str | None,
    before: Mapping[str, Any],
) -> Changes:
    raw = OmegaConf.to_container(config, resolve=False)
    changes = find_changes(manifest.config, resolved, raw) if manifest.config else {}
    first = {parent["part"]: parent["identity"] for parent in manifest.parents}
    for part in sorted(first.keys() | parents.keys()):
        old, new = (weights.get(part, "random") for weights in (first, parents))
        if old != new:
            changes[f"base.{part}"] = (f"weights {old[:12]}", f"weights {new[:12]}")
    if before.get("data") is not None and data is not None and before["data"] != data:
        changes["world"] = (f"data {before['data'][:12]}", f"data {data[:12]}")
    return changes


def _check_names(named: list[str], *configs: Mapping[str, Any]) -> None:
    for name in named:
        node: list[Any] = list(configs)
        for word in name.split("."):
            node = [item[word] for item in node if isinstance(item, Mapping) and word in item]
        if not node:
            raise RecipeError(
                f"resume.changes names {name}, and neither the run nor this config has such a key. Expected keys or nodes that may "
                "differ, such as stage.optimizer.lr. Next: correct the name, or leave it out."
            )
