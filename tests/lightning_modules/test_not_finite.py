"""A step that is not finite changes nothing: planted NaN and infinities, what is left of the run, what is said, and the bundle."""

import functools
import logging
import multiprocessing
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from lightning_modules.callbacks.moving_average import MovingAverage
from lightning_modules.stage import Stage
from lightning_modules.training.data import DataModule
from lightning_modules.training.optimizers import MuonWithAdamW
from lightning_modules.training.step_bundle import replay
from plait.checkpoints import load_weights, read_checkpoint, read_manifest
from plait.errors import CheckpointError, NotFiniteError, RecipeError
from plait.records import LossTerms
from plait.runs import Run
from tests.lightning_modules.stubs import Model, Numbers, make_stage, make_trainer, train
from tests.lightning_modules.test_stage import start_rank

NAN, INFINITY = float("nan"), float("inf")
STEP = 5
"""the step (from 0) that is not finite; checkpoints are saved after every fourth"""


class Marked(Numbers):
    """Numbers whose batches say which they are; those of `step` are not finite, if that is asked for."""

    def __init__(
        self, batches: int = 12, step: int = STEP, value: float | None = None, without: int | None = None, **settings: Any
    ):
        super().__init__(batches, **settings)
        self.step, self.value, self.without = step, value, without

    def __getitem__(self, k: int) -> dict[str, Any]:
        batch = super().__getitem__(k + (self.without is not None and k >= self.without))
        batch["is_planted"] = k // self.accumulate == self.step and k % self.accumulate == self.accumulate - 1
        if self.value is not None and batch["is_planted"]:
            batch["x"][1, 2] = self.value
        return batch


class Planted(Model):
    """The model of the stubs with a fault in the step that its batches mark."""

    def __init__(self, fault: str = "none") -> None:
        super().__init__(dropout=0.0)
        self.fault = fault

    def loss(self, batch: dict[str, Any]) -> LossTerms:
        terms = super().loss(batch)
        if batch["is_planted"]:
            match self.fault:
                case "nan":
                    terms.sums["image"] = terms.sums["image"] * NAN
                case "infinity":  # its gradient is finite
                    terms.sums["text"] = terms.sums["text"] + INFINITY
                case "gradient":
                    terms.sums["text"] = terms.sums["text"] + (self.head.bias - self.head.bias.detach()).sqrt().sum()
                case "overflow":
                    terms.sums["text"] = terms.sums["text"] * 1e30
                case "bf16":  # the exponent of bfloat16 is that of float32: e^100 is beyond both
                    terms.sums["text"] = (
                        terms.sums["text"]
                        + (100 * self.head.weight.new_ones(()) + self.layers(self.body(batch["x"])).sum() * 0).exp()
                    )
        return terms


class Diverge(Callback):
    """Puts a NaN into the weights after so many steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            with torch.no_grad():
                pl_module.model.head.weight[0, 0] = NAN


def plant(fault: str = "none", max_steps: int = 12, **settings: Any) -> Stage:
    stage = make_stage(max_steps, **settings)
    planted = Planted(fault)
    planted.load_state_dict(stage.model.state_dict())
    return Stage(
        planted, max_steps=max_steps, optimizer=stage.optimizer, schedule=stage.schedule, **_without(settings, "optimizer")
    )


def _without(settings: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != name}


def state_of(stage: Stage) -> list[torch.Tensor]:
    return [value.clone() for value in stage.model.state_dict().values()]


def are_equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


FAULTS = {
    "loss-nan": ("nan", {}, {}, "the loss term 'image' \\(nan\\)"),
    "loss-infinity": ("infinity", {}, {}, "the loss term 'text' \\(inf\\)"),
    "term-of-weight-0": ("nan", {"term_weights": {"text": 1.0, "image": 0.0}}, {}, "the loss term 'image' \\(nan\\)"),
    "one-gradient": ("gradient", {}, {}, "the gradient of head.bias \\(2 of 2 values\\)"),
    "norm": ("overflow", {}, {}, "the norm of the gradient \\(it overflows: the largest value is"),
    "batch": ("none", {}, {"value": NAN}, "the tensor 'x' of the batch \\(1 values are not finite\\)"),
    "bf16": ("bf16", {}, {}, "the loss term 'text' \\(inf\\)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_step_that_is_not_finite_changes_nothing(tmp_path: Path, name: str) -> None:
    """Weights, statistics and moments are those before the step, the checkpoint that of step 4; the bundle finds the same again."""
    fault, settings, data, said = FAULTS[name]
    precision = {"precision": "bf16-mixed"} if name == "bf16" else {}
    before = plant(max_steps=12, **settings)
    train(tmp_path / "before", before, DataModule(Marked()), max_steps=STEP, **precision)
    stage = plant(fault, **settings)
    with pytest.raises(NotFiniteError, match=f"Step {STEP} is not finite: {said}.*Next: "):
        train(tmp_path / "run", stage, DataModule(Marked(**data)), every_n_steps=4, **precision)
    assert are_equal(state_of(stage), state_of(before))
    moments = [
        [v for state in s.optimizers(use_pl_optimizer=False).state.values() for v in state.values()] for s in (stage, before)
    ]
    assert are_equal(*moments)
    kept = read_checkpoint(tmp_path / "run/checkpoints/last.ckpt", with_state=True)
    assert kept.manifest.step == 4
    assert all(value.isfinite().all() for value in kept.weights.values())

    bundle = tmp_path / f"run/not_finite/step-{STEP:06d}"
    assert {path.suffix for path in bundle.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    found = replay(bundle, plant(fault, **settings).model)
    assert found["step"] == STEP
    if name != "norm":  # of finite gradients
        assert found["what"] is not None
        assert found["what"] in said.replace("\\", "")


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_skipped_step_is_as_if_it_had_not_been_there(
    tmp_path: Path, accumulate: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights, moments, average and schedule are those of a run whose data lack the batch."""
    results = []
    for name, fault, steps in (("skipping", "nan", 12), ("lacking", "none", 11)):
        stage = plant(fault, not_finite="skip", optimizer=functools.partial(MuonWithAdamW, lr=1e-2, hidden=("hidden.*",)))
        data = Marked(12 * accumulate, accumulate=accumulate, without=STEP if name == "lacking" and accumulate == 1 else None)
        if accumulate > 1 and name == "lacking":
            data = Lacking(12 * accumulate, accumulate=accumulate)
        settings = {"max_steps": steps, "accumulate_grad_batches": accumulate, "callbacks": (MovingAverage(decay=0.8),)}
        with caplog.at_level(logging.WARNING):
            train(tmp_path / name, stage, DataModule(data), **settings)
        results.append(read_checkpoint(tmp_path / name / "checkpoints/last.ckpt", with_state=True))
    one, other = results
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
    current = [item.state["current_model_state"] for item in results]
    assert all(torch.equal(value, current[1][name]) for name, value in current[0].items())
    moments = [item.state["optimizer_states"][0]["state"] for item in results]
    assert all(torch.equal(v, moments[1][i][n]) for i, state in moments[0].items() for n, v in state.items())
    rates = [item.state["lr_schedulers"][0]["_last_lr"] for item in results]
    assert rates[0] == rates[1]
    assert one.state["skipped_steps"] == 1
    assert caplog.text.count("step 5 was skipped, 1 of at most 10: the loss term 'image' (nan)") == 1
    assert Run(tmp_path / "skipping").metrics.series("train/skipped_steps") == ([STEP], [1])


class Lacking(Marked):
    """Without the micro-batches of the planted step."""

    def __getitem__(self, k: int) -> dict[str, Any]:
        return super().__getitem__(k + self.accumulate * (k // self.accumulate >= self.step)) | {"is_planted": False}


def test_skipping_has_an_end(tmp_path: Path) -> None:
    class Always(Marked):
        def __getitem__(self, k: int) -> dict[str, Any]:
            return super().__getitem__(k) | {"is_planted": k >= STEP}

    with pytest.raises(
        NotFiniteError, match=r"Step 7 is not finite.* 3 steps of this run were not finite, one more than stage\.max"
    ):
        train(tmp_path, plant("nan", not_finite="skip", max_skipped=2), DataModule(Always()), every_n_steps=4)
    assert sorted(path.name for path in (tmp_path / "not_finite").iterdir()) == ["step-000005", "step-000007"]
    assert read_manifest(tmp_path / "checkpoints/last.ckpt").step == 4


@pytest.mark.parametrize(
    ("step", "error", "said"), [(5, NotFiniteError, "the weight head.weight, before the step"), (8, CheckpointError, "8")]
)
def test_weights_that_are_not_finite_replace_no_checkpoint(tmp_path: Path, step: int, error: type, said: str) -> None:
    """Met by the next loss, or by the save that comes first."""
    with pytest.raises(error, match="not finite"):
        train(tmp_path, plant(), DataModule(Marked()), every_n_steps=4, callbacks=(Diverge(step),))
    kept = read_checkpoint(tmp_path / "checkpoints/last.ckpt", with_state=True)
    assert kept.manifest.step == (8 if step == 12 else 4)
    load_weights(Model(), tmp_path / "checkpoints/last.ckpt")


def test_moments_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    class Spoil(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 12:
                next(iter(trainer.optimizers[0].state.values()))["exp_avg"].fill_(INFINITY)

    with pytest.raises(CheckpointError, match=r"last\.ckpt is not written: the training state.*exp_avg of parameter 0"):
        train(tmp_path, plant(), DataModule(Marked()), every_n_steps=4, callbacks=(Spoil(),))
    assert read_manifest(tmp_path / "checkpoints/last.ckpt").step == 8


def test_a_validation_that_is_not_finite_is_said_and_no_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    validation = Marked(2, step=0, value=NAN)
    with caplog.at_level(logging.WARNING):
        train(tmp_path, plant(), DataModule(Marked(), validation), val_check_interval=6)
    assert "validation after step 6 is not finite in val/text_loss_nats, val/loss. Training goes on." in caplog.text
    assert read_manifest(tmp_path / "checkpoints/last.ckpt").is_complete


def test_an_overflow_of_scaled_gradients_is_the_scaler_s(tmp_path: Path) -> None:
    """16-mixed begins with a scale that is too large: such steps are not taken, the run goes on, and the schedule has not moved."""
    stage, trainer = plant(), make_trainer(tmp_path, enable_checkpointing=False)
    trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**22))
    trainer.fit(stage, datamodule=DataModule(Marked()))
    taken = int(trainer.optimizers[0].state[stage.model.head.weight]["step"])
    assert 0 < taken < 12
    assert stage.lr_schedulers().last_epoch == taken
    assert stage.guard.num_skipped == 0


def run_rank(rank: int, port: int, folder: Path) -> None:
    """One of two ranks; the batch of rank 1 alone is planted."""
    start_rank(rank, port)
    torch.manual_seed(0)
    data = Marked(12, size=8, rank=rank, num_ranks=2, value=NAN if rank else None)
    try:
        train(folder, plant(), DataModule(data), every_n_steps=4, strategy="ddp", devices=2)
    except NotFiniteError as error:
        (folder / f"{rank}.txt").write_text(str(error))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_one_rank_stops_both(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=run_rank, args=(rank, port, tmp_path), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    for rank in range(2):
        assert (
            "Step 5 is not finite: the tensor 'x' of the batch (1 values are not finite), rank 1."
            in (tmp_path / f"{rank}.txt").read_text()
        )
    assert read_manifest(tmp_path / "checkpoints/last.ckpt").step == 4
    assert "of the batch" in replay(tmp_path / "not_finite/step-000005", plant().model, rank=1)["what"]
    assert replay(tmp_path / "not_finite/step-000005", plant().model, rank=0)["what"] is None


def test_messages(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"stage\.not_finite=go with stage\.max_skipped=10: expected one of stop, skip"):
        make_stage(not_finite="go")
    with pytest.raises(CheckpointError, match=r"rank-0 holds no step.*Next: name"):
        replay(tmp_path, nn.Linear(1, 1))
