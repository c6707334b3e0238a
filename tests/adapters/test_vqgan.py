"""The released VQGAN: a pickle of tensors becomes weights of ours, and a pickle of anything else is refused."""

import pytest
import torch
from safetensors.torch import save_file

from plait.adapters.vqgan import read_vqgan
from plait.checkpoints import assign_weights
from plait.errors import CheckpointError
from plait.tokenizers.vqgan import VQGAN


def small() -> VQGAN:
    return VQGAN(
        image_size=(32, 32), width=32, multipliers=(1, 1), blocks_per_level=1, latent_channels=8, num_codes=16, code_width=8
    )


@pytest.fixture
def model() -> VQGAN:
    torch.manual_seed(0)
    return small()


def test_the_pickle_becomes_our_weights_without_those_of_its_loss(model, tmp_path) -> None:
    state = {**model.state_dict(), "loss.discriminator.main.0.weight": torch.zeros(3), "loss.logvar": torch.zeros(())}
    torch.save({"state_dict": state, "epoch": 3, "global_step": 7}, tmp_path / "vqgan.ckpt")
    weights = read_vqgan(tmp_path / "vqgan.ckpt")
    assert set(weights) == set(model.state_dict())
    loaded = small()
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    assert not torch.equal(loaded.encoder(images), model.encoder(images))
    assign_weights(loaded, weights, "vqgan.ckpt")
    assert torch.equal(loaded.encode(images)[0], model.encode(images)[0])
    assert torch.equal(loaded.decode(loaded.encode(images)), model.decode(model.encode(images)))


def test_safetensors_are_read_as_well(model, tmp_path) -> None:
    save_file(model.state_dict(), tmp_path / "vqgan.safetensors")
    weights = read_vqgan(tmp_path / "vqgan.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_another_tokenizer_is_refused_by_name(model, tmp_path) -> None:
    torch.save({"state_dict": {**model.state_dict(), "quantize.embedding.weight": torch.zeros(17, 8)}}, tmp_path / "vqgan.ckpt")
    with pytest.raises(CheckpointError, match=r"quantize\.embedding\.weight: \(17, 8\) saved, \(16, 8\) here"):
        assign_weights(model, read_vqgan(tmp_path / "vqgan.ckpt"), "vqgan.ckpt")


class Opens:
    """What a hostile pickle does: it calls a function when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_objects_in_the_pickle_are_refused_and_never_run(model, tmp_path) -> None:
    torch.save({"state_dict": model.state_dict(), "callbacks": Opens(str(tmp_path / "ran"))}, tmp_path / "vqgan.ckpt")
    with pytest.raises(CheckpointError, match=r"tensors and plain values alone.*can run code"):
        read_vqgan(tmp_path / "vqgan.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{"weights": 1}, [1, 2], {"state_dict": {"a": 1}}])
def test_a_file_without_a_state_dict_is_refused(content, tmp_path) -> None:
    torch.save(content, tmp_path / "vqgan.ckpt")
    with pytest.raises(CheckpointError, match="no state_dict of tensors: found"):
        read_vqgan(tmp_path / "vqgan.ckpt")


@pytest.mark.parametrize("name", ["vqgan.ckpt", "vqgan.safetensors"])
def test_a_missing_or_damaged_file_is_named(name, tmp_path) -> None:
    with pytest.raises(CheckpointError, match=f"No VQGAN at .*{name}"):
        read_vqgan(tmp_path / name)
    (tmp_path / name).write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=f"{name} cannot be read"):
        read_vqgan(tmp_path / name)
