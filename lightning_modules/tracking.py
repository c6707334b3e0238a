"""The record of a run and its mirror in W&B, as two Lightning loggers.

`JsonlLogger` writes metrics.jsonl, one flushed row per call: kill -9 loses nothing of it (W&B offline lost 2 to 101 rows).
`WandbRun` mirrors the same rows, offline unless told otherwise; lightning_modules/mirror.py reads them back. Neither knows what is
logged. Traps that are avoided here: two
loggers in one process that write into one run (each opens its own, beside any other), a W&B step that goes back (`step=` is
never passed; the x axis is trainer/global_step), pictures in Tables (their bytes lie outside the run folder; samples are Html).
"""

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from plait.checkpoints import MANIFEST, WEIGHTS, read_manifest
from plait.errors import RecipeError
from plait.rendering import render_html
from plait.samples import Sample

METRICS_FILE = "metrics.jsonl"
STEP_KEY = "trainer/global_step"
RECORD = ("config.yaml", "passport.json", "ledger.json", "lineage.json", METRICS_FILE, "samples", "text_tokenizer")
"""what of a run folder W&B is given; the record of the job is still open then"""
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
            self._append({"resumed_from_step": step})

    def _append(self, row: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class WandbRun(Logger):
    """One W&B run, opened by its first row and always finished.

    Args:
        folder: run folder; W&B writes below `folder`/wandb.
        project, name, group, job_type, tags: as W&B knows them.
        offline: keep everything here (`wandb sync` sends it later). The variable WANDB_MODE wins over it.
        has_weights: hand the finished weights over as well, so that others can open the model; without them only their manifest.
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
    ) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.is_offline, self.has_weights = offline, has_weights
        self._facts = {"project": project, "name": name, "group": group, "job_type": job_type, "tags": list(tags)}
        self._run: Any = None
        self._is_finished = False

    @property
    def name(self) -> str | None:
        """Project name, as Lightning's own W&B logger has it."""
        return self._facts["project"]

    @property
    def version(self) -> str | None:
        """Id of the run, once it is open."""
        return self._run.id if self._run is not None else None

    @property
    def experiment(self) -> Any:
        """The W&B run (rank 0; elsewhere None).

        Raises:
            RecipeError: it was finished before: a job is one run.
        """
        if rank_zero_only.rank != 0:
            return None
        if self._is_finished:
            raise RecipeError("This W&B run is finished. A job is one run: make a new WandbRun for the next one.")
        if self._run is None:
            self._run = self._open()
        return self._run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log one row; the step is a value of the row, not W&B's own."""
        self.experiment.log(dict(metrics) if step is None else {**metrics, STEP_KEY: step})

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Put settings into the config of the run."""
        self.experiment.config.update(vars(params) if hasattr(params, "__dict__") else dict(params), allow_val_change=True)

    @rank_zero_only
    def log_samples(self, samples: Sequence[Sample], step: int, page: str | None = None, file_name: str = "") -> None:
        """Log interleaved samples: one page with inline pictures, and a table of what can be sorted and filtered.

        Args:
            page: the page, where it was rendered before (the same bytes as on disk).
            file_name: of that page in the run folder, for the table.
        """
        import wandb

        scores = sorted({name for sample in samples for name in sample.scores})
        seeds = [None if sample.seed is None else str(sample.seed) for sample in samples]  # JavaScript rounds above 2^53
        rows = [
            [step, sample.document.id, seed, file_name, *(sample.scores.get(name) for name in scores)]
            for sample, seed in zip(samples, seeds, strict=True)
        ]
        table = wandb.Table(columns=["step", "id", "seed", "file", *scores], data=rows, allow_mixed_types=True)
        html = wandb.Html(page or render_html(samples, title=f"step {step}"), inject=False)
        self.log_metrics({"samples": html, "sample_scores": table}, step)

    @rank_zero_only
    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table of numbers and words."""
        import wandb

        self.experiment.log(
            {name: wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)}
        )

    @rank_zero_only
    def log_weights(self, checkpoint: Path, parents: Mapping[str, str]) -> None:
        """Tell W&B which weights this run made and what they came from. The artifact holds the manifest, and the weights if asked.

        Offline nothing can be looked up, so no inputs are named: lineage.json and the metadata of the artifact have them.

        Args:
            checkpoint: folder of the finished weights; a run without one has no artifact.
            parents: part -> identity of the weights it started from.
        """
        if not (checkpoint / MANIFEST).is_file():
            return
        import wandb

        run, manifest = self.experiment, read_manifest(checkpoint)
        facts = {"identity": manifest.identity, "step": manifest.step, "model": manifest.model, "parents": dict(parents)}
        artifact = wandb.Artifact(name_artifact(manifest.identity), type="weights", metadata=facts)
        for name in (MANIFEST, WEIGHTS) if self.has_weights else (MANIFEST,):
            artifact.add_file(str(checkpoint / name))
        for identity in parents.values() if not run.settings._offline else ():
            try:
                run.use_artifact(f"{name_artifact(identity)}:latest")
            except (wandb.errors.CommError, ValueError) as error:
                log.warning("W&B knows no artifact of %s, which this run started from: %s", identity[:12], error)
        run.log_artifact(artifact)

    @rank_zero_only
    def log_record(self, folder: Path) -> None:
        """Hand over what the run folder says of itself (config, passport, ledger, lineage, metrics, samples): small, and enough to
        open the run elsewhere (`lightning_modules.mirror.fetch_run`)."""
        import wandb

        artifact = wandb.Artifact(f"record-{self.experiment.id}", type="record")
        for path in (folder / name for name in RECORD):
            if path.is_dir():
                artifact.add_dir(str(path), name=path.name)
            elif path.is_file():
                artifact.add_file(str(path))
        self.experiment.log_artifact(artifact)

    @rank_zero_only
    def finish(self, exit_code: int = 0) -> None:
        """Finish the run with the exit code of the job; a second call does nothing."""
        if self._run is not None and not self._is_finished:
            self._run.finish(exit_code=exit_code)
        self._is_finished = True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Lightning's word that training is over; after a failure the run is finished here, whoever owns the job."""
        if status != "success":
            self.finish(1)

    def __enter__(self) -> "WandbRun":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.finish(0 if kind is None else 1)

    def _open(self) -> Any:
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        mode = None if os.environ.get("WANDB_MODE") else "offline" if self.is_offline else "online"
        # create_new: beside any run that is open, instead of writing into it
        settings = wandb.Settings(reinit="create_new", console="off", silent=self.is_offline)
        # absolute: the service that writes may be another process's, in another directory (WANDB_SERVICE is inherited)
        run = wandb.init(**self._facts, dir=str(self.folder.absolute()), mode=mode, settings=settings)
        run.define_metric(STEP_KEY)
        run.define_metric("*", step_metric=STEP_KEY, step_sync=True)
        return run


def name_artifact(identity: str) -> str:
    """The name under which W&B has the weights of an identity."""
    return f"weights-{identity[:16]}"


def write_plain(value: Any) -> Any:
    """A number as JSON can hold it."""
    value = value.item() if hasattr(value, "item") else value
    # JSON has no NaN: its name is written, so that no row is lost and every reader can read it
    return value if not isinstance(value, float) or math.isfinite(value) else repr(value)
