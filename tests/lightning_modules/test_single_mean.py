"""Liquid's reduction: one mean over all targets, text and image together, however the optimiser step is cut."""

import functools
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from lightning_modules.loops.curriculum import compose_job
from lightning_modules.stage import Stage
from lightning_modules.training.data import DataModule
from plait.document import Document, TextSpan
from plait.errors import RecipeError
from plait.sequence.batch import SequenceBatch
from plait.systems.unified import UnifiedModel
from tests.lightning_modules.stubs import Numbers, make_stage, make_trainer
from tests.systems.test_liquid import image, tiny_liquid


class Cut(Dataset):
    """Eight documents of all kinds as one optimiser step of `accumulate` micro-batches; the same for validation."""

    def __init__(self, model: UnifiedModel, accumulate: int) -> None:
        words = ["a red car", "the blue house is above the car"]
        pairs = [Document((TextSpan(words[i % 2]), image(f"i{i}")), id=str(i), kind="pair") for i in range(6)]
        texts = [Document((TextSpan(word, True),), id=word, kind="text") for word in words]
        worded = [model.template.wrap(document, counter) for counter, document in enumerate([*pairs, *texts])]
        self.model, self.accumulate, self.size = model, accumulate, 8 // accumulate
        self.documents = [worded[i] for i in (0, 6, 1, 2, 7, 3, 4, 5)]

    def __len__(self) -> int:
        return self.accumulate

    def __getitem__(self, k: int) -> SequenceBatch:
        whole = self.model.builder.build(self.documents).counts
        return self.model.builder.build(self.documents[k * self.size : (k + 1) * self.size], counts=whole)


def objective(name: str) -> dict:
    config = compose_job("train", ["experiment=liquid/pretraining", f"objective={name}", "scale=tiny"]).objective
    return {"term_weights": dict(config.weights), "averaged_over": dict(config.averaged_over)}


def step(folder: Path, name: str, accumulate: int) -> tuple[UnifiedModel, dict[str, float]]:
    """The model after one SGD step of rate 1, and what was logged."""
    model = tiny_liquid(text_to_image_ratio=0.5, has_max_z="max_z" in name)
    data = Cut(model, accumulate)
    stage = Stage(model, max_steps=1, optimizer=functools.partial(torch.optim.SGD, lr=1.0), **objective(name))
    settings = {"accumulate_grad_batches": accumulate, "log_every_n_steps": 1, "enable_checkpointing": False}
    trainer = make_trainer(folder, 1, val_check_interval=accumulate, check_val_every_n_epoch=None, **settings)
    trainer.fit(stage, datamodule=DataModule(data, data))
    return model, {key: float(value) for key, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("name", ["single_mean", "single_mean_max_z"])
def test_the_gradient_is_that_of_one_mean(tmp_path: Path, name: str, accumulate: int) -> None:
    """Against F.cross_entropy over all targets of the step, with 2e-4 of the mean squared highest logit where that is asked for."""
    model = tiny_liquid(text_to_image_ratio=0.5)
    batch = Cut(model, 1)[0]
    assert batch.counts["text"] > batch.counts["image"] > 0

    def loss() -> torch.Tensor:
        logits = model.head.logits(model.hidden(batch)[batch.targets >= 0], range(len(model.builder.vocabulary.segments)))
        z = logits.amax(-1).square().mean()
        return torch.nn.functional.cross_entropy(logits, batch.targets[batch.targets >= 0]) + 2e-4 * z * ("max_z" in name)

    before = loss()
    before.backward()
    stepped, logged = step(tmp_path, name, accumulate)
    assert logged["train/loss"] == pytest.approx(before.item(), rel=1e-5)
    for (key, parameter), after in zip(model.named_parameters(), stepped.parameters(), strict=True):
        torch.testing.assert_close(parameter - after, parameter.grad, atol=2e-6, rtol=1e-4, msg=key)
    model.load_state_dict(stepped.state_dict())
    assert logged["val/loss"] == pytest.approx(loss().item(), rel=1e-5)
    assert ("val/max_z_loss_nats" in logged) == ("max_z" in name)


def test_two_means_are_another_loss(tmp_path: Path) -> None:
    one, two = (step(tmp_path / name, name, 1)[1]["train/loss"] for name in ("single_mean", "next_token"))
    assert abs(one - two) > 0.1


@pytest.mark.parametrize(
    ("changes", "strange"),
    [
        ({"averaged_over": {"txet": ["text", "image"]}}, "txet"),
        ({"averaged_over": {"text": ["text", "picture"]}}, "picture"),
        ({"term_weights": {"text": 1.0, "image": 1.0, "max_z": 1.0}, "averaged_over": {"max_z": ["text"]}}, "max_z"),
    ],
)
def test_a_mean_over_what_is_not_there_is_refused(tmp_path: Path, changes: dict, strange: str) -> None:
    with pytest.raises(RecipeError, match=f"averaged_over speak of {strange}"):
        make_trainer(tmp_path, 4, enable_checkpointing=False).fit(make_stage(4, **changes), datamodule=DataModule(Numbers(4)))
