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

from lightning_modules.refusals import command
from plait.errors import RecipeError


@command
@hydra.main(version_base="1.3", config_path=None)
def main(config) -> float:
    """One job."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    note = {"device": os.environ["CUDA_VISIBLE_DEVICES"], "pid": os.getpid(), "begin": time.monotonic()}
    (folder / "begun.json").write_text(json.dumps(note))
    print("printed by the job")
    wait_for(lambda: len(list(folder.parent.glob("*/begun.json"))) >= config.get("meet", 1))
    act = config.get("act", "note")
    if act == "exit":
        sys.exit(7)
    if act == "raise":
        raise ValueError("nobody foresaw this")
    if act == "refuse":
        raise RecipeError("Refused. Expected better. Next: nothing.")
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "hang":
        try:
            wait_for(lambda: False)
        except KeyboardInterrupt:
            (folder / "stopped").touch()
            raise
    (folder / "ended.json").write_text(json.dumps({**note, "end": time.monotonic()}))
    return float(HydraConfig.get().job.num)


def wait_for(is_there, patience_s: float = 120.0) -> None:
    """Look again and again; a job that waits in vain fails."""
    end = time.monotonic() + patience_s
    while not is_there():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)


if __name__ == "__main__":
    main()
