"""Architectures that cannot be packed or cached are refused by name, and the proof itself can fail."""

import pytest
import torch

from plait.backbones import attention
from plait.backbones.causal_lm import CausalLM
from plait.backbones.configuration import build_config
from plait.backbones.proof import _prove, prove
from plait.errors import LayoutError, RecipeError

SUPPORTED = ["llama", "qwen3", "gemma", "gemma2", "qwen2", "mistral", "gemma3_text", "olmo2", "gpt2"]


@pytest.fixture
def unremembered():
    """Proofs are kept per config: start and leave without any."""
    _prove.cache_clear()
    yield
    _prove.cache_clear()


@pytest.mark.parametrize("name", SUPPORTED)
def test_supported(name) -> None:
    prove(build_config(name))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mamba", {}, "'mamba' is not supported: it has layers of kind linear_attention"),
        ("lfm2", {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}, "'lfm2'.* layers of kind conv"),
        ("bloom", {"hidden_size": 32, "n_head": 4, "n_layer": 2}, "'bloom' is not supported: its packed hidden states differ"),
        ("phi", {}, "'phi' is not supported: its logits differ.*no bias and no further factor"),
        ("granite", {"logits_scaling": 8.0}, "'granite' is not supported: its logits differ"),
        ("gptj", {}, "'gptj' is not supported: a small copy of it could not be run"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "'llama' uses 'dynamic' rotary positions",
        ),
    ],
)
def test_refused_by_name(name, settings, message) -> None:
    with pytest.raises(RecipeError, match=message):
        prove(build_config(name, **settings))


def test_refused_before_the_model_is_built() -> None:
    with pytest.raises(RecipeError, match="'mamba' is not supported"):
        CausalLM.from_config("mamba", hidden_size=1_000_000_000)


@pytest.mark.parametrize("fault", ["scaling", "window", "softcap"])
def test_a_forgotten_rule_is_noticed(fault, monkeypatch, unremembered) -> None:
    original = attention.Rule
    monkeypatch.setattr(attention, "Rule", lambda *values: original(*values)._replace(**{fault: None}))
    with pytest.raises(RecipeError, match="'gemma2' is not supported: its packed hidden states differ"):
        prove(build_config("gemma2", query_pre_attn_scalar=4))


def test_the_proof_leaves_the_random_state_alone(unremembered) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    prove(build_config("llama"))
    assert torch.equal(before, torch.get_rng_state())


def test_a_mask_is_refused() -> None:
    backbone = CausalLM.from_config(
        "llama", vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    ids = torch.ones(1, 3, dtype=torch.int64)
    with pytest.raises(LayoutError, match="takes no mask"):
        backbone.model(ids, attention_mask=torch.tensor([[0, 1, 1]]))
    with pytest.raises(LayoutError, match="without a scope"):
        backbone.model(ids)
