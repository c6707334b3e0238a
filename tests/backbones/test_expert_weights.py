"""Vision experts as weights: their names and first values, in checkpoints, under low-rank adapters, and where they cannot be."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import GPT2Config

from plait.backbones.causal_lm import CausalLM
from plait.backbones.experts import add_vision_experts, measure_distance
from plait.backbones.lora import add_lora, merge_lora
from plait.checkpoints import load_weights, save_checkpoint
from plait.errors import CheckpointError, RecipeError
from tests.backbones.conftest import build
from tests.backbones.routed import LAYERS, build_experts, draw_tokens, run


def test_what_can_have_no_experts_is_refused() -> None:
    with pytest.raises(RecipeError, match="has vision experts already, expected none"):
        add_vision_experts(build_experts())
    gpt2 = CausalLM.from_config(GPT2Config, vocab_size=20, n_embd=16, n_layer=1, n_head=2)
    with pytest.raises(RecipeError, match=r"'gpt2' has no feed-forward called layers\.<i>\.mlp .* llama, qwen3, gemma"):
        add_vision_experts(gpt2)


def test_names_shapes_and_first_values() -> None:
    plain = build().state_dict()
    routed = add_vision_experts(build()).state_dict()
    feed_forward = {name for name in plain if ".mlp." in name}
    assert len(feed_forward) == 3 * LAYERS
    for name in feed_forward:
        text, vision = (routed[name.replace(".mlp.", f".mlp.{kind}.")] for kind in ("text", "vision"))
        assert torch.equal(text, plain[name])
        assert torch.equal(vision, plain[name])
        assert text.data_ptr() != vision.data_ptr()
    assert len(routed) == len(plain) + len(feed_forward)
    assert routed.keys() >= plain.keys() - feed_forward


def test_a_checkpoint_holds_experts_and_a_folder_of_transformers_does_not(tmp_path: Path) -> None:
    ids, is_visual = draw_tokens()
    routed = build_experts("qwen3")
    save_checkpoint(tmp_path / "weights", routed)
    routed.save_config(tmp_path)
    again = add_vision_experts(CausalLM.from_folder(tmp_path)).eval()
    load_weights(again, tmp_path / "weights")
    assert torch.equal(run(again, ids, is_visual), run(routed, ids, is_visual))
    with pytest.raises(
        CheckpointError, match=r"18 tensors are not those of a plain 'qwen3' \(model\.layers\.0\.mlp\.down_proj"
    ):
        routed.save_pretrained(tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_low_rank_adapters_sit_in_both_feed_forwards_and_merge() -> None:
    ids, is_visual = draw_tokens()
    routed = build_experts("qwen3")
    expected = run(routed, ids, is_visual)
    adapted = add_lora(backbone=routed, rank=2)
    assert torch.equal(run(adapted, ids, is_visual), expected)
    pairs = [name for name, _ in adapted.named_parameters() if "lora_B" in name]
    assert len(pairs) == (4 + 3 + 3) * LAYERS
    with torch.no_grad():
        for name in pairs:
            nn.init.normal_(adapted.get_parameter(name), std=0.5)
    moved = run(adapted, ids, is_visual)
    assert not torch.allclose(moved, expected, atol=1e-2)
    torch.testing.assert_close(run(merge_lora(adapted), ids, is_visual), moved, atol=1e-4, rtol=1e-4)


def test_the_distance_of_an_expert_is_that_of_its_weights() -> None:
    layer = add_vision_experts(build("llama")).decoder.layers[0]
    assert measure_distance(layer.mlp.vision, layer.mlp.text) == 0.0
    with torch.no_grad():
        for parameter in layer.mlp.vision.parameters():
            parameter.mul_(1.5)
    assert measure_distance(layer.mlp.vision, layer.mlp.text) == pytest.approx(0.5)
    assert measure_distance(layer.mlp.text, layer.mlp.vision) == pytest.approx(1 / 3)
    with pytest.raises(RecipeError, match=r"parameters \{'text\.gate_proj.*expected the same names and shapes"):
        measure_distance(layer.mlp, layer.mlp.text)
