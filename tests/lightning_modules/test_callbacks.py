"""What is watched, written down and proven: ledger, passport, throughput, codebook, samples, progress."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from lightning_modules.callbacks.codebook import Codebook, measure_codebook
from lightning_modules.callbacks.ledger import LedgerFile
from lightning_modules.callbacks.passport import PassportFile, read_code_state
from lightning_modules.callbacks.progress import Progress
from lightning_modules.callbacks.sample_gallery import SampleGallery, at_rest
from lightning_modules.callbacks.throughput import Throughput, count_batch
from lightning_modules.training.data import DataModule
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import RecipeError
from plait.freezing import FreezePlan
from plait.runs import Run
from plait.samples import Sample
from tests.lightning_modules.stubs import Model, Numbers, make_stage, train


def draw(model: nn.Module) -> list[Sample]:
    assert not model.training
    assert not torch.is_grad_enabled()
    shade = int(torch.rand(()) * 255)  # draws from the global generator: training must not notice
    picture = Image.new("RGB", (8, 8), (shade, 0, 0))
    return [Sample(Document((TextSpan("red"), ImageSpan("x")), id="one"), {"x": picture}, {"right": True}, seed=3, given=1)]


def test_the_ledger_of_a_run(tmp_path: Path) -> None:
    """Written before step 1, proven after; a resumed run is proven from its first start."""
    plan = FreezePlan(freeze=["body"], learning_rate={"head": 2.0})
    seen: list[Any] = []

    class Look(LedgerFile):
        def on_train_start(self, *arguments: Any) -> None:
            super().on_train_start(*arguments)
            seen.append(json.loads(self.path.read_text()))

    train(tmp_path, make_stage(freeze_plan=plan), DataModule(Numbers(24)), callbacks=(Look(tmp_path),), max_steps=6)
    assert seen[0]["proof"] is None
    first = Run(tmp_path).ledger
    rates = {(row.part, row.learning_rate) for row in first.rows}
    assert rates == {("body", None), ("hidden", 0.01), ("head", 0.02)}
    assert (first.proof.steps, first.proof.is_kept) == (6, True)
    stage = make_stage(freeze_plan=plan)
    train(tmp_path, stage, DataModule(Numbers(24)), callbacks=(LedgerFile(tmp_path),), ckpt_path="last")
    second = Run(tmp_path).ledger
    assert second.digests == first.digests
    assert (second.proof.steps, second.proof.is_kept) == (12, True)


class Idle(Model):
    """One part never takes part in the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(2, 2)

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {**super().parts, "idle": self.idle}


def test_what_did_not_move_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = make_stage(4)
    stage = type(stage)(Idle(), max_steps=4, optimizer=stage.optimizer)
    train(tmp_path, stage, DataModule(Numbers(4)), callbacks=(LedgerFile(tmp_path),), max_steps=4)
    assert Run(tmp_path).ledger.proof.unmoved_trainable == ("idle.weight", "idle.bias")
    assert "2 of 10 trainable tensors did NOT move" in caplog.text
    with pytest.raises(RecipeError, match="not what was planned"):
        train(tmp_path / "b", stage, DataModule(Numbers(4)), callbacks=(LedgerFile(tmp_path / "b", True),), max_steps=4)


def test_a_frozen_tensor_that_changed_is_an_error(tmp_path: Path) -> None:
    class Meddle(LedgerFile):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            pl_module.model.body[0].weight.data += 1

    stage = make_stage(freeze_plan=FreezePlan(freeze=["body"]))
    with pytest.raises(RecipeError, match=r"1 of 7 frozen tensors CHANGED \(body.0.weight"):
        train(tmp_path, stage, DataModule(Numbers(4)), callbacks=(Meddle(tmp_path),), max_steps=4)


def test_the_passport_of_a_run(tmp_path: Path) -> None:
    passport = PassportFile(tmp_path, config={"a": 1}, seeds={"global": 5}, parents={"base": "abc"})
    train(tmp_path, make_stage(4), DataModule(Numbers(4), Numbers(2)), callbacks=(passport,), max_steps=4)
    read = Run(tmp_path).passport
    assert Run(tmp_path).is_complete
    assert (read["config"], read["seeds"], read["parents"], read["step"]) == ({"a": 1}, {"global": 5}, {"base": "abc"}, 4)
    assert read["data"]["train"] == {"class": "Numbers", "batches": 4, "fingerprint": None}
    assert read["environment"]["packages"]["torch"] == torch.__version__
    assert len(read["config_hash"]) == 64
    assert read["duration_s"] > 0


def test_the_passport_of_a_failure(tmp_path: Path) -> None:
    class Crash(Model):
        def loss(self, batch: Any) -> Any:
            raise RuntimeError("boom")

    (tmp_path / "config.yaml").write_text("seed: 3\n")
    stage = make_stage(4)
    stage = type(stage)(Crash(), max_steps=4, optimizer=stage.optimizer)
    with pytest.raises(RuntimeError, match="boom"):
        train(tmp_path, stage, DataModule(Numbers(4)), callbacks=(PassportFile(tmp_path),), max_steps=4)
    read = Run(tmp_path).passport
    assert (read["state"], read["config"], read["error"]) == ("failed", {"seed": 3}, "RuntimeError('boom')")
    assert not Run(tmp_path).is_complete


def test_code_outside_a_checkout(tmp_path: Path) -> None:
    state = read_code_state(tmp_path)
    assert state["commit"] is None
    assert state["reason"]


def test_samples_do_not_change_training(tmp_path: Path) -> None:
    """With and without a gallery, the same weights; pages and records lie in the run folder."""
    with_, without = tmp_path / "with", tmp_path / "without"
    gallery = SampleGallery(with_, draw, every_n_steps=3)
    weights = []
    for folder, callbacks in ((with_, (gallery,)), (without, ())):
        stage = make_stage(6)
        train(folder, stage, DataModule(Numbers(6)), callbacks=callbacks, max_steps=6)
        weights.append(stage.model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    samples = Run(with_).samples
    assert [sample.page.name for sample in samples] == ["step-0000003.html", "step-0000006.html"]
    assert samples[0].document.text == "red"
    assert samples[0].page.read_text().count("data:image/png") == 1


def test_at_rest_gives_modes_back() -> None:
    model = Model()
    model.body.eval()
    with at_rest(model):
        assert not model.head.training
    assert model.head.training
    assert not model.body[2].training


class Images(Numbers):
    def __getitem__(self, k: int) -> dict[str, Any]:
        return {**super().__getitem__(k), "images": torch.zeros(self.size, 3, 2, 2)}


class Tokenizer(Model):
    code_sizes = (4, 2)

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        grid = torch.tensor([[0, 1], [2, 2]]).expand(len(images), 2, 2)
        return grid, torch.zeros_like(grid)


def test_throughput_and_codebook(tmp_path: Path) -> None:
    stage = make_stage(4)
    stage = type(stage)(Tokenizer(), max_steps=4, optimizer=stage.optimizer)
    data = DataModule(Images(4), Images(2))
    train(tmp_path, stage, data, callbacks=(Throughput(), Codebook()), max_steps=4)
    metrics = Run(tmp_path).metrics
    assert metrics.last("perf/rate_images_per_s") == pytest.approx(4 / metrics.last("perf/step_duration_s"), rel=1e-4)
    assert 50 < metrics.last("perf/peak_memory_mib") < 10_000
    assert metrics.last("val/codebook_usage_0") == 0.75
    assert metrics.last("val/codebook_perplexity_0") == pytest.approx(math.exp(1.5 * math.log(2)))
    assert metrics.last("val/codebook_perplexity_1") == pytest.approx(1.0)
    assert metrics.last("val/codebook_positions_1") == 32


def test_codebook_measures() -> None:
    assert measure_codebook(torch.tensor([5, 5, 5, 5])) == pytest.approx({"usage": 1.0, "perplexity": 4.0, "positions": 20.0})
    assert measure_codebook(torch.zeros(3, dtype=torch.int64))["usage"] == 0.0


def test_what_cannot_be_counted(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot count a list"):
        count_batch([1, 2])
    stage, data = make_stage(2), DataModule(Numbers(2), Numbers(1))
    with pytest.raises(RecipeError, match="Model has no `encode`"):
        train(tmp_path, stage, data, callbacks=(Codebook(),), max_steps=2)


def test_progress_counts_steps(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    settings = {"max_steps": 4, "accumulate_grad_batches": 2, "enable_progress_bar": True}
    train(tmp_path, make_stage(4), DataModule(Numbers(8, accumulate=2)), callbacks=(Progress(1),), **settings)
    out, err = capfd.readouterr()
    assert "4/4" in out + err
    assert "train/loss" in out + err
