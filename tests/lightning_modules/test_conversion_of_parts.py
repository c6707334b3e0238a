"""plait-convert for the parts of SynerGen-VL: releases of small sizes become bases of its recipes, and a wrong folder is named."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.loops.curriculum import compose_job
from lightning_modules.pretrained import from_pretrained
from lightning_modules.running.launch import launch, load_bases
from plait.adapters.emu3 import to_released
from plait.adapters.internlm2 import INPUT, read_settings, to_internlm2
from plait.adapters.shards import write_shards
from plait.checkpoints import read_manifest
from plait.document import Document, TextSpan
from plait.errors import CheckpointError, RecipeError, VocabularyError
from plait.systems.mllm_parts import open_parts
from plait.tokenizers.emu3 import Emu3Tokenizer
from tests.adapters.internvl import draw_weights, write_release
from tests.adapters.releases import write_tokenizer

HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
CONFIG = {
    "model_type": "internlm2",
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    **HEADS,
}
CONFIG |= {"max_position_embeddings": 512, "bias": False, "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"}}
EMU3 = ["weights=emu3", "tokenizer=emu3_tiny"]


def write_internlm2(folder: Path, **changes) -> LlamaForCausalLM:
    """A release with a tokenizer and weights in several files, of a random llama of transformers, which is returned."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**read_settings(CONFIG | changes))).to(torch.bfloat16).float().eval()
    folder.mkdir()
    weights = to_internlm2(model.state_dict(), **HEADS)
    write_shards(folder, {name: value.to(torch.bfloat16) for name, value in weights.items()}, max_shard_size="20KB")
    (folder / "config.json").write_text(json.dumps(CONFIG | changes), encoding="utf-8")
    write_tokenizer(folder)
    return model


def build_emu3() -> Emu3Tokenizer:
    torch.manual_seed(0)
    return Assembly(compose_job("convert", EMU3)).build("vision_tokenizer")


def write_emu3(folder: Path) -> Emu3Tokenizer:
    """A release under its own names."""
    tokenizer = build_emu3()
    folder.mkdir()
    save_file(
        {name: value.contiguous() for name, value in to_released(tokenizer.state_dict()).items()}, folder / "model.safetensors"
    )
    return tokenizer


def convert(tmp_path: Path, source: Path | str, *options: str) -> str:
    given = [f"source={source}", f"target={tmp_path / 'converted'}", f"paths.folder={tmp_path / 'job'}"]
    return launch(compose_job("convert", [*given, *options]))


@torch.no_grad()
def test_emu3_becomes_a_base(tmp_path) -> None:
    released = write_emu3(tmp_path / "emu3")
    converted = convert(tmp_path, tmp_path / "emu3", *EMU3)
    assert read_manifest(converted).parents == [{"part": "release", "identity": str(tmp_path / "emu3")}]
    recipe = ["experiment=synergen_vl/align_1", "scale=tiny", "tokenizer=emu3_tiny", f"base.vision_tokenizer={converted}"]
    config = compose_job("train", recipe)
    assembly = Assembly(config)
    assert load_bases(config, assembly) == {"vision_tokenizer": read_manifest(converted).identity}
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    assert torch.equal(assembly.build("vision_tokenizer").encode(images)[0], released.encode(images)[0])


@torch.no_grad()
@pytest.mark.parametrize("is_tied", [False, True])
def test_internlm2_becomes_a_language_model_and_a_base(tmp_path, is_tied) -> None:
    released = write_internlm2(tmp_path / "internlm2", tie_word_embeddings=is_tied)
    converted = convert(tmp_path, tmp_path / "internlm2", "weights=internlm2")
    assert not list(Path(converted).rglob("*.py"))
    model = from_pretrained(converted)
    batch = model.builder.build([Document((TextSpan("a tool that cuts wood", loss=True),))])
    expected = released(batch.ids).logits[0]
    torch.testing.assert_close(model.head.logits(model.hidden(batch)[0], [0]), expected, atol=1e-5, rtol=1e-5)
    recipe = [
        "experiment=synergen_vl/align_1",
        "scale=tiny",
        "backbone=saved",
        f"saved={converted}",
        f"base.backbone={converted}",
    ]
    config = compose_job("train", recipe)
    assembly = Assembly(config)
    assert load_bases(config, assembly) == {"backbone": read_manifest(converted).identity}
    system = assembly.build("model")
    assert system.backbone.is_tied == is_tied
    assert torch.equal(system.backbone.text_table, released.get_input_embeddings().weight)
    mlp = system.backbone.decoder.layers[1].mlp
    assert torch.equal(mlp.vision.down_proj.weight, released.model.layers[1].mlp.down_proj.weight)
    assert system.builder.layout.text.encode("wood") == model.builder.layout.text.encode("wood")


def test_internvl_becomes_a_folder_of_transformers(tmp_path) -> None:
    weights = draw_weights()
    converted = convert(tmp_path, write_release(tmp_path / "internvl", weights), "weights=internvl")
    parts = open_parts(converted)
    assert torch.equal(parts.connector.maps[0].weight, weights["mlp1.1.weight"])
    assert parts.connector.width == parts.backbone.width == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EMU3, r"internlm2 does not fit Emu3Tokenizer: \d+ of \d+ tensors are missing .*unexpected"),
        ([*EMU3, "source=nowhere"], "nowhere is no folder and no name of the Hub"),
        (["weights=internlm2", "source=EMU3"], r"No InternLM2 in .*emu3: expected config\.json and safetensors"),
        (
            [*EMU3, "source=EMU3", "vision_tokenizer.num_codes=128"],
            r"quantize\.embedding\.weight: \(256, 4\) saved, \(128, 4\) here",
        ),
    ],
)
def test_a_wrong_folder_is_named_and_nothing_is_written(tmp_path, options, message) -> None:
    write_internlm2(tmp_path / "internlm2")
    write_emu3(tmp_path / "emu3")
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path, tmp_path / "internlm2", *[option.replace("EMU3", str(tmp_path / "emu3")) for option in options])
    assert not (tmp_path / "converted").exists()


def test_what_a_release_of_internlm2_lacks_is_named(tmp_path) -> None:
    folder = tmp_path / "internlm2"
    write_internlm2(folder)

    def change(**changes) -> None:
        (folder / "config.json").write_text(json.dumps(CONFIG | changes), encoding="utf-8")

    def refuse(message: str, kind: type[Exception] = CheckpointError) -> None:
        with pytest.raises(kind, match=message):
            convert(tmp_path, folder, "weights=internlm2")
        assert not (tmp_path / "converted").exists()

    change(model_type="llama")
    refuse(r"config\.json has model_type 'llama', expected 'internlm2'.*backbone=hub")
    change(num_hidden_layers=3)
    refuse(r"does not fit LlamaForCausalLM: \d+ of \d+ tensors are missing \(model\.layers\.2")
    change(tie_word_embeddings=True)
    refuse(rf"output\.weight differs from {INPUT}")
    (folder / "config.json").write_text("{", encoding="utf-8")
    refuse(r"config\.json is damaged")
    change()
    # a tokenizer that is code of the release, as the released one: nobody is asked whether to run it
    (folder / "tokenizer.json").unlink()
    code = {
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "tokenizer_class": "InternLM2Tokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(code), encoding="utf-8")
    refuse("transformers reads no tokenizer there", VocabularyError)
    own = write_tokenizer(tmp_path / "own")
    convert(tmp_path, folder, "weights=internlm2", f"text_tokenizer.name_or_folder={own}")
    assert from_pretrained(tmp_path / "converted").builder.layout.text.encode("<eos>") == [1]


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"weights=gpt5.*emu3, internlm2, internvl, liquid"):
        compose_job("convert", ["weights=gpt5"])
