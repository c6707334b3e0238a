"""Training further in a cell: stopped anywhere and called again, it is the run that nobody stopped."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from lightning_modules.folders.records import read_job
from lightning_modules.loops.further import train_further
from lightning_modules.processes.interruption import raising_interrupts
from plait.checkpoints import read_checkpoint, read_manifest
from plait.errors import RecipeError
from plait.runs import Run

STEPS = 6


class Watch(Callback):
    """Keeps the batch of every finished step, and presses the stop button in the middle of one."""

    def __init__(self, press_in: int = 0, times: int = 1) -> None:
        self.press_in, self.times = press_in, times
        self.batches: list[tuple[int, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step + 1 == self.press_in:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append((trainer.global_step, batch.ids.clone()))


@pytest.fixture(scope="module")
def unbroken(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Watch]:
    watch = Watch()
    return train_further(
        small_run / "instruction", STEPS, tmp_path_factory.mktemp("further") / "unbroken", callbacks={"w": watch}
    ), watch


@pytest.mark.parametrize(
    ("times", "first", "state"),
    [(1, [1, 2, 3], "interrupted"), (2, [1, 2], "interrupted")],
    ids=["stopped-in-step-3", "stopped-at-once-in-step-3"],
)
def test_stopped_and_called_again(small_run, tmp_path, unbroken, times, first, state):
    """One press: the step is finished and saved. Two: it is given up, and done again from the last save, here of the step before."""
    run, whole = unbroken
    before = signal.getsignal(signal.SIGINT)
    stopped, resumed = Watch(press_in=3, times=times), Watch()
    with pytest.raises(KeyboardInterrupt, match="stopped by SIGINT" if times == 1 else "stopped at once"):
        train_further(small_run / "instruction", STEPS, tmp_path / "run", callbacks={"w": stopped})
    assert signal.getsignal(signal.SIGINT) is before, "the stop button works again"
    assert read_job(tmp_path / "run")["state"] == state
    assert [step for step, _ in stopped.batches] == first
    again = train_further(small_run / "instruction", STEPS, tmp_path / "run", callbacks={"w": resumed})

    done = [*stopped.batches, *resumed.batches]
    assert [step for step, _ in done] == list(range(1, STEPS + 1)), "no step is lost, and none done twice"
    assert all(torch.equal(mine, theirs) for (_, mine), (_, theirs) in zip(done, whole.batches, strict=True))
    for key in ("train/loss", "train/text_loss_nats", "train/image_loss_nats", "train/learning_rate", "train/gradient_norm"):
        assert again.metrics.series(key) == run.metrics.series(key), key
    weights, expected = (read_checkpoint(one.checkpoint).weights for one in (again, run))
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())
    # the digests of step 0, the rates, and the proof over all steps
    assert again.ledger.to_json() == run.ledger.to_json()
    assert again.ledger.proof.is_kept
    assert again.ledger.proof.steps == STEPS


def test_a_third_call_has_nothing_to_do(small_run, unbroken):
    run, _ = unbroken
    before = (read_job(run.folder)["id"], (run.folder / "metrics.jsonl").read_text())
    watch = Watch()
    train_further(small_run / "instruction", STEPS, run.folder, callbacks={"w": watch})
    assert (read_job(run.folder)["id"], (run.folder / "metrics.jsonl").read_text()) == before
    assert not watch.batches


def test_it_starts_from_the_run_and_reads_other_documents(small_run, unbroken):
    run, watch = unbroken
    first = Run(small_run / "instruction")
    assert read_job(run.folder)["parents"]["model"] == read_manifest(first.checkpoint).identity
    assert run.config["name"] == "instruction_further"
    assert run.config["batches"]["seed"] != first.config["batches"]["seed"]
    assert not (run.folder / "wandb").exists()
    assert len(watch.batches) == STEPS


def test_other_arguments_set_the_old_folder_aside(small_run, tmp_path):
    folder = tmp_path / "run"
    train_further(small_run / "instruction", 1, folder)
    run = train_further(small_run / "instruction", 1, folder, overrides=["stage.optimizer.lr=0.5"])
    assert run.config["stage"]["optimizer"]["lr"] == 0.5
    assert Run(tmp_path / "run.old-1").is_complete


def test_what_cannot_be_trained_is_refused(small_run, tmp_path):
    with pytest.raises(RecipeError, match=r"stage\.optimiser\.lr.*Expected key=value for keys"):
        train_further(small_run / "instruction", 1, tmp_path / "run", overrides=["stage.optimiser.lr=1"])
    with pytest.raises(RecipeError, match="is no training run"):
        train_further(small_run / "codes", 1, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_exit_passes_through():
    with pytest.raises(SystemExit, match="3"), raising_interrupts():
        raise SystemExit(3)
