"""A stage trains on the pretend accelerator: what Lightning and the stage wait for, counted between two micro-batches."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy
from PIL import Image

from lightning_modules.jobs.bases import _Reconstructed
from lightning_modules.jobs.gallery import reconstruct_a_few
from lightning_modules.stage import Stage
from lightning_modules.training.data import DataModule
from plait.document import ImageSpan
from plait.evaluation.features import FeatureSpace
from plait.runs import Run
from tests.lightning_modules.stubs import Numbers, make_trainer
from tests.pretend_device import DEVICE, Counts, pretend_device
from tests.tokenizers import test_patch_fsq
from tests.vision import test_encoder


class PretendAccelerator(Accelerator):
    """The pretend device, as Lightning wants to know it."""

    setup_device = teardown = lambda *_: None
    parse_devices = get_parallel_devices = staticmethod(lambda devices: [DEVICE])
    auto_device_count = staticmethod(lambda: 1)
    is_available = staticmethod(lambda: True)
    name = staticmethod(lambda: "pretend")
    get_device_stats = lambda *_: {}  # noqa: E731


class Waits(Callback):
    """How often the host waited in each micro-batch and in what followed it, up to the next."""

    def __init__(self, counts: Counts) -> None:
        self.counts, self.seen = counts, []

    def on_train_batch_start(self, trainer: Any, stage: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx:
            self.on_train_end()
        self.counts.clear()

    def on_train_end(self, *_: Any) -> None:
        self.seen.append(dict(self.counts.waits))


class Pictures(Numbers):
    def __getitem__(self, k: int) -> dict[str, Any]:
        return {"images": test_patch_fsq.pictures(2), "counts": {"reconstruction": 2.0 * self.accumulate}}


def fit(folder: Path, model: torch.nn.Module, data: Any, **changes: Any) -> Any:
    torch.manual_seed(0)
    stage = Stage(model, max_steps=6, optimizer=functools.partial(torch.optim.AdamW, lr=1e-3))
    settings = {"accumulate_grad_batches": 2, "gradient_clip_val": 1.0, "log_every_n_steps": 3, "enable_checkpointing": False}
    make_trainer(folder, 6, **{**settings, **changes}).fit(stage, datamodule=DataModule(data))
    return Run(folder).metrics


def test_a_micro_batch_waits_for_nothing_and_a_step_for_its_norm(tmp_path: Path) -> None:
    data = Pictures(12, accumulate=2)
    expected = fit(tmp_path / "cpu", test_patch_fsq.make(), data)
    with pretend_device() as counts:
        waits = Waits(counts)
        strategy = SingleDeviceStrategy(device=DEVICE, accelerator=PretendAccelerator())
        place = {"strategy": strategy, "accelerator": "auto", "devices": "auto"}
        found = fit(tmp_path / "device", test_patch_fsq.make(), data, callbacks=(waits,), **place)
    norm, book = (next(at for at in waits.seen[-1] if name in at) for name in ("stage.py", "books.py"))
    is_logged = [step in (0, 2, 5) for step in range(6)]
    assert waits.seen == [seen for logged in is_logged for seen in ({}, {norm: 1, book: 1} if logged else {norm: 1})]
    assert found.keys == expected.keys
    for key in expected.keys:
        assert found.series(key)[1] == pytest.approx(expected.series(key)[1], rel=1e-3), key


class World:
    """Two pictures."""

    def image_ids(self, split: str, subset: str) -> list[str]:
        return ["one", "other"]

    def picture(self, name: str) -> Image.Image:
        return Image.new("RGB", (48, 32), {"one": "red", "other": "blue"}[name])


def test_galleries_and_examinations_look_at_a_model_where_it_is() -> None:
    draw, model = reconstruct_a_few(world=World(), subsets=["scenes"]), test_patch_fsq.make()
    expected, space = draw(model), FeatureSpace("a tiny encoder", test_encoder.make())
    measured = space.measure(test_patch_fsq.pictures(3))
    with pretend_device():
        model.to(DEVICE)
        found = draw(model)
        spans = [ImageSpan("one"), ImageSpan("other")]
        assert _Reconstructed(model, World()).pictures(spans).device == DEVICE
        found_features = space.to(DEVICE).measure(test_patch_fsq.pictures(3))
        torch.testing.assert_close(found_features, measured, rtol=1e-4, atol=1e-5)
    for one, other in zip(found, expected, strict=True):
        for name in other.pictures:
            difference = np.asarray(one.pictures[name], dtype=int) - np.asarray(other.pictures[name], dtype=int)
            assert np.abs(difference).max() <= 1
