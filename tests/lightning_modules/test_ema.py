"""`callbacks=ema`: the checkpoint holds the moving average, computed here by hand, and a resumed run has the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging

from plait.checkpoints import read_checkpoint
from tests.lightning_modules.stubs import make_stage, train
from tests.lightning_modules.test_resume import StopAt, make_data

DECAY = 0.8


class Trajectory(Callback):
    """The weights after every step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.weights.append({name: value.detach().clone() for name, value in pl_module.model.named_parameters()})


def average() -> EMAWeightAveraging:
    return EMAWeightAveraging(decay=DECAY, use_buffers=False)


def saved(folder: Path) -> dict[str, torch.Tensor]:
    return dict(read_checkpoint(folder / "checkpoints/last.ckpt").weights)


def test_the_checkpoint_holds_the_moving_average(tmp_path: Path) -> None:
    trajectory = Trajectory()
    train(tmp_path, make_stage(), make_data(), callbacks=(trajectory, average()))
    for name, value in trajectory.weights[0].items():
        expected = value
        for weights in trajectory.weights[1:]:
            expected = DECAY * expected + (1 - DECAY) * weights[name]
        assert torch.allclose(saved(tmp_path)[name], expected, atol=1e-6)
        assert not torch.equal(saved(tmp_path)[name], trajectory.weights[-1][name])


def test_a_resumed_run_has_the_same_average(tmp_path: Path) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(straight, make_stage(), make_data(), callbacks=(average(),))
    with pytest.raises(SystemExit):
        train(stopped, make_stage(), make_data(), callbacks=(StopAt(5), average()))
    train(stopped, make_stage(seed=9), make_data(), callbacks=(average(),), ckpt_path="last")
    one, other = saved(straight), saved(stopped)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
