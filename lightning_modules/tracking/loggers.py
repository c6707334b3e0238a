"""The record of a run and its mirror in W&B, as two Lightning loggers.

`JsonlLogger` writes metrics.jsonl, one flushed row per call: kill -9 loses nothing of it (W&B offline lost 2 to 101 rows).
`WandbRun` starts the process that mirrors the run folder (tracking/mirroring/process.py), offline unless told otherwise, and never waits
for it; it hands it no rows. Neither knows what is logged.
"""

import atexit
import json
import logging
import math
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lightning_modules.tracking.mirroring.facts import check_names, choose_id, is_online, mask
from lightning_modules.tracking.mirroring.liveness import feel_pulse
from lightning_modules.tracking.mirroring.record import METRICS_FILE, MIRROR_FILE
from plait.atomic import write_json
from plait.errors import PlaitError

LOOK_S = 1.0
"""seconds between two looks at what the mirror says"""
FEWEST_TICKS = 2
"""of computing time, by which a mirror that works is told from one that hangs"""
KEPT = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "NETRC",
    "CUDA_VISIBLE_DEVICES",
)
KEPT_BEGINNINGS = ("WANDB_", "PYTHON", "XDG_", "LC_", "SSL_", "REQUESTS_", "CURL_", "HTTP", "NO_PROXY", "http", "no_proxy")
"""variables of the environment that the mirror is given"""
log = logging.getLogger(__name__)


class JsonlLogger(Logger):
    """Appends rows {"step": ..., key: number} to `folder`/metrics.jsonl.

    A run that finds rows here appends {"resumed_from_step": k}: rows of steps k and later that come before it belong to work that
    was lost and is done again, all of it where k is 0 (`plait.runs.Run.metrics` leaves them out).
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / METRICS_FILE

    name = "metrics"
    version = ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one row."""
        self._append({"step": step, **{key: write_plain(value) for key, value in metrics.items()}})

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the passport holds the config."""

    @rank_zero_only
    def resume_from(self, step: int) -> None:
        """Note that training goes on after `step` completed steps; a first start has nothing to note."""
        if self.path.is_file():
            self._end_last_row()
            self._append({"resumed_from_step": step})

    def _end_last_row(self) -> None:
        """A machine that went down may have cut the last row short: it would swallow what is appended. What cannot be read is taken out."""
        with open(self.path, "rb+") as file:
            content = file.read()
            start = content.rfind(b"\n") + 1
            if not content[start:]:
                return
            try:
                json.loads(content[start:])
                file.write(b"\n")
            except ValueError:
                log.warning("%s ends in half a row, which is taken out: %r", self.path, content[start : start + 80])
                file.truncate(start)

    def _append(self, row: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def harmless(call: Callable[..., None]) -> Callable[..., None]:
    """A call whose errors are said and never raised: they are W&B's, and not the job's."""

    @wraps(call)
    def guarded(self: "WandbRun", *arguments: Any, **named: Any) -> None:
        try:
            call(self, *arguments, **named)
        except PlaitError:  # a refusal, before anything runs
            raise
        except Exception as error:
            self._say(f"{type(error).__name__}: {error}.")

    return guarded


class WandbRun(Logger):
    """One W&B run, mirrored from the run folder by a process of its own: training never calls wandb, and nothing that happens to W&B can
    stop, slow or fail it. What goes wrong is said once; `plait-sync` makes the run complete later.

    Args:
        folder: run folder; W&B writes below `folder`/wandb.
        project, name, group, job_type, tags: as W&B knows them.
        offline: keep everything here (`wandb sync` sends it later). The variable WANDB_MODE wins over it.
        has_weights: hand the finished weights over as well, so that others can open the model; without them only their manifest.
        patience_s: seconds that the end of a job waits for its mirror; half of them where it stands still.

    Raises:
        RecipeError: W&B would refuse a name or a tag.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        project: str = "plait",
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] = (),
        offline: bool = True,
        has_weights: bool = False,
        patience_s: float = 0.7,
    ) -> None:
        super().__init__()
        self.folder, self.patience_s = Path(folder), patience_s
        self.facts: dict[str, Any] = {
            "project": project,
            "name": name,
            "group": group,
            "job_type": job_type,
            "tags": list(tags),
        }
        check_names(**self.facts)
        self._has_mirror = is_online(offline) is not None
        self.facts |= {"notes": None, "config": {}, "offline": offline, "has_weights": has_weights}
        self._process: subprocess.Popen[bytes] | None = None
        self._is_open = self._is_finished = self._has_spoken = False
        self._text, self._looked, self._moved = b"", 0.0, 0.0
        self.is_complete = False

    @property
    def name(self) -> str | None:
        """Project name, as Lightning's own W&B logger has it."""
        return self.facts["project"]

    @property
    def version(self) -> str | None:
        """Id of the run, once it is open."""
        return self.facts.get("id")

    @rank_zero_only
    @harmless
    def start(self) -> None:
        """Start the process, which has something to load; it opens no run before `open`."""
        if self._process is not None or self._is_finished or not self._has_mirror:
            return
        command = [sys.executable, "-m", "lightning_modules.tracking.mirroring.process", str(self.folder.absolute())]
        self._process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=choose_environment(),
            start_new_session=True,  # Ctrl-C is for the job, which tells it how it ended
        )
        os.set_blocking(self._process.stdout.fileno(), False)
        atexit.register(self._end_with, os.getpid())

    @rank_zero_only
    @harmless
    def open(self, **facts: Any) -> None:
        """Write down what W&B is told of the job, and let the process begin; a second call does nothing.

        Args:
            facts: what replaces or joins the facts of the constructor: id, name, group, tags, notes, config.
        """
        if self._is_open or self._is_finished or not self._has_mirror:
            return
        self.start()
        self._is_open = True
        self.facts |= facts
        if "id" not in self.facts:
            self.facts["id"] = choose_id(self.folder, None, is_training=True)
        write_json(self.folder / MIRROR_FILE, mask(self.facts))
        self._send(b"go\n")

    @rank_zero_only
    @harmless
    def open_with(self, make_facts: Callable[[], Mapping[str, Any]]) -> None:
        """`open` with facts that are collected here, where it harms nobody if that fails."""
        self.open(**make_facts())

    @rank_zero_only
    @harmless
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Open the run if nobody has, and look now and then how the mirror does: the rows it reads from metrics.jsonl."""
        self.open()
        if time.monotonic() - self._looked > LOOK_S:
            self._look()

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the config is told by whoever started the job."""

    @rank_zero_only
    @harmless
    def finish(self, exit_code: int = 0) -> None:
        """End the run with the exit code of the job, and wait for the mirror as long as it moves; a second call does nothing."""
        if self._is_finished:
            return
        self._is_finished = True
        if self._process is None:
            return
        self._send(f"end {exit_code}\n".encode())
        is_working = self._wait()
        if self._process.poll() is None and self._is_open and not self.is_complete:
            if is_working and not self._has_spoken:
                log.info(
                    "W&B: the mirror is still being written and goes on alone; if it is cut off: plait-sync runs=%s",
                    self.folder,
                )
            else:
                self._say("it stands still, and is left alone.")
        if feel_pulse(self._process.pid).is_stopped:  # it never ends by itself
            self._process.kill()
        self._process.stdin.close()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Lightning's word that training is over; after a failure the run is finished here, whoever owns the job."""
        if status != "success":
            self.finish(1)

    def __enter__(self) -> "WandbRun":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.finish(0 if kind is None else 1)

    def _wait(self) -> bool:
        """Wait for the mirror while it works, and no longer than `patience_s`; returns whether it still did at the end."""
        deadline = time.monotonic() + self.patience_s
        self._moved, pulse = time.monotonic(), feel_pulse(self._process.pid)
        while self._process.poll() is None and (now := time.monotonic()) < deadline and now - self._moved < self.patience_s / 2:
            select.select([self._process.stdout], [], [], 0.05)
            self._look()
            felt = feel_pulse(self._process.pid)
            if felt.is_running or felt.ticks - pulse.ticks >= FEWEST_TICKS:
                self._moved, pulse = time.monotonic(), felt
        self._look()
        return time.monotonic() - self._moved < self.patience_s / 2

    def _send(self, order: bytes) -> None:
        if self._process is not None:
            with suppress(OSError):  # it has ended, and has said why
                self._process.stdin.write(order)

    def _look(self) -> None:
        """Read what the process says, without waiting for it."""
        self._looked = time.monotonic()
        if self._process is None:
            return
        with suppress(BlockingIOError):
            while data := os.read(self._process.stdout.fileno(), 65536):
                self._text += data
                self._moved = time.monotonic()
        *lines, self._text = self._text.split(b"\n")
        for word in map(json.loads, lines):
            self.is_complete |= word.get("done", False)
            if word.get("url"):
                log.info("W&B: %s", word["url"])
            if word.get("note"):
                log.info("W&B: %s", word["note"])
            if word.get("trouble"):
                self._say(word["trouble"])
        if self._process.poll() not in (None, 0):
            self._say(f"its process ended with {self._process.returncode}.")

    def _say(self, trouble: str) -> None:
        if not self._has_spoken:
            self._has_spoken = True
            log.warning(
                "The mirror in W&B is not complete: %s The job goes on as it would, and its record is whole (%s). Next: "
                "plait-sync runs=%s makes it complete.",
                trouble,
                self.folder / METRICS_FILE,
                self.folder,
            )

    def _end_with(self, process: int) -> None:
        if os.getpid() == process:  # and not in a fork of it
            self.finish(1)


def choose_environment() -> dict[str, str]:
    """What the process of the mirror is told of the environment: what W&B and Python need, and nothing that could be a secret of others."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith(KEPT_BEGINNINGS)}
    for name in ("WANDB_RUN_ID", "WANDB_SERVICE"):  # the run folder has its id, and a mirror a service of its own
        kept.pop(name, None)
    kept["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return kept


def write_plain(value: Any) -> Any:
    """A number as JSON can hold it."""
    value = value.item() if hasattr(value, "item") else value
    # JSON has no NaN: its name is written, so that no row is lost and every reader can read it
    return value if not isinstance(value, float) or math.isfinite(value) else repr(value)
