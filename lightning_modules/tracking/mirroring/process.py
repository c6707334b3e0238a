"""The process that mirrors a run in W&B: `python -m lightning_modules.tracking.mirroring.process <run folder>`.

It reads the record of the run (record.py beside it) and writes nothing but <run folder>/wandb. Training never calls
wandb: whatever happens to W&B, its service, its server or its folder happens here. Who starts it says "go" on its standard input once
mirror.json is written and "end <exit code>" at the end of the job; if it falls silent without that, the job was killed and its run ends
with exit code 1. On standard output it says, as lines of JSON, what moves and what goes wrong. Everything has a time limit, after
which W&B's service is killed, too. Loading torch here would take seconds: nothing of it is imported.
"""

import json
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning_modules.tracking.mirroring.content import (
    make_artifacts,
    name_artifact,
    read_figures,
    show_evaluation,
    show_page,
)
from lightning_modules.tracking.mirroring.facts import count_parameters, is_online, mask
from lightning_modules.tracking.mirroring.liveness import find_children
from lightning_modules.tracking.mirroring.offline import OfflineRun, find_offline, read_offline
from lightning_modules.tracking.mirroring.record import METRICS_FILE, MIRROR_FILE, SENT_FILE, STEP_KEY, Follower, read_json

OPEN_S, LOG_S = 90.0, 60.0
FINISH_S = {False: 60.0, True: 900.0}
"""offline, and online, where everything that is left is sent"""
READY_S = 10.0
"""to wait for the ledger, which is written before step 1, so that the config is whole when the run begins"""
POLL_S = 0.5
WRITE_S = 10.0
"""for W&B's service to write what it was told"""
LEAST_SPACE = 2**14


def main() -> None:
    """Mirror the run of the folder that is named on the command line."""
    folder, orders = Path(sys.argv[1]), Orders()
    place = folder / "wandb" / "staging"  # what W&B keeps beside its run lies in the run folder, too, and nowhere else
    os.environ |= {"WANDB_DATA_DIR": str(place / f"{time.time_ns()}"), "WANDB_CACHE_DIR": str(place / "cache")}
    try:
        import wandb  # before the order comes: it takes a second

        del wandb
        if orders.wait_for_go():
            mirror(folder, orders)
        leave(0)
    except BaseException as error:  # whatever it is, it is said, and no more
        say(trouble=f"{type(error).__name__}: {' '.join(str(error).split())[:300] or 'no reason was given'}")
        leave(1)


class Orders:
    """What the job says on standard input."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._text = b""
        self._has_go = False

    def wait_for_go(self) -> bool:
        """Whether there is a run to mirror."""
        while not self._has_go and not self.is_over:
            self.wait(3600.0)
        return self._has_go

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.exit_code is not None

    def wait(self, seconds: float) -> None:
        """Wait for the next word of the job, for so long."""
        if self.is_over or not select.select([0], [], [], seconds)[0]:
            return
        data = os.read(0, 4096)
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            self._has_go |= line == b"go"
            if line.startswith(b"end "):
                self.exit_code = int(line[4:])
        if not data and self.exit_code is None:
            self.exit_code = 1


def mirror(folder: Path, orders: Orders) -> None:
    """Open the run, tell W&B what the record says until the job has ended, then what it has left, and look whether it arrived."""
    facts = read_json(folder / MIRROR_FILE)
    online = bool(is_online(facts["offline"]))
    before = find_offline(folder)
    deadline = time.monotonic() + READY_S
    while not (orders.is_over or (folder / "ledger.json").is_file() or (folder / METRICS_FILE).is_file()):
        orders.wait(0.1)
        if time.monotonic() > deadline:
            break
    with limit(OPEN_S, "W&B did not open the run"):
        run = open_run(folder, facts, online)
    say(url=run.url if online else None)
    numbers = follow(folder, run, orders)
    with limit(FINISH_S[online], "W&B did not take what the run has left"):
        hand_over(folder, run, facts, online)
        run.finish(exit_code=orders.exit_code)
    if online:
        (folder / SENT_FILE).write_text(json.dumps({"id": facts["id"], "time": time.time()}), encoding="utf-8")
    else:
        check_offline(folder, facts["id"], numbers)
        drop_older(folder, facts["id"], before)
    say(done=True)


def open_run(folder: Path, facts: dict[str, Any], online: bool) -> Any:
    """The W&B run, with the config as far as it is known."""
    import wandb

    # nothing of the machine, the code and the environment beyond what the passport says: metadata of W&B copies SLURM_JWT and diffs
    settings = wandb.Settings(
        console="off",
        silent=True,
        disable_code=True,
        disable_git=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        x_stats_pid=os.getppid(),
        init_timeout=OPEN_S,
    )
    told = {key: facts[key] for key in ("id", "project", "name", "group", "job_type", "tags", "notes")}
    place = str(folder.absolute())
    mode = "online" if online else "offline"
    run = wandb.init(**told, config=collect_config(folder, facts), dir=place, mode=mode, resume="allow", settings=settings)
    run.define_metric(STEP_KEY)
    run.define_metric("*", step_metric=STEP_KEY, step_sync=True)
    return run


def collect_config(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The config in W&B: what mirror.json holds, and what the job has written of itself since."""
    config = dict(facts["config"])
    passport = read_json(folder / "passport.json")
    code = passport.get("code") or {}
    if passport:
        config |= {"code": {key: code.get(key) for key in ("commit", "is_dirty")}, "environment": passport.get("environment")}
        config |= {"ranks": passport.get("ranks"), "data_fingerprint": passport.get("data")}
    if counts := count_parameters(read_json(folder / "ledger.json")):
        config["parameters"] = counts
    return mask(config)


def follow(folder: Path, run: Any, orders: Orders) -> set[int]:
    """Log what the record says, until the job has ended and all is said; returns the numbers of the rows."""
    follower, numbers, first = Follower(folder), set(), run.step
    has_config = False
    while True:
        is_over = orders.is_over
        with limit(LOG_S, "W&B did not take a row"):
            if not has_config and (folder / "ledger.json").is_file():
                run.config.update(collect_config(folder, read_json(folder / MIRROR_FILE)), allow_val_change=True)
                has_config = True
            for entry in follower.read(is_over):
                if entry.number < first:  # sent by an earlier start
                    continue
                numbers.add(entry.number)
                shown = {} if entry.page is None else show_page(entry.page, entry.values[STEP_KEY])
                run.log({**entry.values, **shown}, step=entry.number)
                say(row=entry.number)
        if is_over:
            break
        check_space(folder)
        orders.wait(POLL_S)
    if follower.num_damaged:
        say(trouble=f"{follower.num_damaged} lines of {METRICS_FILE} are damaged and were left out.")
    return numbers


def hand_over(folder: Path, run: Any, facts: dict[str, Any], online: bool) -> None:
    """What is known at the end: figures of an evaluation, tables, pictures, the record and the weights as artifacts."""
    import wandb

    run.config.update(collect_config(folder, facts), allow_val_change=True)
    if shown := show_evaluation(folder):
        run.log(shown)
    if figures := read_figures(folder):
        run.summary.update(figures)
    parents = facts["config"].get("parents", {})
    for parent in parents.values() if online else ():  # offline nothing can be looked up
        try:
            run.use_artifact(f"{name_artifact(parent['identity'])}:latest")
        except (wandb.errors.CommError, ValueError):
            say(note=f"W&B has no weights {parent['identity'][:12]}, which this run started from")
    for artifact in make_artifacts(folder, facts):
        run.log_artifact(artifact)


def check_offline(folder: Path, id: str, numbers: set[int]) -> None:
    """Wait until what was said is on disk: W&B's service is a little behind, and does not say when its disk is full.

    Raises:
        OSError: it is not.
    """
    deadline = time.monotonic() + WRITE_S
    while True:
        check_space(folder)
        places = [place for place in find_offline(folder) if place.name.endswith(f"-{id}")]
        found = read_offline(places[-1]) if places else OfflineRun()
        written = {row.get("_step") for row in found.rows}
        if found.exit_code is not None and numbers <= written:
            return
        if time.monotonic() > deadline:
            raise OSError(f"W&B wrote {len(numbers & written)} of {len(numbers)} rows to {folder / 'wandb'}")
        time.sleep(0.1)


def check_space(folder: Path) -> None:
    """Look whether W&B has room to write.

    Raises:
        OSError: it has none.
    """
    if shutil.disk_usage(folder / "wandb").free < LEAST_SPACE:
        raise OSError(f"no space is left for {folder / 'wandb'}")


def drop_older(folder: Path, id: str, before: Sequence[Path]) -> None:
    """Remove the offline folders of earlier starts of this run, and what lay beside them: all that they held is in the new one."""
    own = Path(os.environ["WANDB_DATA_DIR"])
    staged = [place for place in own.parent.glob("*") if place.name.isdecimal() and place != own]
    for place in (*(place for place in before if place.name.endswith(f"-{id}")), *staged, own.parent / "cache"):
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def limit(seconds: float, trouble: str) -> Iterator[None]:
    """Give a block so many seconds; after them it is said and this process ends, whatever it hangs in."""

    def end() -> None:
        say(trouble=f"{trouble} within {seconds:.0f} s.")
        leave(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def say(**facts: Any) -> None:
    """Tell the job, if it still listens."""
    with suppress(OSError):
        os.write(1, json.dumps(facts).encode() + b"\n")


def leave(exit_code: int) -> None:
    """End at once, with W&B's service: a handler at exit would wait for it, and a stopped one never ends by itself."""
    for child in find_children(os.getpid()):
        try:
            os.kill(child, signal.SIGKILL)
        except OSError:
            continue
    os._exit(exit_code)


if __name__ == "__main__":
    main()
