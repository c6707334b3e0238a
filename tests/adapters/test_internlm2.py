"""InternLM2's layout: grouped maps by written-out rows, an exact way there and back, and errors that name what differs."""

import pytest
import torch
from omegaconf import OmegaConf

from lightning_modules.composing.instantiate import Assembly
from lightning_modules.loops.curriculum import compose_job
from plait.adapters.internlm2 import INPUT, OUTPUT, PREFIX, join, read_settings, split, to_internlm2, to_llama
from plait.backbones.causal_lm import CausalLM
from plait.backbones.experts import add_vision_experts
from plait.checkpoints import check_weights
from plait.errors import CheckpointError

CONFIG = {
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "rope_scaling": {"type": "dynamic", "factor": 2.0},
    "bias": False,
    "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"},
    "pad_token_id": 2,
}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


def make_backbone(has_experts: bool, **changes) -> CausalLM:
    torch.manual_seed(0)
    backbone = CausalLM.from_config("llama", **read_settings(CONFIG | changes))
    if has_experts:
        add_vision_experts(backbone)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_()
    return backbone


def test_rows_are_grouped_by_key_head() -> None:
    """4 heads of queries and 2 of keys, of width 1: q0 q1 k0 v0, then q2 q3 k1 v1."""
    rows = torch.arange(8)
    query, key, value = split(rows, 4, 2)
    assert (query.tolist(), key.tolist(), value.tolist()) == ([0, 1, 4, 5], [2, 6], [3, 7])
    assert join([query, key, value], 2).tolist() == rows.tolist()
    # as many keys as queries, and one key for all
    assert [part.tolist() for part in split(torch.arange(12), 2, 2)] == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    assert [part.tolist() for part in split(torch.arange(4), 2, 1)] == [[0, 1], [2], [3]]


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("has_experts", [False, True])
def test_both_directions_keep_every_bit(has_experts: bool, bias: bool, prefix: str) -> None:
    backbone = make_backbone(has_experts, bias=bias)
    ours = backbone.model.state_dict()
    released = to_internlm2(ours, **HEADS, prefix=prefix)
    assert all(name.startswith(prefix) for name in released)
    assert any("feed_forward_ve" in name for name in released) == has_experts
    assert released[f"{prefix}model.layers.1.attention.wqkv.weight"].shape == (32, 16)
    again = to_llama(released, **HEADS)
    check_weights(backbone.model, again, "the release")
    assert all(torch.equal(again[name], value) for name, value in ours.items())
    back = to_internlm2(again, **HEADS, prefix=prefix)
    assert list(back) == list(released)
    assert all(torch.equal(back[name], value) for name, value in released.items())


def test_a_tied_table_may_be_stored_once() -> None:
    backbone = make_backbone(False, tie_word_embeddings=True)
    released = to_internlm2(backbone.model.state_dict(), **HEADS)
    assert released[OUTPUT] is not None
    del released[OUTPUT]
    check_weights(backbone.model, to_llama(released, **HEADS, is_tied=True), "the release")
    check_weights(backbone.model, to_llama({**released, OUTPUT: released[INPUT].clone()}, **HEADS, is_tied=True), "the release")
    with pytest.raises(CheckpointError, match=r"output\.weight differs from model\.tok_embeddings\.weight"):
        to_llama({**released, OUTPUT: released[INPUT] + 1}, **HEADS, is_tied=True)
    with pytest.raises(CheckpointError, match=r"1 names are missing \(output\.weight\)"):
        to_llama(released, **HEADS)


def test_what_is_missing_or_unknown_is_named() -> None:
    ours = make_backbone(True).model.state_dict()
    released = to_internlm2(ours, **HEADS)

    def read(**changes):
        names = {name.replace("/", "."): value for name, value in changes.items()}
        return to_llama({k: v for k, v in (released | names).items() if v is not None}, **HEADS)

    with pytest.raises(CheckpointError, match=r"1 names are missing \(model\.norm\.weight\)\. Expected every tensor"):
        read(**{"model/norm/weight": None})
    with pytest.raises(CheckpointError, match=r"1 names are missing \(model\.layers\.0\.feed_forward_ve\.w2\.weight\)"):
        read(**{"model/layers/0/feed_forward_ve/w2/weight": None})
    with pytest.raises(CheckpointError, match=r"missing \(output\.weight\) and 1 names are unknown \(lm_head\.weight\)"):
        read(**{"output/weight": None, "lm_head/weight": torch.zeros(1)})
    with pytest.raises(
        CheckpointError, match=r"InternLM2: 1 names are unknown \(mlp1\.0\.weight\)\. Hand over the language model"
    ):
        to_llama({PREFIX + name: value for name, value in released.items()} | {"mlp1.0.weight": torch.zeros(1)}, **HEADS)
    with pytest.raises(CheckpointError, match="3 names are missing"):
        to_llama({}, **HEADS)
    with pytest.raises(CheckpointError, match=r"A wqkv of 32 rows was asked for 4 heads of queries and 3 of keys"):
        to_llama(released, num_attention_heads=4, num_key_value_heads=3)

    with pytest.raises(CheckpointError, match=r"A llama: 1 names are unknown \(q_norm\)"):
        to_internlm2({**ours, "q_norm": torch.zeros(1)}, **HEADS)
    with pytest.raises(CheckpointError, match=r"A llama: 1 names are missing \(model\.layers\.1\.self_attn\.k_proj\.weight\)"):
        to_internlm2({name: value for name, value in ours.items() if "1.self_attn.k_proj" not in name}, **HEADS)
    with pytest.raises(CheckpointError, match=r"Maps of 16, 8 and 8 rows make no groups of 3 key heads"):
        to_internlm2(ours, num_attention_heads=4, num_key_value_heads=3)


def test_a_config_becomes_settings_of_llama() -> None:
    settings = read_settings(CONFIG)
    assert settings["rope_parameters"] == {"rope_type": "default", "rope_theta": 1e6}
    assert (settings["attention_bias"], settings["tie_word_embeddings"], settings["num_key_value_heads"]) == (False, False, 2)
    assert "pad_token_id" not in settings
    silent = read_settings({name: CONFIG[name] for name in list(CONFIG)[:5]})  # a config that leaves the rest to its class
    assert (silent["num_key_value_heads"], silent["attention_bias"], silent["rms_norm_eps"]) == (4, True, 1e-6)
    assert silent["rope_parameters"]["rope_theta"] == 10_000
    linear = read_settings(CONFIG | {"rope_scaling": {"type": "linear", "factor": 4.0}})
    assert linear["rope_parameters"] == {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6}
    with pytest.raises(CheckpointError, match="lacks vocab_size, expected all of"):
        read_settings({name: value for name, value in CONFIG.items() if name != "vocab_size"})
    with pytest.raises(CheckpointError, match=r"rope_scaling=\{'type': 'yarn'\}, expected type linear or dynamic"):
        read_settings(CONFIG | {"rope_scaling": {"type": "yarn"}})


def test_the_published_backbone_has_the_published_size() -> None:
    """InternLM2-1.8B from its option, without a byte of weights: 1.889 B parameters, and 1.208 B more in its vision experts."""
    config = compose_job("train", ["experiment=liquid/pretraining", "backbone=internlm2_1_8b", "paths.folder=here"])
    with torch.device("meta"):
        backbone = Assembly(OmegaConf.create({"backbone": config.backbone})).build("backbone")
    assert backbone.text_table.device.type == "meta"
    assert count(backbone) == 1_889_110_016
    assert (backbone.width, backbone.text_rows, backbone.is_tied) == (2048, 92_544, False)
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8}
    plain = to_internlm2(backbone.model.state_dict(), **heads)
    assert plain["model.layers.23.attention.wqkv.weight"].shape == (4096, 2048)
    assert plain["model.layers.23.feed_forward.w2.weight"].shape == (2048, 8192)

    add_vision_experts(backbone)
    assert count(backbone) == 1_889_110_016 + 24 * 3 * 2048 * 8192  # 1.208 B
    released = to_internlm2(backbone.model.state_dict(), **heads, prefix=PREFIX)
    assert len(released) == len(plain) + 24 * 3 == 24 * 10 + 3
    assert {name: value.shape for name, value in to_llama(released, **heads).items()} == {
        name: value.shape for name, value in backbone.model.state_dict().items()
    }


def count(backbone: CausalLM) -> int:
    return sum(parameter.numel() for parameter in backbone.parameters())
