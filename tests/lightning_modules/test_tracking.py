"""The record of a run, and its mirror in W&B as a job sees it: started, never waited for long, and whatever it does, the job goes on."""

import json
import logging
import time
from pathlib import Path

import pytest
import wandb

from lightning_modules.callbacks.sample_gallery import SampleGallery
from lightning_modules.tracking import loggers
from lightning_modules.tracking.loggers import JsonlLogger, WandbRun, choose_environment
from lightning_modules.tracking.mirroring.offline import find_offline
from lightning_modules.training.data import DataModule
from plait.errors import RecipeError
from tests.lightning_modules.mirroring.mirrors import check_rows, settle
from tests.lightning_modules.stubs import Numbers, make_stage, train
from tests.lightning_modules.test_callbacks import draw


def test_rows_are_strict_json(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path)
    logger.log_metrics({"a": float("nan"), "b": 2}, step=3)
    logger.resume_from(3)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    JsonlLogger(tmp_path / "new").resume_from(0)
    assert not (tmp_path / "new").exists()
    assert lines == ['{"step": 3, "a": "nan", "b": 2}', '{"resumed_from_step": 3}']


def test_two_jobs_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run still open when the second begins: two runs, each with its own rows, samples at several steps under one key, and
    nothing of them outside of the run folder. A second start of a job is the same run."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    loggers = []
    for name in ("one", "two"):
        folder = tmp_path / name
        logger = WandbRun(folder, name=name, group="g", job_type="pretraining", tags=["t"])
        gallery = SampleGallery(folder, draw, every_n_steps=None)
        train(
            folder,
            make_stage(4, seed=len(loggers)),
            DataModule(Numbers(8)),
            callbacks=(gallery,),
            loggers=(logger,),
            max_steps=4,
        )
        loggers.append(logger)
    assert wandb.run is None
    for logger in loggers:
        logger.finish(0)
        logger.finish(1)  # nothing more happens
    found = [settle(logger.folder) for logger in loggers]
    for name, logger, run in zip(("one", "two"), loggers, found, strict=True):
        told = {"id": logger.version, "project": "plait", "name": name, "group": "g", "job_type": "pretraining", "tags": ["t"]}
        assert {key: run.facts[key] for key in told} == told
        check_rows(logger.folder, run)
        assert run.exit_code == 0
        steps = [row["_step"] for row in run.rows if "samples" in row]
        assert steps == [0, 1, 2, 3]
    assert found[0].summary["train/loss"] != found[1].summary["train/loss"]

    (place,) = find_offline(tmp_path / "one")
    pages = sorted((place / "files/media/html").glob("samples_*.html"), key=lambda page: int(page.stem.split("_")[1]))
    assert pages[-1].read_text() == (tmp_path / "one/samples/step-0000004.html").read_text()
    tables = [
        path
        for path in (tmp_path / "one/wandb/staging").rglob("tmp*")
        if path.is_file() and b'"prompt"' in path.read_bytes()[:9999]
    ]
    assert len(tables) >= 4
    content = json.loads(tables[0].read_text())
    assert content["columns"] == ["step", "id", "title", "seed", "prompt", "answer", "thumbnail", "right"]
    assert content["data"][0][3] == "3"
    assert not list((tmp_path / "home").rglob("*wandb*"))

    logger = WandbRun(tmp_path / "one", name="one", group="g")
    data, stage = DataModule(Numbers(12)), make_stage(6)
    train(tmp_path / "one", stage, data, loggers=(logger,), max_steps=6, ckpt_path="last")
    logger.finish(0)
    again = settle(tmp_path / "one", unlike=place)
    assert again.facts["id"] == found[0].facts["id"]
    assert [row["_step"] for row in again.rows] == [0, 1, 2, 3, 5]
    check_rows(tmp_path / "one", again)


FAULTS = {
    "it dies at once": "exit 3",
    "it says what is wrong": """echo '{"trouble": "the disk is full."}'; cat > /dev/null; sleep 60""",
    "it reads nothing and says nothing": "sleep 60",
    "it stops": "kill -STOP $$",
    "it says what is no word of ours": "echo nonsense; sleep 60",
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_mirror_that_fails_is_said_once_and_costs_nothing(tmp_path: Path, monkeypatch, caplog, name: str) -> None:
    """Training ends as it would have, its record is whole, and the job waits less than a second for it in all."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    started = []

    class Popen(loggers.subprocess.Popen):
        def __init__(self, command, **settings):
            started.append(self)
            super().__init__(["sh", "-c", FAULTS[name]], **settings)

    monkeypatch.setattr(loggers.subprocess, "Popen", Popen)
    with caplog.at_level(logging.WARNING, "lightning_modules.tracking.loggers"):
        logger = WandbRun(tmp_path)
        spent = 0.0
        logger.start()
        time.sleep(0.3)
        for call in (lambda: logger.open(), *(lambda: logger.log_metrics({"a": 1.0}, 1),) * 3, lambda: logger.finish(0)):
            before = time.monotonic()
            call()
            spent += time.monotonic() - before
    try:
        assert spent < 3.0  # .7 s on an idle machine, and what a busy one adds
        assert caplog.text.count("The mirror in W&B is not complete") == 1
        assert f"Next: plait-sync runs={tmp_path}" in caplog.text
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_failure_ends_the_run_with_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(WandbRun, "finish", lambda self, exit_code=0: sent.append(exit_code))
    for status in ("failed", "interrupted", "success"):
        WandbRun(tmp_path).finalize(status)
    with WandbRun(tmp_path):
        pass
    WandbRun(tmp_path).__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert sent == [1, 1, 0, 1]


def test_switched_off_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = WandbRun(tmp_path / "run")
    logger.log_metrics({"a": 1.0}, 1)
    logger.finish(0)
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WANDB_MODE", "of line")
    with pytest.raises(RecipeError, match="WANDB_MODE=of line: expected online, offline or disabled"):
        WandbRun(tmp_path)


def test_the_mirror_is_told_no_secrets_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JWT", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_RUN_ID", "WANDB_SERVICE"):
        monkeypatch.setenv(name, "sesame-open")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    told = choose_environment()
    assert "sesame-open" not in told.values()
    assert told["WANDB_API_KEY"] == "a" * 40
    assert {"PATH", "PYTHONPATH"} <= told.keys()
