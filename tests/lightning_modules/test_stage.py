"""The only training step: normalised over the optimiser step, whatever the micro-batches and ranks."""

import functools
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lightning_modules.stage import Stage
from lightning_modules.stages.instruction import InstructionStage
from lightning_modules.stages.pretraining import PretrainingStage
from lightning_modules.stages.tokenizer import TokenizerStage
from lightning_modules.training.data import DataModule
from plait.errors import RecipeError
from plait.freezing import FreezePlan
from plait.records import LossTerms
from plait.runs import Run
from tests.lightning_modules.stubs import Model, Numbers, make_stage, make_trainer


class Plain(Model):
    """Without dropout and batch statistics, which depend on the micro-batch."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh())


def sgd_step(folder: Path, size: int, accumulate: int, **weights: float) -> dict[str, torch.Tensor]:
    """Weights after one SGD step of rate 1: the gradient, up to sign."""
    torch.manual_seed(0)
    optimizer = functools.partial(torch.optim.SGD, lr=1.0)
    stage = Stage(Plain(), max_steps=1, optimizer=optimizer, term_weights=weights)
    data = DataModule(Numbers(accumulate, size, accumulate))
    settings = {"log_every_n_steps": 1, "enable_checkpointing": False}
    make_trainer(folder, 1, accumulate_grad_batches=accumulate, **settings).fit(stage, datamodule=data)
    return {name: value.clone() for name, value in stage.model.state_dict().items()}


@pytest.mark.parametrize("weights", [{}, {"text": 1.0, "image": 3.0}])
def test_accumulation_gives_the_same_gradient(tmp_path: Path, weights: dict[str, float]) -> None:
    """1 x 8 = 4 x 2."""
    once, often = sgd_step(tmp_path, 8, 1, **weights), sgd_step(tmp_path, 2, 4, **weights)
    for name, value in once.items():
        torch.testing.assert_close(often[name], value, atol=1e-6, rtol=1e-6)


def test_gradient_is_that_of_the_means(tmp_path: Path) -> None:
    """Against the loss written out: sum over terms of weight x sum / count."""
    torch.manual_seed(0)
    model = Plain()
    terms = model.loss(Numbers(1, 8)[0])
    (terms.sums["text"] / 8 + 3 * terms.sums["image"] / 6).backward()
    stepped = sgd_step(tmp_path, 4, 2, text=1.0, image=3.0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(stepped[name], parameter.detach() - parameter.grad, atol=1e-6, rtol=1e-6)


def start_rank(rank: int, port: int) -> None:
    """Make this process one of two ranks."""
    torch.set_num_threads(1)  # a fork does not inherit the threads of its parent's pool
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ.update({**address, "RANK": str(rank), "LOCAL_RANK": str(rank)})


def run_rank(rank: int, port: int, folder: Path) -> None:
    """One of two ranks, in a process of its own."""
    start_rank(rank, port)
    torch.manual_seed(0)
    stage = Stage(Plain(), max_steps=1, optimizer=functools.partial(torch.optim.SGD, lr=1.0))
    data = DataModule(Numbers(2, 4, 2, rank=rank, num_ranks=2))
    ranks = {"strategy": "ddp", "devices": 2}
    make_trainer(folder, 1, accumulate_grad_batches=2, enable_checkpointing=False, **ranks).fit(stage, datamodule=data)
    save_file(stage.model.state_dict(), folder / f"{rank}.safetensors")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_two_ranks_give_the_same_gradient(tmp_path: Path) -> None:
    """1 x 8 = 2 ranks x 2 micro-batches x 2, over gloo; the logged loss is that of all ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")  # a fresh interpreter would import for longer than it computes
    processes = [context.Process(target=run_rank, args=(rank, port, tmp_path), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    alone = sgd_step(tmp_path / "alone", 8, 1)
    for rank in range(2):
        weights = load_file(tmp_path / f"{rank}.safetensors")
        for name, value in alone.items():
            torch.testing.assert_close(weights[name], value, atol=1e-6, rtol=1e-5)
    losses = [Run(folder).metrics[0]["train/loss"] for folder in (tmp_path, tmp_path / "alone")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_validation_takes_means_once(tmp_path: Path) -> None:
    """Over all targets of all batches, not a mean of means."""
    stage, data = make_stage(2), DataModule(Numbers(2), Numbers(3, size=3))
    make_trainer(tmp_path, 2, enable_checkpointing=False).fit(stage, datamodule=data)
    stage.model.eval()
    with torch.no_grad():
        terms = [stage.model.loss(data.validation[k]) for k in range(3)]
    text = sum(float(item.sums["text"]) for item in terms) / 9
    image = sum(float(item.sums["image"]) for item in terms) / sum(item.counts["image"] for item in terms)
    rows = Run(tmp_path).metrics
    assert rows.last("val/text_loss_nats") == pytest.approx(text, rel=1e-5)
    assert rows.last("val/image_loss_nats") == pytest.approx(image, rel=1e-5)
    assert rows.last("val/loss") == pytest.approx(text + image, rel=1e-5)


def test_logged_rows(tmp_path: Path) -> None:
    """The very first step, then every second; keys carry units; the schedule is seen."""
    make_trainer(tmp_path, 6, enable_checkpointing=False).fit(make_stage(6), datamodule=DataModule(Numbers(6)))
    steps, rates = Run(tmp_path).metrics.series("train/learning_rate")
    assert steps == [0, 1, 3, 5]
    assert rates[1] > rates[0] > 0
    assert rates[-1] < rates[1]
    expected = {"train/loss", "train/text_loss_nats", "train/image_loss_nats", "train/gradient_norm", "train/rows"}
    assert expected <= set(Run(tmp_path).metrics.keys)


def test_clipping_is_lightning_s(tmp_path: Path) -> None:
    """By the norm that the guard has read already, to the bit."""
    weights = []
    for name, kind in (
        ("ours", Stage),
        ("theirs", type("Theirs", (Stage,), {"configure_gradient_clipping": clip_as_lightning})),
    ):
        torch.manual_seed(0)
        stage = kind(Plain(), max_steps=3, optimizer=functools.partial(torch.optim.SGD, lr=1.0))
        settings = {"gradient_clip_val": 0.1, "enable_checkpointing": False}
        make_trainer(tmp_path / name, 3, **settings).fit(stage, datamodule=DataModule(Numbers(3)))
        weights.append([value.clone() for value in stage.model.state_dict().values()])
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))


def clip_as_lightning(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
    self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)


def test_units_of_the_stages() -> None:
    assert (TokenizerStage.term_unit, PretrainingStage.term_unit, InstructionStage.term_unit) == (None, "nats", "nats")


def test_frozen_parts_rest(tmp_path: Path) -> None:
    """Neither parameters nor running statistics of a frozen part move, before or after a validation."""
    stage = make_stage(4, freeze_plan=FreezePlan(freeze=["body"]))
    before = {name: value.clone() for name, value in stage.model.body.state_dict().items()}
    head = stage.model.head.weight.detach().clone()
    trainer = make_trainer(tmp_path, 4, enable_checkpointing=False, val_check_interval=2)
    trainer.fit(stage, datamodule=DataModule(Numbers(4), Numbers(1)))
    assert all(torch.equal(before[name], value) for name, value in stage.model.body.state_dict().items())
    assert not torch.equal(head, stage.model.head.weight)


class Wrong(Model):
    def loss(self, batch: dict) -> LossTerms:
        terms = super().loss(batch)
        terms.counts["text"] -= 1
        return terms


@pytest.mark.parametrize(
    ("changes", "data", "trainer", "message"),
    [
        ({"term_weights": {"text": 1.0}}, Numbers(4), {}, "'image' has no weight"),
        ({"term_weights": {"text": 1.0, "image": 1.0, "sound": 1.0}}, Numbers(4), {}, "speak of sound"),
        ({}, Numbers(4, accumulate=2), {}, "built for accumulate=2.*runs with accumulate=1"),
        ({}, Numbers(5, accumulate=2), {"accumulate_grad_batches": 2}, "5 micro-batches does not divide"),
        ({"model": Wrong()}, Numbers(4), {}, "announced 4 targets of the term 'text'.*held 3"),
    ],
)
def test_messages(tmp_path: Path, changes: dict, data: Numbers, trainer: dict, message: str) -> None:
    stage = make_stage(4, **{name: value for name, value in changes.items() if name != "model"})
    stage.model = changes.get("model", stage.model)
    with pytest.raises(RecipeError, match=message):
        make_trainer(tmp_path, 4, enable_checkpointing=False, **trainer).fit(stage, datamodule=DataModule(data))


def test_a_batch_without_counts(tmp_path: Path) -> None:
    class Bare(Numbers):
        def __getitem__(self, k: int) -> dict:
            batch = super().__getitem__(k)
            return {name: batch[name] for name in ("x", "is_drawn")}

    with pytest.raises(RecipeError, match="carries no `counts`"):
        make_trainer(tmp_path, 2, enable_checkpointing=False).fit(make_stage(2), datamodule=DataModule(Bare(2)))


def test_no_steps() -> None:
    with pytest.raises(RecipeError, match="max_steps is 0"):
        make_stage(0)
