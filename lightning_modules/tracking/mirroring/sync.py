"""The job of `plait-sync`: the mirror of runs in W&B is made complete from their folders, whatever had happened to it.

A run whose mirror is whole is left alone; another is mirrored anew as a whole, under its own id. So it may be called at any time, and
twice. It does not know what is in a run.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lightning_modules.composing.arguments import checked_by
from lightning_modules.folders.records import read_config, read_job
from lightning_modules.tracking.loggers import WandbRun
from lightning_modules.tracking.mirroring.facts import choose_id, find_parents, flatten_overrides, is_online, mask, tag_run
from lightning_modules.tracking.mirroring.offline import find_offline, read_offline
from lightning_modules.tracking.mirroring.record import METRICS_FILE, MIRROR_FILE, SENT_FILE, Follower, read_json
from plait.errors import CheckpointError, RecipeError

PATIENCE_S = {False: 90.0, True: 900.0}
"""without anything that moves: offline, and online, where files are sent"""
TOLD = ("id", "group", "tags", "notes", "config")
log = logging.getLogger(__name__)


def check_sync(*, runs: str | Sequence[str]) -> None:
    """Refuse a folder that holds no run."""
    for name in [runs] if isinstance(runs, str) else runs:
        list(find_runs(Path(name)))


@checked_by(check_sync)
def sync_runs(*, runs: str | Sequence[str], offline: bool = True) -> dict[str, str]:
    """Complete the mirrors of runs.

    Args:
        runs: folders, each a run or what holds runs (a curriculum, a multirun).
        offline: into their own folders, to be sent by `wandb sync`; false sends them (needs `wandb login`).

    Returns:
        folder -> what was done.

    Raises:
        RecipeError: there is no run there, W&B is switched off, or a mirror could not be made complete.
    """
    online = is_online(offline)
    if online is None:
        raise RecipeError("WANDB_MODE=disabled: expected online or offline. Next: unset it.")
    places = list(
        dict.fromkeys(place for name in ([runs] if isinstance(runs, str) else runs) for place in find_runs(Path(name)))
    )
    done = {str(place): _sync(place, online) for place in places}
    for place, word in done.items():
        log.info("%s: %s", place, word)
    failed = [place for place, word in done.items() if word == "not complete"]
    if failed:
        raise RecipeError(
            f"{len(failed)} of {len(done)} mirrors are not complete: {', '.join(failed)}. Next: see what W&B said above."
        )
    return done


def find_runs(place: Path) -> Iterator[Path]:
    """The run folders in a folder, itself among them.

    Raises:
        RecipeError: there are none.
    """
    named = {path.parent for name in (MIRROR_FILE, METRICS_FILE, "evaluation.json") for path in place.rglob(name)}
    # what was set aside, and a folder within a run that is none (an examination's)
    found = sorted(path for path in named if (path / "job.json").is_file() or (path / MIRROR_FILE).is_file())
    if not found:
        raise RecipeError(f"runs={place} holds no run: expected {MIRROR_FILE} or {METRICS_FILE} in it. Next: check the path.")
    yield from found


def is_mirrored(folder: Path, online: bool) -> bool:
    """Whether W&B has the whole record of a run: its offline folder, or what it has taken."""
    facts = read_json(folder / MIRROR_FILE)
    if online:
        sent = read_json(folder / SENT_FILE)
        files = (folder / METRICS_FILE, folder / "summary.json", folder / MIRROR_FILE)
        return sent.get("id") == facts.get("id") and sent.get("time", 0) > max(f.stat().st_mtime for f in files if f.is_file())
    places = [place for place in find_offline(folder) if place.name.endswith(f"-{facts.get('id')}")]
    if not places:
        return False
    try:
        found = read_offline(places[-1])
    except CheckpointError:
        return False
    expected = {entry.number for entry in Follower(folder).read(is_over=True)}
    return found.exit_code is not None and expected <= {row.get("_step") for row in found.rows}


def _sync(folder: Path, online: bool) -> str:
    job = read_job(folder) or {}
    if job.get("state") == "running":
        return "still running, and mirrored by itself"
    if is_mirrored(folder, online):
        return "already complete"
    facts = read_json(folder / MIRROR_FILE) or _guess_facts(folder)
    given: dict[str, Any] = {key: facts.get(key) for key in ("name", "job_type", "has_weights")}
    run = WandbRun(
        folder,
        project=facts.get("project", "plait"),
        name=given["name"],
        job_type=given["job_type"],
        offline=not online,
        has_weights=bool(given["has_weights"]),
        patience_s=PATIENCE_S[online],
    )
    run.open(**{key: facts[key] for key in TOLD})
    run.finish(1 if job.get("state") in ("failed", "interrupted", "died") else 0)
    return "complete now" if run.is_complete else "not complete"


def _guess_facts(folder: Path) -> dict[str, Any]:
    """Of a run that was to have no mirror: what its folder says."""
    job, stored = read_job(folder) or {}, OmegaConf.to_container(read_config(folder), resolve=False)
    config = read_json(folder / "passport.json").get("config") or stored
    told = {
        "parents": find_parents(job.get("parents") or {}, stored["base"]),
        "overrides": flatten_overrides(job.get("overrides") or ()),
    }
    facts = {
        "id": choose_id(folder, None, is_training=False),
        "name": f"{folder.parent.name}/{folder.name}",
        "group": folder.parent.name,
    }
    facts |= {"job_type": stored.get("job_type"), "notes": "mirrored later by plait-sync", "config": {**config, **told}}
    return mask({**facts, "tags": tag_run(config.get("tags") or (), {})})
