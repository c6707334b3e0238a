"""The released vision tokenizer of Emu3: both names of every tensor, files and folders, and what is refused."""

import pytest
import torch
from safetensors.torch import save_file

from plait.adapters.emu3 import read_emu3, to_released, to_transformers
from plait.checkpoints import assign_weights
from plait.errors import CheckpointError
from plait.tokenizers.emu3 import Emu3Tokenizer


def small(seed: int = 0) -> Emu3Tokenizer:
    torch.manual_seed(seed)
    return Emu3Tokenizer(
        image_size=(8, 8), width=32, multipliers=(1, 2), blocks_per_level=2, attention_levels=(0, 1), num_codes=16, code_width=4
    )


def test_names_of_the_release() -> None:
    released = to_released(small().state_dict())
    for name, shape in {
        "encoder.conv_in.weight": (32, 3, 3, 3),
        "encoder.down.1.block.0.nin_shortcut.weight": (64, 32, 1, 1),
        "encoder.down.0.attn.1.norm.weight": (32,),
        "encoder.down.0.attn.1.q.weight": (32, 32, 1, 1),
        "encoder.down.0.downsample.conv.bias": (32,),
        "encoder.mid.attn_1.proj_out.weight": (64, 64, 1, 1),
        "encoder.mid.attn_1.proj_out.bias": (64,),
        "encoder.time_conv.0.conv.conv.weight": (4, 4, 4, 3, 3),
        "encoder.time_res_stack.1.norm1.running_var": (4,),
        "decoder.mid.attn_1.norm.conv_y.weight": (64, 4, 1, 1),
        "decoder.up.0.attn.2.norm.norm_layer.weight": (32,),
        "decoder.up.1.upsample.conv.weight": (64, 64, 3, 3),
        "quantize.embedding.weight": (16, 4),
        "post_quant_conv.conv.weight": (4, 4, 3, 1, 1),
    }.items():
        assert tuple(released[name].shape) == shape, name


def test_there_and_back_is_the_same_and_a_second_time_changes_nothing() -> None:
    own = small().state_dict()
    released = to_released(own)
    assert len(released) == len(own)
    assert not [name for name in released if "_proj" in name or "_block." in name or "attn_norm" in name]
    for again in (to_transformers(released), to_transformers(own)):
        assert list(again) == list(own)
        assert all(torch.equal(again[name], value) for name, value in own.items())


@pytest.mark.parametrize("layout", [to_released, dict])
def test_a_folder_or_a_file_of_either_layout_becomes_our_weights(layout, tmp_path) -> None:
    model, loaded = small(), small(seed=1)
    save_file({name: value.contiguous() for name, value in layout(model.state_dict()).items()}, tmp_path / "model.safetensors")
    images = torch.rand(1, 3, 8, 8) * 2 - 1
    assert not torch.equal(loaded.latents(images), model.latents(images))
    for source in (tmp_path, tmp_path / "model.safetensors"):
        weights = read_emu3(source)
        assert set(weights) == set(model.state_dict())
        assign_weights(loaded, weights, str(source))
    assert torch.equal(loaded.latents(images), model.latents(images))
    assert torch.equal(loaded.decode(loaded.encode(images)), model.decode(model.encode(images)))


def test_what_is_missing_damaged_or_of_another_size_is_refused(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"No Emu3 tokenizer at .*BAAI/Emu3-VisionTokenizer"):
        read_emu3(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_emu3(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    for source in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_emu3(source)
    save_file(
        {**to_released(small().state_dict()), "quantize.embedding.weight": torch.zeros(17, 4)}, tmp_path / "other.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"quantize\.embedding\.weight: \(17, 4\) saved, \(16, 4\) here"):
        assign_weights(small(), read_emu3(tmp_path / "other.safetensors"), "other.safetensors")
