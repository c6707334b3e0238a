"""The owner of device and precision: its words, what it refuses, and every job on the pretend accelerator."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_modules import pretrained
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.pretrained import from_pretrained, save_pretrained
from lightning_modules.running import device
from lightning_modules.running.device import check_trainer_device, choose_device, choose_dtype
from lightning_modules.running.launch import launch
from lightning_modules.workbench import open_run
from plait.checkpoints import read_dtype, save_checkpoint
from plait.document import Document
from plait.errors import RecipeError
from plait.tokenizers.codes import CodeCache
from tests.pretend_device import DEVICE, pretend_device


@pytest.fixture
def no_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def test_a_gpu_that_is_not_there_is_refused_in_one_sentence(no_gpu, tmp_path: Path) -> None:
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    message = r"device=cuda, but no GPU was found: torch .* sees 0 CUDA devices\. Next: device=cpu computes on this machine"
    for ask in (
        lambda: choose_device("cuda"),
        lambda: from_pretrained(tmp_path, device="cuda"),
        lambda: open_run(".", device="cuda"),
    ):
        with pytest.raises(RecipeError, match=message):
            ask()
    encode = ["scale=tiny", "base.vision_tokenizer=random", f"paths.folder={tmp_path / 'run'}", "device=cuda"]
    with pytest.raises(RecipeError, match=message):
        launch(compose_job("encode", encode))
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match=r"device=gpu, expected auto, cpu or cuda"):
        choose_device("gpu")


def test_a_gpu_is_taken_where_there_is_one_and_each_rank_has_its_own(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 3)
    assert choose_device("cpu") == torch.device("cpu")
    check_trainer_device("cuda", "gpu")
    with pytest.raises(RecipeError, match=r"device=cpu and trainer\.accelerator=gpu, expected one place.*trainer=cpu"):
        check_trainer_device("cpu", "gpu")
    with pytest.raises(RecipeError, match=r"device=cuda and trainer\.accelerator=cpu.*trainer=gpu"):
        check_trainer_device("cuda", "cpu")


def test_the_dtype_is_that_of_the_checkpoint_on_a_gpu_and_float32_on_the_cpu(tmp_path: Path) -> None:
    layers = torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)
    for layer, dtype in zip(layers, (torch.bfloat16, torch.float32), strict=True):
        save_checkpoint(tmp_path / str(dtype), layer.to(dtype))
        assert read_dtype(tmp_path / str(dtype)) == dtype
    checkpoint = tmp_path / str(torch.bfloat16)
    assert choose_dtype("auto", torch.device("cuda"), checkpoint) == torch.bfloat16
    assert choose_dtype("auto", torch.device("cpu"), checkpoint) == torch.float32
    assert choose_dtype("float16", torch.device("cpu"), checkpoint) == torch.float16
    with pytest.raises(RecipeError, match="dtype=half, expected auto, float32, bfloat16, float16"):
        choose_dtype("half", torch.device("cpu"), None)


def test_a_desk_and_a_saved_model_compute_where_they_are_told(small_run: Path, tmp_path: Path, monkeypatch) -> None:
    def draw() -> Document:
        desk = open_run(small_run / "instruction")
        answers = desk.draw("a red car", guidance=2.0, seed=1)
        assert desk.model.device == next(desk.model.vision_tokenizer.parameters()).device
        assert len(answers.pictures) == 1
        return answers.samples[0].document

    expected, saved = draw(), save_pretrained(small_run / "instruction", tmp_path / "saved")
    with pretend_device() as counts:
        for room in (device, pretrained):
            monkeypatch.setattr(room, "choose_device", lambda word="auto": DEVICE)
        np.testing.assert_array_equal(draw().images[-1].codes, expected.images[-1].codes)
        assert counts.kernels > 0
        model = from_pretrained(saved, dtype="bfloat16")
        assert {(parameter.device, parameter.dtype) for parameter in model.parameters()} == {(DEVICE, torch.bfloat16)}
        assert {(p.device, p.dtype) for p in model.vision_tokenizer.parameters()} == {(DEVICE, torch.float32)}
        assert model.pictures(expected.images).dtype == model.score([expected]).dtype == torch.float32


def test_codes_are_those_of_the_host(small_run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(device, "choose_device", lambda word="auto": DEVICE)
    base = f"base.vision_tokenizer={small_run / 'tokenizer'}"
    with pretend_device() as counts:
        launch(compose_job("encode", ["scale=tiny", base, "splits=[val]", "logger=none", f"paths.folder={tmp_path}"]))
        assert counts.kernels > 0
    ours, theirs = CodeCache(tmp_path / "codes"), CodeCache(small_run / "codes" / "codes")
    for name in ours.image_ids:
        np.testing.assert_array_equal(ours[name], theirs[name])
