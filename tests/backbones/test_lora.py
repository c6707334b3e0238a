"""Adapters change nothing at first, are what trains, and merge into the very backbone they came to."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from plait.backbones.causal_lm import CausalLM
from plait.backbones.lora import add_lora, merge_lora
from plait.errors import RecipeError
from plait.freezing import FreezePlan
from tests.backbones.conftest import SIZES

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def make_backbone() -> CausalLM:
    torch.manual_seed(0)
    return CausalLM.from_config("qwen3", **SIZES)


def logits(backbone: CausalLM) -> torch.Tensor:
    cache = backbone.new_cache(1, 8)
    layout = cache.append(torch.tensor([0]), torch.tensor([8]))
    with torch.no_grad():
        return backbone.text_scores(backbone(backbone.embed_text(IDS), layout, cache=cache))


class Whole(nn.Module):
    def __init__(self, backbone: CausalLM) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(2, 2)

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {"backbone": self.backbone, "head": self.head}


def test_an_adapted_backbone_computes_the_same_at_first() -> None:
    expected = logits(make_backbone())
    assert torch.equal(logits(add_lora(backbone=make_backbone(), rank=4)), expected)


def test_adapters_and_new_rows_train_and_the_backbone_rests() -> None:
    model = Whole(add_lora(backbone=make_backbone(), rank=4))
    planned = FreezePlan(freeze=["backbone"], train=["backbone.*lora_*"]).apply(model)
    trained = [item.name for item in planned if item.is_trainable]
    # A and B of the seven maps of each of two layers, and the head
    assert len([name for name in trained if "lora_" in name]) == 2 * 7 * SIZES["num_hidden_layers"]
    assert [name for name in trained if "lora_" not in name] == ["head.weight", "head.bias"]


def test_adapters_merge_into_weights_that_transformers_reads(tmp_path: Path) -> None:
    backbone = add_lora(backbone=make_backbone(), rank=4, alpha=8.0, targets=["q_proj", "down_proj"])
    names = [name for name, _ in backbone.named_parameters() if "lora_B" in name]
    assert len(names) == 2 * SIZES["num_hidden_layers"]
    with torch.no_grad():
        for name in names:
            nn.init.normal_(backbone.get_parameter(name), std=0.5)
    expected = logits(backbone)
    assert not torch.allclose(expected, logits(make_backbone()), atol=1e-3)
    merged = merge_lora(backbone)
    assert torch.allclose(logits(merged), expected, atol=1e-5)
    assert merged.state_dict().keys() == make_backbone().state_dict().keys()
    merged.save_pretrained(tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.allclose(reference(IDS).logits, expected, atol=1e-5)


def test_what_cannot_be_adapted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"targets \['k_porj'\] meet nothing .* expected some of .*'k_proj'"):
        add_lora(backbone=make_backbone(), targets=["k_porj"])
    with pytest.raises(RecipeError, match=r"rank=0 and dropout=.*, expected rank >= 1"):
        add_lora(backbone=make_backbone(), rank=0)
    with pytest.raises(RecipeError, match="has low-rank adapters already"):
        add_lora(backbone=add_lora(backbone=make_backbone()))
    with pytest.raises(RecipeError, match="no low-rank adapters to merge"):
        merge_lora(make_backbone())
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(RecipeError, match=r"pip install 'plait\[lora\]'"):
        add_lora(backbone=make_backbone())
