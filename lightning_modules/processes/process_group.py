"""A job in processes of its own on this machine, joined as torchrun would join them: its variables name rank, count and meeting place.

They are forks of this process, so that nothing is imported twice; it must not have computed with torch before, as threads of OpenMP
and the state of CUDA do not survive a fork. It does not know what the job does.
"""

import logging
import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from lightning_modules.processes.device_queue import Job, find_failure, run_queue

CPU_RANKS = 2
"""of trainer=ddp_cpu: small models gain little by more"""

_is_member = False


def is_member() -> bool:
    """Whether this process was started by `run_in_group`, for one job and no other."""
    return _is_member


def count_processes(trainer: Mapping[str, Any]) -> int | None:
    """Processes that a Trainer's settings share a training among here: one per GPU, or `CPU_RANKS` where there are as many cores; None
    for settings that name no strategy."""
    if trainer.get("strategy", "auto") == "auto":
        return None
    if trainer.get("accelerator") == "cpu":
        return min(CPU_RANKS, os.cpu_count() or 1)
    return max(1, torch.cuda.device_count())


def run_alone(run: Callable[[], Any]) -> Any:
    """Run a function in a process that was forked for it: with its share of threads, as one job and no other."""
    global _is_member
    _is_member = True
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # torch has read the variable before it was set
    return run()


def run_in_group(run: Callable[[], Any], ranks: int | None = None) -> Any:
    """Run a function in every process of a group and wait for all.

    Args:
        ranks: processes of the group; None runs one that is told of no group.

    Returns:
        What it returned on rank 0; picklable.

    Raises:
        FailedJobsError: one of them failed, in its own words on standard error; the others were ended.
        KeyboardInterrupt: on Ctrl-C, once all have saved and ended.
    """
    if ranks is None:
        jobs = [Job(0, "the job", partial(run_alone, run), None)]
    else:
        port = _find_port()
        jobs = [Job(rank, f"rank {rank}", partial(_join, run, rank, ranks, port), None) for rank in range(ranks)]
    outcomes = run_queue(jobs, [None] * len(jobs), stands_together=True)
    if failure := find_failure(jobs, outcomes):
        raise failure
    return outcomes[0].value


def _join(run: Callable[[], Any], rank: int, ranks: int, port: int) -> Any:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    rank_zero_only.rank = rank  # Lightning has read it before there were ranks
    if rank:
        logging.getLogger().setLevel(logging.WARNING)
    return run_alone(run)


def _find_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]
