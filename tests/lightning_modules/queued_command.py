"""A command of a few lines that tests queue: `python queued_command.py -m hydra/launcher=gpus '+act=note,exit' +meet=1`.

What a job sees, it notes in its folder. With `meet` it waits until that many jobs have begun; `act` is how it ends.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig

from lightning_modules.running.refusals import command
from plait.errors import RecipeError


@command
@hydra.main(version_base="1.3", config_path=None)
def main(config) -> float:
    """One job."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        work(folder, config.get("act", "note"), config.get("meet", 1))
    except KeyboardInterrupt:
        (folder / "stopped").touch()
        raise
    return float(HydraConfig.get().job.num)


def work(folder: Path, act: str, meet: int) -> None:
    """What the job does."""
    note = {"device": os.environ["CUDA_VISIBLE_DEVICES"], "pid": os.getpid(), "begin": time.monotonic()}
    write(folder / "begun.json", note)
    print("printed by the job")
    wait_for(lambda: len(list(folder.parent.glob("*/begun.json"))) >= meet)
    if act == "exit":
        sys.exit(7)
    if act == "raise":
        raise ValueError("nobody foresaw this")
    if act == "refuse":
        raise RecipeError("Refused. Expected better. Next: nothing.")
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "hang":
        wait_for(lambda: False)
    write(folder / "ended.json", {**note, "end": time.monotonic()})


def write(path: Path, note: dict) -> None:
    """A file that is there is whole."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(note))
    beside.rename(path)


def wait_for(is_there, patience_s: float = 120.0) -> None:
    """Look again and again; a job that waits in vain fails."""
    end = time.monotonic() + patience_s
    while not is_there():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)


if __name__ == "__main__":
    main()
