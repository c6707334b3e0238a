"""A model is examined before, while and after it trains, at rest, and once each."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_modules.callbacks.examination import Examination
from lightning_modules.training.data import DataModule
from plait.runs import Run
from tests.lightning_modules.stubs import Numbers, make_stage, train


def run(folder: Path, max_steps: int, **settings) -> list[float]:
    """Train; returns what was found at each examination."""
    found: list[float] = []

    def examine(model: nn.Module, place: Path) -> dict[str, float | str]:
        assert not model.training
        assert not torch.is_grad_enabled()
        torch.rand(3)  # training must not notice
        found.append(float(sum(p.abs().sum() for p in model.parameters())))
        return {"size": found[-1], "note": "words are no figures"}

    train(
        folder,
        make_stage(max_steps),
        DataModule(Numbers(24)),
        callbacks=(Examination(folder, examine, **settings),),
        max_steps=max_steps,
    )
    return found


def test_a_curve_is_logged_at_its_steps_and_the_beginning_kept_apart(tmp_path):
    found = run(tmp_path, 5, every_n_steps=2, has_before=True)
    steps, values = Run(tmp_path).metrics.series("examination/size")
    assert (steps, values) == ([1, 3, 4], found[1:])
    assert json.loads((tmp_path / "examination" / "before.json").read_text()) == {"size": found[0]}
    assert "examination/note" not in Run(tmp_path).metrics.keys


def test_without_a_wish_only_the_finished_model_is_examined(tmp_path):
    assert len(run(tmp_path, 5)) == 1
    assert not (tmp_path / "examination" / "before.json").exists()


def test_looking_does_not_change_training(tmp_path):
    assert run(tmp_path / "often", 5, every_n_steps=1)[-1] == pytest.approx(run(tmp_path / "once", 5)[-1], abs=0)
