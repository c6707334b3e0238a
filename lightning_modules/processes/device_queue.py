"""Jobs in processes of their own, one per device at a time; the rest wait until a device is free.

A job is a function without arguments and a file that takes what it prints. It runs in a fork of this process, in a session of its
own, and sees one device: CUDA_VISIBLE_DEVICES is set before torch is imported there, so this process must not have begun to use
CUDA. It does not know Hydra, configs or what a job does.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any

from plait.errors import FailedJobsError, PlaitError, RecipeError

VISIBLE = "CUDA_VISIBLE_DEVICES"
INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a job that was stopped, as shells count."""
NEVER_RUN = 125
"""Exit code of a job that was not started, because one that it stands together with had failed."""
GRACE_S = 5.0
"""for jobs that stand together with a failed one to end by themselves, with their own words"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What is to run.

    Args:
        number: by which the log names it.
        title: what it is about.
        run: the work; its value must be picklable.
        console: file that standard output and error are appended to; None leaves them where those of this process go, and the log
            does not speak of the job.
    """

    number: int
    title: str
    run: Callable[[], Any]
    console: Path | None


@dataclass(frozen=True)
class Outcome:
    """How a job ended: exit code 0 and its value, or another code (128 + n for signal n) and None."""

    exit_code: int
    value: Any = None


@dataclass
class _Running:
    index: int
    job: Job
    device: str | None
    process: BaseProcess
    box: IO[bytes]
    started: float


def find_devices() -> list[str]:
    """The ids in CUDA_VISIBLE_DEVICES or, without it, those of all devices that torch counts.

    Raises:
        RecipeError: there is no device.
    """
    named = os.environ.get(VISIBLE)
    if named is None:
        # in a process of its own: this one has to stay fit for forking
        count = subprocess.run(
            [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"], capture_output=True, text=True, check=True
        )
        named = ",".join(map(str, range(int(count.stdout))))
    devices = [device.strip() for device in named.split(",") if device.strip()]
    if not devices:
        raise RecipeError(
            f"hydra/launcher=gpus found no device: {VISIBLE} is {os.environ.get(VISIBLE)!r} and torch counts none besides. Expected "
            "one or more. Next: name places with hydra.launcher.devices=[0,1], or leave the launcher out: jobs then run one by one."
        )
    return devices


def run_queue(jobs: Sequence[Job], devices: Sequence[str | None], stands_together: bool = False) -> list[Outcome]:
    """Run every job; a failed one stops no other.

    Args:
        devices: ids as CUDA_VISIBLE_DEVICES takes them; None leaves the variable alone. What stands twice takes two jobs at a time.
        stands_together: the jobs are one: the first that fails ends those that run, and no other starts.

    Returns:
        One outcome per job, in the order of the jobs.

    Raises:
        KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP, once every job has ended. Jobs get an interrupt, so that they can save where
            they are; a second Ctrl-C kills them.
    """
    free, waiting = deque(devices), deque(enumerate(jobs))
    running: dict[int, _Running] = {}
    outcomes: dict[int, Outcome] = {}
    with _terminations_interrupt():
        try:
            while waiting or running:
                while free and waiting:
                    index, job = waiting.popleft()
                    started = _start(index, job, free.popleft(), threads=max(1, (os.cpu_count() or 1) // len(devices)))
                    running[started.process.sentinel] = started
                    if job.console is not None:
                        log.info("#%d starts%s: %s (%s)", job.number, _spell_place(started.device), job.title, job.console)
                for sentinel in wait(list(running)):
                    ended = running.pop(sentinel)
                    outcomes[ended.index] = outcome = _close(ended)
                    free.append(ended.device)
                    if outcome.exit_code and stands_together:
                        waiting.clear()
                        _kill([item.process for item in running.values()], after_s=GRACE_S)
                    _report(ended, outcome, len(jobs), outcomes, len(running))
        except BaseException:
            _end([item.process for item in running.values()])
            for item in running.values():
                item.box.close()
            raise
    return [outcomes.get(index, Outcome(NEVER_RUN)) for index in range(len(jobs))]


def find_failure(jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> FailedJobsError | None:
    """Which jobs failed, how, and where what they printed lies; None where all went well."""
    failed = [(job, outcome.exit_code) for job, outcome in zip(jobs, outcomes, strict=True) if outcome.exit_code]
    if not failed:
        return None
    named = "; ".join(f"#{job.number} {job.title} (exit code {code}, {job.console or 'printed above'})" for job, code in failed)
    return FailedJobsError(
        f"{len(failed)} of {len(jobs)} jobs failed: {named}. Expected exit code 0; what finished stays. "
        "Next: read the end of what they printed, then start the same jobs again.",
        failed[0][1],
    )


def _start(index: int, job: Job, device: str | None, threads: int) -> _Running:
    box = tempfile.TemporaryFile()  # noqa: SIM115 (closed by _close); a pipe would block a job whose value is large
    if job.console is not None:
        job.console.parent.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("fork").Process(target=_work, args=(job, device, box, threads), name=job.title)
    process.start()
    return _Running(index, job, device, process, box, time.monotonic())


def _work(job: Job, device: str | None, box: IO[bytes], threads: int) -> None:
    """The life of a job, in its own process."""
    os.setsid()  # Ctrl-C goes to the queue alone, which passes it on once: a second one would stop a training in the middle of a step
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if device is not None:
        os.environ[VISIBLE] = device
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # otherwise each job takes every core
    # its buffers are empty: multiprocessing flushes them before it forks
    if job.console is not None:
        with open(job.console, "ab") as console:
            os.dup2(console.fileno(), sys.__stdout__.fileno())
            os.dup2(console.fileno(), sys.__stderr__.fileno())
    try:
        pickle.dump(job.run(), box)
        box.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except PlaitError as error:
        print("\n".join([str(error), *getattr(error, "__notes__", ())]), file=sys.stderr)
        sys.exit(2)


def _close(ended: _Running) -> Outcome:
    ended.process.join()
    code = ended.process.exitcode or 0
    with ended.box as box:
        if code:
            return Outcome(code if code > 0 else 128 - code)
        box.seek(0)
        return Outcome(0, pickle.load(box))


def _report(ended: _Running, outcome: Outcome, total: int, outcomes: dict[int, Outcome], num_running: int) -> None:
    if ended.job.console is None:
        return
    failed = sum(other.exit_code != 0 for other in outcomes.values())
    how = "finished" if outcome.exit_code == 0 else f"FAILED with exit code {outcome.exit_code}"
    log.info(
        "#%d %s after %.0f s%s [%d of %d ended, %d failed, %d running, %d waiting]",
        *(ended.job.number, how, time.monotonic() - ended.started, _spell_place(ended.device)),
        *(len(outcomes), total, failed, num_running, total - len(outcomes) - num_running),
    )


def _spell_place(device: str | None) -> str:
    return "" if device is None else f" on device {device}"


def _end(processes: Sequence[BaseProcess]) -> None:
    """Interrupt what runs and wait for it; kill it if this process is interrupted again."""
    if not processes:
        return
    log.warning("ending %d jobs, which may save first; Ctrl-C again kills them", len(processes))
    try:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGINT)
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its loaders
            process.join()


def _kill(processes: Sequence[BaseProcess], after_s: float) -> None:
    """End what does not end by itself: a rank whose neighbour has failed waits for it in vain."""
    until = time.monotonic() + after_s
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        if process.exitcode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its loaders


@contextmanager
def _terminations_interrupt() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP are a Ctrl-C: jobs are sessions of their own and would otherwise stay behind."""
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
