"""W&B offline: one run per job, always finished, every sample viewable from the run folder alone."""

import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import wandb

from lightning_modules.callbacks.sample_gallery import SampleGallery
from lightning_modules.data import DataModule
from lightning_modules.tracking import JsonlLogger, WandbRun
from plait.checkpoints import save_checkpoint
from plait.errors import RecipeError
from tests.lightning_modules.stubs import Numbers, make_stage, train
from tests.lightning_modules.test_callbacks import draw


def offline_runs(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "wandb").glob("offline-run-*") if path.is_dir())


def test_two_jobs_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stages of one group, the first logger still open when the second begins: two runs, each with its own rows, finished,
    and its samples complete after the first run folder was moved and everything else deleted."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    loggers = []
    for name in ("one", "two"):
        folder = tmp_path / name
        logger = WandbRun(folder, name=name, group="g", job_type="pretraining", tags=["t"])
        stage = make_stage(4, seed=len(loggers))
        gallery = SampleGallery(folder, draw)
        train(folder, stage, DataModule(Numbers(4)), callbacks=(gallery,), loggers=(logger,), max_steps=4)
        loggers.append(logger)
    assert loggers[0].experiment.id != loggers[1].experiment.id
    assert wandb.run is None
    assert (loggers[0].experiment.group, loggers[0].experiment.job_type) == ("g", "pretraining")
    summaries = [dict(logger.experiment.summary) for logger in loggers]
    for logger, summary in zip(loggers, summaries, strict=True):
        rows = [json.loads(line) for line in (logger.folder / "metrics.jsonl").read_text().splitlines()]
        assert summary["train/loss"] == pytest.approx(rows[-1]["train/loss"])
        logger.finish(0)
        logger.finish(1)  # nothing more happens
        with pytest.raises(RecipeError, match="is finished"):
            logger.experiment  # noqa: B018
    assert summaries[0]["train/loss"] != summaries[1]["train/loss"]
    assert "WANDB_MODE" not in os.environ

    kept = tmp_path / "elsewhere"
    shutil.move(tmp_path / "one", kept)
    shutil.rmtree(tmp_path / "two")
    (run,) = offline_runs(kept)
    (record,) = run.glob("*.wandb")
    assert record.stat().st_size > 1000
    (page,) = (run / "files/media/html").glob("samples_*.html")
    assert page.read_text() == (kept / "samples/step-0000004.html").read_text()
    assert page.read_text().count("data:image/png;base64,") == 1
    (table,) = (run / "files/media/table").glob("sample_scores_*.json")
    content = json.loads(table.read_text())
    assert content["columns"] == ["step", "id", "seed", "file", "right"]
    assert content["data"] == [[3, "one", "3", "samples/step-0000004.html", True]]


def test_a_failure_finishes_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exit code of the job, also when it is used as a context."""
    codes = []

    class FakeRun:
        id = "x"

        def finish(self, exit_code: int) -> None:
            codes.append(exit_code)

    monkeypatch.setattr(WandbRun, "_open", lambda self: FakeRun())
    for status in ("failed", "interrupted"):
        logger = WandbRun(tmp_path)
        assert logger.experiment.id == "x"
        logger.finalize(status)
    with WandbRun(tmp_path) as logger:
        assert logger.experiment.id == "x"
    stopped = WandbRun(tmp_path)
    assert stopped.experiment.id == "x"
    stopped.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with WandbRun(tmp_path):
        pass  # never opened: nothing to finish
    assert codes == [1, 1, 0, 1]


def test_rows_are_strict_json(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path)
    logger.log_metrics({"a": float("nan"), "b": 2}, step=3)
    logger.resume_from(3)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    JsonlLogger(tmp_path / "new").resume_from(0)
    assert not (tmp_path / "new").exists()
    assert lines == ['{"step": 3, "a": "nan", "b": 2}', '{"resumed_from_step": 3}']


class OnlineRun:
    """What W&B offers when it can be asked: it knows the artifact of the first parent only."""

    def __init__(self) -> None:
        self.settings, self.used, self.logged = SimpleNamespace(_offline=False), [], []

    def use_artifact(self, name: str) -> None:
        if "bbbb" in name:
            raise wandb.errors.CommError(f"{name} not found")
        self.used.append(name)

    def log_artifact(self, artifact: wandb.Artifact) -> None:
        self.logged.append(artifact)


def test_weights_are_an_artifact_that_names_its_parents(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    identity = save_checkpoint(tmp_path / "last.ckpt", {"w": torch.ones(1)}, model="m", step=3).identity
    logger = WandbRun(tmp_path)
    run = logger._run = OnlineRun()
    logger.log_weights(tmp_path / "last.ckpt", {"vision_tokenizer": "a" * 64, "model": "b" * 64})
    assert run.used == [f"weights-{'a' * 16}:latest"]
    assert "no artifact of bbbbbbbbbbbb" in caplog.text
    (artifact,) = run.logged
    assert (artifact.name, artifact.type) == (f"weights-{identity[:16]}", "weights")
    assert artifact.metadata["parents"] == {"vision_tokenizer": "a" * 64, "model": "b" * 64}
    assert set(artifact.manifest.entries) == {"manifest.json"}
    logger.has_weights = True
    logger.log_weights(tmp_path / "last.ckpt", {})
    assert set(run.logged.pop().manifest.entries) == {"manifest.json", "model.safetensors"}
    logger.log_weights(tmp_path / "no.ckpt", {})
    assert len(run.logged) == 1


def test_the_record_of_a_run_is_handed_over(tmp_path: Path) -> None:
    logger = WandbRun(tmp_path)
    run = logger._run = OnlineRun()
    run.id = "abc"
    (tmp_path / "samples").mkdir()
    for name in ("config.yaml", "metrics.jsonl", "samples/step-0000002.html", "job.json"):
        (tmp_path / name).write_text(name)
    logger.log_record(tmp_path)
    (artifact,) = run.logged
    assert (artifact.name, artifact.type) == ("record-abc", "record")
    assert set(artifact.manifest.entries) == {"config.yaml", "metrics.jsonl", "samples/step-0000002.html"}


def test_offline_the_artifact_stands_in_the_record_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    identity = save_checkpoint(tmp_path / "last.ckpt", {"w": torch.ones(1)}, model="m").identity
    with WandbRun(tmp_path) as logger:
        logger.log_weights(tmp_path / "last.ckpt", {"model": "b" * 64})
    (record,) = offline_runs(tmp_path)[0].glob("*.wandb")
    name, deadline = f"weights-{identity[:16]}".encode(), time.monotonic() + 60
    while name not in record.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.1)  # another process writes the record, and may be behind
    assert name in record.read_bytes()
