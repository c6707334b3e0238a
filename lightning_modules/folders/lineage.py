"""Where a run comes from: `lineage.json` beside its passport, the tree of weights from the tokenizer to the last stage.

Each node is one set of weights: its identity (sha256), the step, the job and the config hash that made it, and what it started
from, part by part. It is read from the manifests of checkpoints and the records of jobs, never from names; where the folder of a
parent is gone, its identity stays. It does not know what a part is.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from plait.atomic import write_json
from plait.checkpoints import MANIFEST, read_manifest
from plait.errors import CheckpointError

LINEAGE_FILE = "lineage.json"


@rank_zero_only
def write_lineage(folder: str | Path, job: Mapping[str, Any], parents: Sequence[Mapping[str, Any]]) -> None:
    """Write the lineage of a job that starts from weights or has made some; other jobs have none.

    Args:
        folder: of the job.
        job: its record (id, config_hash).
        parents: what it started from (`trace_parents`).
    """
    folder = Path(folder)
    own = folder / "checkpoints" / "last.ckpt"
    node = {"name": folder.name, "job": job["id"], "config_hash": job["config_hash"], "identity": None, "step": None}
    if (own / MANIFEST).is_file():
        manifest = read_manifest(own)
        node |= {"identity": manifest.identity, "step": manifest.step}
    if parents or node["identity"]:
        write_json(folder / LINEAGE_FILE, {**node, "parents": list(parents)})


def trace_parents(checkpoints: Mapping[str, Path]) -> list[dict[str, Any]]:
    """The nodes of the checkpoints that a job starts from, by part."""
    return [{"part": part, **trace_weights(checkpoint)} for part, checkpoint in checkpoints.items()]


def trace_weights(checkpoint: Path) -> dict[str, Any]:
    """The node of a checkpoint and, below `parents`, everything it came from.

    Raises:
        CheckpointError: there is no checkpoint, or a record beside it is damaged.
    """
    manifest = read_manifest(checkpoint)
    folder = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint
    job = _read(folder / "job.json")
    known = _read(folder / LINEAGE_FILE)
    # without a lineage of its own: identities, as the manifest has them
    parents = known["parents"] if known.get("identity") == manifest.identity else [_name(parent) for parent in manifest.parents]
    node = {"name": folder.name, "job": job.get("id"), "config_hash": job.get("config_hash")}
    return {**node, "identity": manifest.identity, "step": manifest.step, "parents": parents}


def _name(parent: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "part": parent["part"],
        "name": None,
        "job": None,
        "config_hash": None,
        "identity": parent["identity"],
        "parents": [],
    }


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged: {error}. Expected what a job of plait wrote. Next: make that run again."
        ) from error
