"""A job enters its folder: what is there decides whether it begins, goes on, has nothing to do, or is refused.

Nothing of a job is overwritten by another and no two jobs are mixed: a folder whose owner lives is left to it; what has finished, or can
go on from a checkpoint, is never begun again in the same place; what ended before its first checkpoint is begun again by the same
job and set aside for another one (`<folder>.old-1`). Up to `Stay.begin` nothing is written but the lock. It does not know what jobs do.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lightning_modules.folders.ownership import LOCK_FILE, Claim, describe_process, silence_s
from lightning_modules.folders.records import CONFIG_FILE, JOB_FILE, LAST, last_checkpoint, read_job, write_job, write_text
from lightning_modules.processes.ranks import decide
from plait.errors import CheckpointError, RecipeError

RECORDS = (JOB_FILE, CONFIG_FILE, LOCK_FILE, "lineage.json", "passport.json", "ledger.json", "hydra", "mirror.json", "wandb")
"""What tells of a job, and is nothing that it has made."""

GOES_ON = "goes_on_in_its_folder"
"""Attribute of a job that may be started again in the folder in which it has finished."""

log = logging.getLogger(__name__)


def goes_on(job: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a job that looks after what is in its folder itself: a curriculum, whose stages are skipped, resumed or set aside."""
    setattr(job, GOES_ON, True)
    return job


@dataclass(frozen=True)
class Intent:
    """What a job is about, as far as its folder has to know.

    Args:
        job: qualified name of the job's function.
        name: of the recipe or curriculum.
        config_hash: of what it computes.
        trains: whether it leaves checkpoints and can go on from one.
        goes_on: whether it may enter a folder that it has finished in: a curriculum, which looks after its stages itself.
        checkpoint: what to go on from: None, "last" (of the folder), or a checkpoint.
    """

    job: str
    name: str
    config_hash: str
    trains: bool = False
    goes_on: bool = False
    checkpoint: str | None = None

    def goes_on_in(self, folder: Path) -> bool:
        """Whether it wants to go on from what is in this folder."""
        wanted = self.checkpoint
        return wanted == "last" or (wanted is not None and Path(wanted).resolve().is_relative_to(folder.resolve()))


@dataclass
class Stay:
    """A job in its folder, from `enter` to `leave`.

    Args:
        folder: of the run.
        claim: on it; None on the ranks that are not the first, which write nothing of their own.
        before: the record of the job that was here and is gone on with; empty for a new one.
        checkpoint: what training goes on from.
        is_done: there is nothing left to do.
        is_foreign: what is there is of another job: it is set aside by `begin`.
        goes_on: of the job's intent.
        is_refused: the job was refused: if it has left no more than its record in a folder that was empty, that goes too.
    """

    folder: Path
    claim: Claim | None
    before: dict[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    is_done: bool = False
    is_foreign: bool = False
    goes_on: bool = False
    is_refused: bool = False
    _log_file: logging.Handler | None = None
    _has_begun: bool = False

    def begin(self, record: Mapping[str, Any], config_text: str) -> dict[str, Any]:
        """Write what the folder says of the job from now on; returns its record, which goes on from the one that was there."""
        if self.claim is None:
            return dict(record)
        self._has_begun = True
        if self.is_foreign:
            log.warning("what is in %s is of another job, which had no checkpoint yet", self.folder)
            self.claim = set_aside(self.folder, self.claim)
        if past := self.before:
            starts = [*past.get("starts", ()), _sum_up(past, self.folder)]
            record = {**record, "id": past.get("id", record["id"]), "starts": starts}
            if past["state"] == "died":
                log.warning("the last job in %s died (%s): this one takes over", self.folder, _spell_owner(past))
        record = {**record, "owner": describe_process(), "pid": os.getpid()}
        write_job(self.folder, {**record, "state": "running"})
        write_text(self.folder / CONFIG_FILE, config_text)
        if HydraConfig.initialized():
            (self.folder / "hydra").mkdir(exist_ok=True)
            write_text(self.folder / "hydra" / "overrides.yaml", OmegaConf.to_yaml(HydraConfig.get().overrides.task))
        if not self.goes_on:  # a curriculum forks, which threads stand in the way of: its stages give signs of life
            self.claim.give_signs_of_life()
        self._open_log()
        return record

    def end(self, record: Mapping[str, Any], ending: Mapping[str, str]) -> float:
        """Write how the job ended; returns the seconds that all its starts took together."""
        earlier = sum(start["duration_s"] for start in record.get("starts", ()))
        duration_s = earlier + time.time() - record["started"]
        write_job(self.folder, {**record, "duration_s": duration_s, **ending})
        return duration_s

    def leave(self) -> None:
        """Give the folder back; if nothing was written it is as it was."""
        if self._log_file is not None:
            logging.getLogger().removeHandler(self._log_file)
            self._log_file.close()
        if self.claim is not None:
            self.claim.release(is_unused=self._take_back() if self._has_begun else True)

    def _take_back(self) -> bool:
        """Remove the record of a job that was refused before it made anything, from a folder that was empty before."""
        records = {*RECORDS, *([Path(self._log_file.baseFilename).name] if self._log_file is not None else [])}
        is_nothing = {path.name for path in self.folder.iterdir()} <= records
        if not self.is_refused or self.before or self.is_foreign or not is_nothing:
            return False
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK_FILE:
                path.unlink()
        return True

    def _open_log(self) -> None:
        """What is logged goes into the folder as well; Hydra's own file would be there before the folder is known to be free."""
        name = HydraConfig.get().job.name if HydraConfig.initialized() else "job"
        self._log_file = logging.FileHandler(self.folder / f"{name}.log", encoding="utf-8")
        self._log_file.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
        logging.getLogger().addHandler(self._log_file)


def enter(folder: str | Path, intent: Intent) -> Stay:
    """Claim a folder and see what a job can do in it; nothing is written.

    Raises:
        RecipeError: it belongs to a job that lives, to one that has finished, or to one that can go on.
    """
    folder = Path(folder)
    claim = Claim(folder)
    try:
        is_held = claim.take()
    except OSError as error:
        raise RecipeError(
            f"{folder} cannot be the folder of this run: {error.strerror or error}. Expected a folder that can be made and written "
            "into. Next: give another one, paths.folder=<folder>."
        ) from error
    if not is_held:
        raise RecipeError(_refuse_living(folder, read_job(folder) or {}))
    try:
        return _look_around(Stay(folder, claim, goes_on=intent.goes_on), intent)
    except BaseException:
        claim.release(is_unused=True)
        raise


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


def drop_empty_folder(config: DictConfig) -> None:
    """Remove what Hydra made for a job that was refused, or that works elsewhere, with the folders above that are left empty, up to the
    root of all runs and to where the command was started."""
    if not HydraConfig.initialized():
        return
    place, ends = Path(HydraConfig.get().runtime.output_dir), [Path(config.paths.root).absolute(), Path.cwd()]
    above = {*ends, *(folder for end in ends for folder in end.parents)}
    with suppress(OSError):  # it holds something
        for folder in (place, *place.parents):
            if folder in above:
                return
            folder.rmdir()


def enter_together(folder: str | Path, intent: Intent) -> Stay:
    """`enter` on rank 0; every rank must call, and is refused where rank 0 is."""
    stays: list[Stay] = []

    def enter_first() -> dict[str, Any]:
        stays.append(enter(folder, intent))
        stay = stays[0]
        return {
            "before": stay.before,
            "checkpoint": None if stay.checkpoint is None else str(stay.checkpoint),
            "is_done": stay.is_done,
        }

    found = decide(enter_first)
    checkpoint = found["checkpoint"]
    return stays[0] if stays else Stay(Path(folder), None, **{**found, "checkpoint": checkpoint and Path(checkpoint)})


def _look_around(stay: Stay, intent: Intent) -> Stay:
    folder, past = stay.folder, read_job(stay.folder)
    wants_on = intent.goes_on_in(folder)
    if past is None:
        if found := sorted(path.name for path in folder.iterdir() if path.name != LOCK_FILE):
            raise RecipeError(
                f"{folder} holds {', '.join(found[:3])}{' and more' if len(found) > 3 else ''}, and no {JOB_FILE}: it is no run. Expected "
                "an empty folder, or one of a job of plait. Next: give another paths.folder, or move this one away."
            )
        if wants_on:
            raise RecipeError(
                f"checkpoint={intent.checkpoint}: {folder} holds no checkpoint and no run, expected {folder / LAST} of a run that is to go "
                "on. Next: check paths.folder, or start without checkpoint."
            )
        return stay
    if past["state"] == "running":
        if past.get("owner") != describe_process():  # this very process has left it, as the lock shows
            raise RecipeError(_refuse_living(folder, past))
        past["state"] = "died"
    is_same = past.get("job", intent.job) == intent.job and past.get("config_hash") == intent.config_hash
    if intent.goes_on:
        if (past.get("job", intent.job), past.get("name", intent.name)) != (intent.job, intent.name):
            raise RecipeError(_refuse_other(folder, past, f"{intent.name} would mix its stages with what is there"))
        stay.before = past
        return stay
    saved = _find_checkpoint(folder) if intent.trains else None
    is_requeued = past.get("slurm_job") is not None and past["slurm_job"] == slurm_job() and "SLURM_RESTART_COUNT" in os.environ
    if saved is not None and past.get("job", intent.job) == intent.job and (wants_on or is_requeued):
        stay.before, stay.checkpoint = past, saved
        stay.is_done = past["state"] == "finished" and is_same
        return stay
    if past["state"] == "finished" or saved is not None:
        raise RecipeError(_refuse_other(folder, past, "it is never overwritten", can_go_on=saved is not None))
    _refuse_inhabited(folder)
    if is_same:
        stay.before = past
        log.info("%s ended before its first checkpoint (%s): starting anew", folder, past["state"])
    else:
        stay.is_foreign = True
    return stay


def set_aside(folder: Path, claim: Claim | None = None) -> Claim:
    """Rename a folder to a free name beside it (`<folder>.old-<n>`); nobody may be at work in it.

    Args:
        claim: of the caller on this folder; None claims it.

    Returns:
        The claim on the new, empty folder of that name.

    Raises:
        RecipeError: a job in it lives.
    """
    old = claim or Claim(folder)
    if claim is None and not old.take():
        raise RecipeError(_refuse_living(folder, read_job(folder) or {}))
    try:
        _refuse_inhabited(folder)
        aside = _free_name(folder)
        folder.rename(aside)
        log.info("set aside: %s is %s now", folder, aside)
        new = Claim(folder)
        if not new.take():
            raise RecipeError(_refuse_living(folder, read_job(folder) or {}))
        return new
    finally:
        old.release()


def slurm_job() -> str | None:
    """The number of Slurm's job that this process belongs to, which a requeued job keeps."""
    return os.environ.get("SLURM_JOB_ID")


def _refuse_inhabited(folder: Path) -> None:
    """Refuse to move or begin where a job works in a folder inside: an evaluation of the run, say."""
    for record in sorted(folder.glob(f"**/{JOB_FILE}")):
        if record.parent != folder and (found := read_job(record.parent) or {}).get("state") == "running":
            raise RecipeError(_refuse_living(record.parent, found))


def _find_checkpoint(folder: Path) -> Path | None:
    try:
        return last_checkpoint(folder)
    except CheckpointError:
        return None


def _free_name(place: Path) -> Path:
    number = 1
    while (aside := place.with_name(f"{place.name}.old-{number}")).exists():
        number += 1
    return aside


def _sum_up(past: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A start that is over, as later ones remember it; how long one took that died is known from its last sign of life."""
    kept = ("config_hash", "started", "state", "from_step", "changes", "because", "error")
    earlier = sum(start["duration_s"] for start in past.get("starts", ()))
    if "duration_s" in past:
        duration = past["duration_s"] - earlier
    else:
        duration = max(0.0, time.time() - (silence_s(folder) or 0.0) - past.get("started", time.time()))
    return {**{key: past[key] for key in kept if key in past}, "duration_s": duration}


def _spell_owner(record: Mapping[str, Any]) -> str:
    owner = record.get("owner") or {}
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(record["started"])) if "started" in record else "a time unknown"
    return (
        f"{record.get('name') or 'a job'} ({record.get('id', 'no id')}), process {owner.get('pid', record.get('pid'))} on "
        f"{owner.get('host', 'this machine')}, since {since}"
    )


def _refuse_living(folder: Path, record: Mapping[str, Any]) -> str:
    if record.get("state") == "died":
        who = f"processes that {_spell_owner(record)} left behind when it died"
    elif record.get("state") == "running":
        who = f"a job that is running: {_spell_owner(record)}"
    else:
        who = "a job that is just beginning or ending there"
    return (
        f"{folder} belongs to {who}. Expected a folder in which nobody works: two jobs never share one. Next: wait for it, stop it "
        "(kill -INT <process>: it saves and ends), or give this one another paths.folder."
    )


def _refuse_other(folder: Path, record: Mapping[str, Any], reason: str, can_go_on: bool = False) -> str:
    on = "add checkpoint=last to go on with it, " if can_go_on else ""
    return (
        f"{folder} holds {record.get('name') or 'a job'} ({record.get('id', 'no id')}), which is {record['state']}: {reason}. Expected "
        f"a folder of its own for every job. Next: {on}give another paths.folder, or move this one away."
    )
