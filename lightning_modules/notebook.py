"""What a notebook needs before there is a desk: a finished run to open, and commands that show how far they are.

A command runs in a process of its own, in the folder of the project, as it would in a terminal; the cell shows a bar. What has finished
is not made again. It knows curricula and studies as lists of folders and nothing of what they train.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tqdm.auto import tqdm

from lightning_modules.desk.project import find_project, find_upward
from lightning_modules.folders.records import read_config, read_job
from lightning_modules.loops.curriculum import compose_job
from plait.errors import CheckpointError, FailedJobsError
from plait.evaluation.figures import find_best_blind
from plait.runs import Run

# glibc hands freed memory back and faults it in again at every step of a training (see Makefile)
KEEPS_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
LAST_LINES = 12
"""of what a failed command has printed"""
LOOK_S = 0.5
"""between two looks at what a command has written"""
EVALUATION, DRAWINGS = "evaluation.json", "val/two_objects"
"""where the figure is that a run is introduced by"""
PATIENCE_S = 60.0
"""for a command that was stopped to save what it has"""


def provide_run(curriculum: str = "demo", sketch: str = "sketch") -> Path:
    """The folder of a finished curriculum: the one that PLAIT_RUN names, else outputs/<curriculum>, else outputs/<sketch>.

    Where none of them has finished the sketch is made, which takes a minute or two; with PLAIT_SCALE=demo the curriculum itself.

    Args:
        curriculum: name of a config of `conf/curriculum`, whose folder has its name.
        sketch: name of a smaller one with the same stages.

    Raises:
        CheckpointError: PLAIT_RUN names no finished run.
        FailedJobsError: what was to be made has failed.
    """
    found = [place for name in (curriculum, sketch) if (place := find_upward(f"outputs/{name}")) and _has_finished(place)]
    if named := os.environ.get("PLAIT_RUN"):
        place = _find_named("PLAIT_RUN", named)
        if not _has_finished(place):
            raise CheckpointError(f"PLAIT_RUN={named} has not finished. Next: start it again, and it goes on where it was.")
    elif found:
        place = found[0]
    else:
        name = curriculum if os.environ.get("PLAIT_SCALE") == "demo" else sketch
        place = find_project() / "outputs" / name
        stages = compose_job("train", [f"curriculum={name}"]).job.stages
        run_command("train", f"curriculum={name}", folders=[place / stage.name for stage in stages])
        place = find_upward(f"outputs/{name}")
    print(_describe(place))
    return place


def provide_multirun(study: str = "sketches") -> Path:
    """The folder of a multirun: the one that PLAIT_MULTIRUN names, else outputs/<study>, where what is missing of it is made.

    Args:
        study: name of a curriculum with arms and seeds (`lightning_modules.loops.study`), whose folder has its name.

    Raises:
        CheckpointError: PLAIT_MULTIRUN names no folder.
        FailedJobsError: what was to be made has failed.
    """
    if named := os.environ.get("PLAIT_MULTIRUN"):
        return _find_named("PLAIT_MULTIRUN", named)
    job, place = compose_job("train", [f"curriculum={study}"]).job, find_project() / "outputs" / study
    folders = [place / "shared" / stage.name for stage in job.shared]
    folders += [place / arm / f"seed-{seed}" / stage.name for arm in job.arms for seed in job.seeds for stage in job.stages]
    if not all(map(_has_finished, folders)):
        run_command("train", "-m", f"curriculum={study}", folders=folders)
    return find_upward(f"outputs/{study}")


def run_command(command: str, *words: str, folders: Sequence[str | Path]) -> None:
    """Run `plait-<command> <words>` and show how many of its jobs have finished, and how far the one that runs is.

    Stopping the cell stops the command, which saves what it has; called again it goes on there.

    Args:
        folders: of its jobs, in order.

    Raises:
        FailedJobsError: it failed; with the end of what it printed.
        KeyboardInterrupt: the cell was stopped.
    """
    print(f"plait-{command} {shlex.join(words)}")
    places, project = [find_project() / folder for folder in folders], find_project()
    environment = {**KEEPS_MEMORY, **os.environ, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", f"lightning_modules.commands.{command}", *words],
            cwd=project,
            env=environment,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the stop button reaches this process alone, which then asks the command once
        )
        try:
            _show_progress(process, places)
        except KeyboardInterrupt:
            _stop(process)
            raise
        if process.returncode:
            raise FailedJobsError(
                f"plait-{command} {shlex.join(words)} ended with exit code {process.returncode}, expected 0. It printed last:\n"
                f"{_read_end(printed)}\nNext: run it in a terminal to see all of it.",
                process.returncode,
            )


def _stop(process: subprocess.Popen) -> None:
    """Ask once, as Ctrl-C does; who does not hear it (what a script put in the background ignores it) is asked to end, then ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_S)
            return


def _show_progress(process: subprocess.Popen, folders: Sequence[Path]) -> None:
    with tqdm(total=len(folders), desc="starting", bar_format="{percentage:3.0f}% {bar} {elapsed} {desc}") as bar:
        while process.poll() is None:
            done, doing = measure_progress(folders)
            bar.n = done
            bar.set_description_str(doing, refresh=True)
            time.sleep(LOOK_S)
        bar.n, doing = measure_progress(folders)
        bar.set_description_str("failed" if process.returncode else "finished", refresh=True)


def measure_progress(folders: Sequence[Path]) -> tuple[float, str]:
    """How many jobs have finished, the one that runs by the share of its steps, and what that one does."""
    records = {folder: read_job(folder) or {} for folder in folders}
    finished = [folder for folder, record in records.items() if record.get("state") == "finished"]
    running = [folder for folder, record in records.items() if record.get("state") == "running"]
    count = f"{len(finished)} of {len(folders)} finished"
    if not running:
        return len(finished), count
    name = "/".join(running[-1].parts[-1:] if len({folder.parent for folder in folders}) == 1 else running[-1].parts[-3:])
    step, steps = _count_steps(running[-1])
    if not steps:
        return len(finished), f"{count}, now {name}"
    return len(finished) + step / steps, f"{count}, now {name}: step {step} of {steps}"


def _count_steps(folder: Path) -> tuple[int, int]:
    """(steps that were logged, steps in all) of a training; zeros where it has not begun to train."""
    try:
        run = Run(folder)
        steps = [row["step"] for row in run.metrics if row.get("step") is not None]
        return (steps[-1] + 1, int(run.config["trainer"]["max_steps"])) if steps else (0, 0)
    except (CheckpointError, KeyError, TypeError):  # it is being written, or is no training
        return (0, 0)


def _find_named(variable: str, named: str) -> Path:
    place = find_upward(named)
    if place is None:
        raise CheckpointError(
            f"{variable}={named}: there is no such folder. Expected one that a command of plait wrote. Next: correct the variable, or "
            "unset it and restart the kernel."
        )
    return place


def _has_finished(folder: Path) -> bool:
    return (read_job(folder) or {}).get("state") == "finished"


def _describe(place: Path) -> str:
    """What a curriculum was, and what its evaluation says of it."""
    said = f"{place}: curriculum {read_config(place).name}, made in {read_job(place)['duration_s']:.0f} s."
    for path in sorted(place.glob(f"*/{EVALUATION}")):
        figure = json.loads(path.read_text(encoding="utf-8"))["results"].get(DRAWINGS)
        if figure is not None:
            name, blind = find_best_blind(figure["baselines"]) or ("none", 0.0)
            said += f" Of {figure['n']} drawings of two objects (val) {figure['value']:.0%} were right; the best blind answer: {blind:.0%}"
            said += f" ({name})."
    return said


def _read_end(printed: IO[str]) -> str:
    printed.seek(0)
    lines = [line for part in printed.read().splitlines() for line in part.split("\r")[-1:] if line.strip()]
    return "\n".join(lines[-LAST_LINES:])
