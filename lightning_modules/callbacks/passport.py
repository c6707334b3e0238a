"""The passport of a run: commit, uncommitted changes, config and its hash, data, environment, seeds, parents, and how it ended.

Written before step 1 and completed at the end, so a run that was killed has one too. Of a run that was gone on with it speaks of the last
start, which holds from `from_step` on, names what changed with it, and lists the starts before. It does not know what the config means.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml

import plait
from lightning_modules.callbacks.quiet import Quiet
from lightning_modules.training.endings import describe_ending

PACKAGES = ("plait", "torch", "lightning", "transformers", "datasets", "wandb", "hydra-core", "numpy", "pillow", "safetensors")
VARIABLES = ("OMP_NUM_THREADS", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "CUDA_VISIBLE_DEVICES", "PL_GLOBAL_SEED")
LONGEST_DIFF = 200_000


class PassportFile(Quiet):
    """Writes passport.json into the run folder.

    Args:
        folder: run folder.
        config: resolved config; None reads `folder`/config.yaml, which the commands write.
        seeds: name -> seed.
        parents: checkpoints that the run starts from.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any] | None = None,
        seeds: Mapping[str, int] | None = None,
        parents: Mapping[str, Any] | Sequence[Any] = (),
    ) -> None:
        self.folder = Path(folder)
        self.config, self.seeds, self.parents = config, dict(seeds or {}), parents
        self.facts: dict[str, Any] = {}
        self._started = 0.0

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Write what is known before step 1."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        self._started = time.time()
        config = self._read_config()
        job = self._read("job.json")
        self.facts = {
            "state": "running",
            "from_step": job.get("from_step", 0),
            "changes": job.get("changes", {}),
            "starts": self._list_starts(len(job.get("starts", ()))),
            "stage": type(pl_module).__name__,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self._started)),
            "config": config,
            "config_hash": hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest(),
            "data": getattr(trainer.datamodule, "fingerprint", None),
            "seeds": self.seeds or {"global": int(os.environ.get("PL_GLOBAL_SEED", -1))},
            "parents": self.parents,
            "ranks": trainer.world_size,
            "code": read_code_state(Path(plait.__file__).parent.parent),
            "environment": read_environment(),
        }
        self._write()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note that training came to its end."""
        self._end(trainer, **describe_ending(trainer))

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Note what stopped it."""
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit)
        self._end(trainer, state="interrupted" if stopped else "failed", error=repr(exception))

    def _end(self, trainer: lightning.Trainer, **ending: str) -> None:
        if not trainer.is_global_zero or not self.facts:
            return
        duration_s = time.time() - self._started + sum(start.get("duration_s", 0.0) for start in self.facts["starts"])
        self.facts |= {**ending, "step": trainer.global_step, "duration_s": duration_s}
        self._write()

    def _list_starts(self, count: int) -> list[dict[str, Any]]:
        """Earlier starts of this run, the last one as its passport has it: what it trained with is true up to `from_step` of the next."""
        last = self._read("passport.json") if count else {}
        if not last:
            return []
        earlier = last.get("starts", [])
        kept = ("state", "started", "step", "from_step", "changes", "config_hash", "ranks", "because", "error")
        own = {key: last[key] for key in kept if key in last}
        if "duration_s" in last:
            own["duration_s"] = last["duration_s"] - sum(start.get("duration_s", 0.0) for start in earlier)
        return [*earlier, {**own, "commit": last.get("code", {}).get("commit")}]

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def _read_config(self) -> Any:
        if self.config is not None:
            return dict(self.config)
        path = self.folder / "config.yaml"
        return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self.folder / ".passport.json.tmp"
        beside.write_text(json.dumps(self.facts, indent=1, default=str), encoding="utf-8")
        beside.replace(self.folder / "passport.json")


def read_code_state(root: Path) -> dict[str, Any]:
    """Commit and uncommitted changes of the checkout at `root`; where there is none, the reason."""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        diff, status = _git(root, "diff", "HEAD"), _git(root, "status", "--porcelain")
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        return {"commit": None, "reason": reason.strip().splitlines()[0] if reason.strip() else "git failed"}
    return {
        "commit": commit.strip(),
        "is_dirty": bool(status.strip()),
        "changed": [line[3:] for line in status.splitlines()],
        "diff_sha256": hashlib.sha256(diff.encode()).hexdigest(),
        "diff": diff if len(diff) <= LONGEST_DIFF else None,
    }


def read_environment() -> dict[str, Any]:
    """Versions, machine and the variables that change speed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "packages": versions,
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
