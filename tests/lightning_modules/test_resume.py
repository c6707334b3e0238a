"""A run that was stopped and resumed equals one that never stopped, bit for bit: weights, optimiser, metrics."""

import functools
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from lightning_modules.callbacks.last_checkpoint import LastCheckpoint
from lightning_modules.tracking.loggers import JsonlLogger
from lightning_modules.training.data import DataModule
from lightning_modules.training.endings import describe_ending
from lightning_modules.training.optimizers import MuonWithAdamW
from plait.checkpoints import read_checkpoint, read_manifest
from plait.errors import CheckpointError
from plait.runs import Run
from tests.lightning_modules.stubs import Numbers, make_stage, make_trainer, train


class StopAt(Callback):
    """Raises a signal after a number of steps, as Ctrl-C would."""

    def __init__(self, step: int, number: signal.Signals = signal.SIGINT) -> None:
        self.step, self.number = step, number

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            signal.raise_signal(self.number)


def make_data(accumulate: int = 1, batches: int = 24, num_workers: int = 0) -> DataModule:
    return DataModule(Numbers(batches, accumulate=accumulate), Numbers(2), num_workers=num_workers)


def assert_same(one: Path, other: Path) -> None:
    """Weights, optimiser and scheduler state, and all rows of metrics."""
    first, second = (read_checkpoint(folder / "checkpoints/last.ckpt", with_state=True) for folder in (one, other))
    assert first.manifest.step == second.manifest.step
    assert all(torch.equal(value, second.weights[name]) for name, value in first.weights.items())
    states = [item.state["optimizer_states"][0]["state"] for item in (first, second)]
    for index, values in states[0].items():
        assert all(torch.equal(value, states[1][index][name]) for name, value in values.items() if torch.is_tensor(value))
    assert first.state["lr_schedulers"] == second.state["lr_schedulers"]
    generators = [item.state["random_states"][0]["torch"] for item in (first, second)]
    assert torch.equal(*generators)
    assert list(Run(one).metrics) == list(Run(other).metrics)


@pytest.mark.parametrize(
    ("stop", "settings"),
    [
        (5, {}),
        (6, {"val_check_interval": 3}),
        (4, {"accumulate_grad_batches": 2, "val_check_interval": 4}),
        (8, {"batches": 8}),
        (9, {"batches": 8, "val_check_interval": 4}),
        (5, {"num_workers": 2}),
        (5, {"optimizer": functools.partial(MuonWithAdamW, lr=1e-2, hidden=("hidden.*",))}),
    ],
    ids=["plain", "at-validation", "accumulating", "at-epoch-end", "second-epoch", "workers", "muon"],
)
def test_resume_equals_uninterrupted(tmp_path: Path, stop: int, settings: dict[str, Any]) -> None:
    """Ctrl-C after `stop` of 12 steps, then once more from last.ckpt; dropout draws from the global generator."""
    settings = dict(settings)
    stage_settings = {name: settings.pop(name) for name in ("optimizer",) if name in settings}
    data_settings = {name: settings.pop(name) for name in ("batches", "num_workers") if name in settings}
    data_settings["accumulate"] = settings.get("accumulate_grad_batches", 1)
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(straight, make_stage(**stage_settings), make_data(**data_settings), **settings)

    with pytest.raises(SystemExit) as exit_:
        train(stopped, make_stage(**stage_settings), make_data(**data_settings), callbacks=(StopAt(stop),), **settings)
    assert exit_.value.code == 1
    assert read_manifest(stopped / "checkpoints/last.ckpt").step == stop
    assert not read_manifest(stopped / "checkpoints/last.ckpt").is_complete

    torch.manual_seed(99)
    data = make_data(**data_settings)
    path = str(stopped / "checkpoints/last.ckpt")
    train(stopped, make_stage(seed=7, **stage_settings), data, ckpt_path=path, **settings)
    assert_same(straight, stopped)
    assert read_manifest(stopped / "checkpoints/last.ckpt").is_complete
    if not data_settings.get("num_workers"):
        per_epoch = len(data.train)
        done = stop * data_settings["accumulate"]
        expected = [k % per_epoch for k in range(done, 12 * data_settings["accumulate"])]
        assert data.train.asked[: len(expected)] == expected


def test_resume_from_a_periodic_save_drops_lost_rows(tmp_path: Path) -> None:
    """Killed at step 9 after a save at 6: rows of steps 7 to 9 are written again, and read once."""

    class Crash(Callback):
        def on_before_optimizer_step(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 9:
                raise RuntimeError("the machine went away")

    straight, crashed = tmp_path / "straight", tmp_path / "crashed"
    train(straight, make_stage(), make_data())
    with pytest.raises(RuntimeError, match="went away"):
        train(crashed, make_stage(), make_data(), callbacks=(Crash(),), every_n_steps=6)
    assert read_manifest(crashed / "checkpoints/last.ckpt").step == 6
    train(crashed, make_stage(), make_data(), ckpt_path=str(crashed / "checkpoints/last.ckpt"))
    assert_same(straight, crashed)
    assert (crashed / "metrics.jsonl").read_text().count('"resumed_from_step": 6') == 1


def test_last_is_found_by_name(tmp_path: Path) -> None:
    """`ckpt_path="last"`, as Lightning users know it; and a longer stage goes on from the end of a shorter one."""
    train(tmp_path, make_stage(12), make_data(), max_steps=6)
    trainer = train(tmp_path, make_stage(12), make_data(), ckpt_path="last")
    assert trainer.global_step == 12
    train(tmp_path / "straight", make_stage(12), make_data())
    assert_same(tmp_path / "straight", tmp_path)


def test_a_failure_in_validation_loses_nothing(tmp_path: Path) -> None:
    class Crash(Callback):
        def on_validation_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 6:
                raise RuntimeError("no more disk")

    with pytest.raises(RuntimeError, match="no more disk"):
        train(tmp_path, make_stage(), make_data(), callbacks=(Crash(),), val_check_interval=3)
    assert read_manifest(tmp_path / "checkpoints/last.ckpt").step == 6
    trainer = train(tmp_path, make_stage(), make_data(), ckpt_path="last", val_check_interval=3)
    assert trainer.global_step == 12


def test_no_pickle_in_a_run_folder(tmp_path: Path) -> None:
    train(tmp_path, make_stage(), make_data(), every_n_steps=5)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".jsonl", ".safetensors"}
    for path in files:
        if path.suffix == ".safetensors":
            assert not path.read_bytes().startswith((b"PK", b"\x80"))


def test_a_save_inside_a_step_is_refused(tmp_path: Path) -> None:
    class Eager(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / "x.ckpt")

    trainer = make_trainer(tmp_path, callbacks=(Eager(),), accumulate_grad_batches=2, enable_checkpointing=False)
    with pytest.raises(CheckpointError, match="micro-batch 1 of 2"):
        trainer.fit(make_stage(), datamodule=make_data(2))


def test_another_model_is_refused(tmp_path: Path) -> None:
    """Resuming into a model with other tensors names them."""
    train(tmp_path, make_stage(), make_data(), max_steps=6)
    stage = make_stage()
    stage.model.head = torch.nn.Linear(8, 3)
    stage = type(stage)(stage.model, max_steps=12, optimizer=stage.optimizer)
    with pytest.raises(CheckpointError, match=r"2 have another shape \(head.weight: \(2, 8\) saved, \(3, 8\) here"):
        train(tmp_path, stage, make_data(), ckpt_path="last")


def test_signal_handlers_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(tmp_path, make_stage(), make_data(), max_steps=2)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def train_slowly(folder: Path, started: Any) -> None:
    torch.set_num_threads(1)  # a fork does not inherit the threads of its parent's pool
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may have been started by nohup

    class Slow(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                started.set()
            time.sleep(0.01)

    train(folder, make_stage(5000), DataModule(Numbers(5000)), callbacks=(Slow(),), max_steps=5000)


def test_slurm_s_signal_saves_requeues_and_goes_on_where_it_was(tmp_path: Path, monkeypatch) -> None:
    """What conf/hydra/launcher/slurm.yaml relies on: SIGUSR1 in a task of a job array, then the same job once more."""
    straight, stopped, tools = tmp_path / "straight", tmp_path / "stopped", tmp_path / "bin"
    train(straight, make_stage(), make_data())
    tools.mkdir()
    (tools / "scontrol").write_text('#!/bin/sh\necho "$@" >> "$0.calls"\n')
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    job = {"JOB_ID": "9", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "2", "JOB_NAME": "train", "JOB_NODELIST": "node"}
    for name, value in {**job, "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(SystemExit):
        train(stopped, make_stage(), make_data(), callbacks=(StopAt(5, signal.SIGUSR1),))
    assert (tools / "scontrol.calls").read_text() == "requeue 7_2\n"
    assert read_manifest(stopped / "hpc_ckpt_1.ckpt").step == 5
    train(stopped, make_stage(), make_data())
    assert_same(straight, stopped)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_stop_from_outside(tmp_path: Path, number: signal.Signals) -> None:
    """A real process, a real signal: it leaves with an error code and a checkpoint of the step it was in."""
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=train_slowly, args=(tmp_path, started), daemon=True)
    process.start()
    assert started.wait(timeout=60)
    os.kill(process.pid, number)
    process.join(timeout=60)
    assert process.exitcode == 1
    assert 3 <= read_manifest(tmp_path / "checkpoints/last.ckpt").step < 5000


def test_state_key_is_one_per_folder(tmp_path: Path) -> None:
    assert LastCheckpoint(tmp_path).state_dict() == {}


@pytest.mark.parametrize(("torn", "kept"), [('{"step": 1, "train/lo', 1), ('{"step": 1, "train/loss": 2.0}', 2)])
def test_a_torn_last_row_does_not_swallow_the_mark_of_a_resume(tmp_path: Path, torn: str, kept: int) -> None:
    record = JsonlLogger(tmp_path)
    record.log_metrics({"train/loss": 1.0}, step=0)
    with open(record.path, "a") as file:
        file.write(torn)
    record.resume_from(2)
    record.log_metrics({"train/loss": 3.0}, step=2)
    assert [row["step"] for row in Run(tmp_path).metrics] == [*[0, 1, 2][:kept], 2]


def test_a_stage_saves_at_least_ten_times_and_by_the_clock(tmp_path: Path, monkeypatch) -> None:
    saved: list[int] = []
    save = LastCheckpoint._save

    def note(self: LastCheckpoint, trainer: Any) -> None:
        saved.append(trainer.global_step)
        save(self, trainer)

    monkeypatch.setattr(LastCheckpoint, "_save", note)
    train(tmp_path / "ten", make_stage(24), make_data(), max_steps=24, every_n_steps=None)
    assert len(saved) >= 10
    saved.clear()
    train(tmp_path / "none", make_stage(12), make_data(), every_n_steps=0)
    assert saved == [12]
    saved.clear()
    clock = iter(range(0, 10**6, 100))  # each look at the clock is 100 seconds later
    monkeypatch.setattr("lightning_modules.callbacks.last_checkpoint.time.monotonic", lambda: float(next(clock)))
    train(tmp_path / "clock", make_stage(12), make_data(), every_n_steps=100)
    assert len(saved) > 1


@pytest.mark.parametrize(
    ("settings", "ending"),
    [
        ({}, {"state": "finished"}),
        ({"fast_dev_run": 2}, {"state": "trial", "because": "trainer.fast_dev_run=2"}),
        ({"limit_train_batches": 3}, {"state": "trial", "because": "trainer.limit_train_batches=3"}),
        ({"overfit_batches": 1, "log_every_n_steps": 1}, {"state": "trial", "because": "trainer.overfit_batches=1"}),
        ({"max_time": "00:00:00:00"}, {"state": "stopped", "because": "step 0 of 12: its time was over (trainer.max_time)"}),
        ({"max_steps": 6}, {"state": "stopped", "because": "step 6 of 12: trainer.max_steps=6"}),
    ],
    ids=["whole", "fast_dev_run", "limited", "overfit", "time", "fewer-steps"],
)
@pytest.mark.filterwarnings("ignore:.*overfit.*")
def test_a_training_says_how_it_ended(tmp_path: Path, settings: dict[str, Any], ending: dict[str, str]) -> None:
    """And only one that did what its config says is a base for others."""
    trainer = train(tmp_path, make_stage(), make_data(), **settings)
    assert describe_ending(trainer) == ending
    checkpoint = tmp_path / "checkpoints/last.ckpt"
    assert (checkpoint.exists() and read_manifest(checkpoint).is_complete) == (ending["state"] == "finished")
