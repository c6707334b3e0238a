"""The processes of one job (ranks): how many there are, which one this is, and that they belong together.

torchrun or srun starts them, and their variables are the only source read here, so that data and Trainer count alike. Before a job
has a folder, the ranks meet in the store that torch trains over: rank 0's job id and folder become everybody's, and configs must be
equal. Before step 1 they are compared again, by those who will really train together: after a failure in one job of a Hydra
multirun, rank 0 of the next job was seen to train with rank 1 of the one after it, and both reported success. This file does not
know configs, jobs or the Trainer's settings.
"""

import json
import os
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any

from plait.errors import PlaitError, RecipeError

START = "torchrun --standalone --nproc_per_node <devices> -m lightning_modules.commands.train ... (or one srun per run)"
PATIENCE_S = 300.0
SHARED = "is_shared_among_ranks"
"""attribute of a job that several processes may share"""
_MEETINGS = count()

# torch and lightning are imported where they are needed: configs name these functions, and --help answers without loading torch


def shared_among_ranks(job: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a job that several processes may share, besides the training of a stage."""
    setattr(job, SHARED, True)
    return job


def count_ranks() -> int:
    """Processes of this job."""
    return _variable("WORLD_SIZE", "SLURM_NTASKS", otherwise=1)


def own_rank() -> int:
    """The number of this process, from 0."""
    return _variable("RANK", "SLURM_PROCID", otherwise=0)


def own_local_rank() -> int:
    """The number of this process among those of this job on this machine, from 0."""
    return _variable("LOCAL_RANK", "SLURM_LOCALID", otherwise=0)


def count_local_ranks() -> int:
    """Processes of this job on this machine: the devices that a Trainer takes here."""
    return _variable("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", otherwise=1)


def count_nodes() -> int:
    """Machines of this job, all with as many processes."""
    return max(1, count_ranks() // count_local_ranks())


def choose_root(root: str) -> str:
    """Where Hydra writes its own files: below `root` on rank 0, in the temporary folder elsewhere, as clocks differ by a second and a
    job has one folder."""
    return root if own_rank() == 0 else os.path.join(tempfile.gettempdir(), "plait-ranks", str(own_rank()))


def shake_hands(config_hash: str, folder: str) -> tuple[str, str]:
    """Agree on a job; every rank must call.

    Args:
        config_hash: of what this rank is about to do.
        folder: where it would put the run.

    Returns:
        Id and folder of the job: rank 0's.

    Raises:
        RecipeError: the ranks are about different jobs, or one of them did not come.
    """
    own = {"job_id": uuid.uuid4().hex[:12], "config_hash": config_hash, "folder": folder}
    if count_ranks() == 1:
        return own["job_id"], folder
    records = _gather(own, f"plait/{next(_MEETINGS)}")
    compare_ranks(records, ["config_hash"])
    return records[0]["job_id"], records[0]["folder"]


def decide(act: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """What rank 0 finds or refuses, for every rank; every rank must call.

    Args:
        act: run by rank 0 alone; returns plain JSON values.

    Raises:
        PlaitError: of rank 0, in its words on every rank; or a rank did not come.
    """
    if count_ranks() == 1:
        return act()
    meeting, found = f"plait/{next(_MEETINGS)}", {}
    if own_rank() == 0:
        try:
            found = {"value": act()}
        except PlaitError as error:
            _gather({"refusal": str(error)}, meeting)
            raise
    first = _gather(found, meeting)[0]
    if "refusal" in first:
        raise RecipeError(first["refusal"])
    return first["value"]


def compare_ranks(records: Sequence[Mapping[str, str]], names: Sequence[str] = ("job_id", "config_hash")) -> None:
    """Refuse ranks that are about different jobs.

    Args:
        records: one per rank, in order.

    Raises:
        RecipeError: a value under one of `names` differs between two ranks.
    """
    for rank, record in enumerate(records):
        for name in names:
            if record[name] != records[0][name]:
                raise RecipeError(
                    f"Rank 0 and rank {rank} are not in the same job: {name} is {records[0][name][:12]} on rank 0 and "
                    f"{record[name][:12]} on rank {rank}; trained together, both would report success. Next: end all processes "
                    f"of this job and start one process group per run, {START}."
                )


def compare_training_ranks(identity: Mapping[str, str]) -> None:
    """`compare_ranks` among the processes that torch has joined (every one must call); nothing where there is one."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        records: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(records, dict(identity))
        compare_ranks(records)


def check_start(*, is_shared: bool, is_sweep: bool, strategy: str) -> None:
    """Refuse what several processes cannot do.

    Args:
        is_shared: whether the job is one that is shared out: a training, or one that says so (`shared_among_ranks`).
        is_sweep: whether this process runs several jobs (Hydra's -m).
        strategy: of the Trainer, "auto" where a single process suffices.

    Raises:
        RecipeError: a sweep of several processes, or several processes for a job that is not shared out.
    """
    if is_sweep and (count_ranks() > 1 or strategy != "auto"):
        raise RecipeError(
            f"-m runs its jobs in one process each or one after the other, with {count_ranks()} rank(s) and trainer.strategy={strategy}: "
            f"after a failure the ranks of two jobs would train together. Next: leave -m out and start every job on its own, {START}."
        )
    if count_ranks() > 1 and not is_shared:
        raise RecipeError(
            f"This job runs in one process and was started as {count_ranks()}: only the training of one stage and the encoding "
            "of pictures are shared out. "
            "Next: start it without torchrun or srun; a curriculum starts the processes of its trainings itself (job.trainer=ddp)."
        )


def check_trainer(trainer: Any) -> None:
    """Refuse a Trainer that counts other processes than were started.

    Raises:
        RecipeError: see above.
    """
    from lightning.pytorch.strategies import ParallelStrategy

    is_started = "RANK" in os.environ or "SLURM_PROCID" in os.environ
    if trainer.world_size == count_ranks() and (is_started or not isinstance(trainer.strategy, ParallelStrategy)):
        return
    raise RecipeError(
        f"The Trainer works with {trainer.world_size} process(es) under {type(trainer.strategy).__name__}, and this command was "
        f"started as {count_ranks() if is_started else 'a single one'}. Expected trainer=ddp with one process per device: {START}; "
        "or trainer=cpu or trainer=gpu without them."
    )


@cache  # kept: on rank 0 it is the server that the others, and then torch itself, are connected to
def _open_store() -> Any:
    import torch
    from lightning.fabric.plugins.environments import SLURMEnvironment

    if "MASTER_ADDR" not in os.environ:  # srun names no meeting place: Lightning's will do
        place = SLURMEnvironment()
        os.environ |= {"MASTER_ADDR": place.main_address, "MASTER_PORT": str(place.main_port)}
    patience = timedelta(seconds=PATIENCE_S)
    return next(torch.distributed.rendezvous("env://", own_rank(), count_ranks(), timeout=patience))[0]


def _gather(own: Mapping[str, Any], meeting: str) -> list[dict[str, Any]]:
    import torch

    rank, store, records = own_rank(), _open_store(), []
    store.set(f"{meeting}/{rank}", json.dumps(own))
    for other in range(count_ranks()):
        try:
            records.append(json.loads(store.get(f"{meeting}/{other}")))
        except torch.distributed.DistError as error:
            raise RecipeError(
                f"Rank {rank} waited {PATIENCE_S:.0f} s for rank {other} at the start of a job: it has failed or is at another job. "
                f"Next: look into its log, then start again, {START}."
            ) from error
    return records


def _variable(torchrun: str, slurm: str, otherwise: int) -> int:
    return int(os.environ.get(torchrun, os.environ.get(slurm, otherwise)))
