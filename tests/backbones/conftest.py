"""Tiny backbones with sharp attention, and the layouts of packed and padded rows."""

from collections.abc import Callable

import pytest
import torch

from plait.backbones.causal_lm import CausalLM
from plait.records import Layout

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
WINDOW = 3
ARCHITECTURES = {
    "qwen3": {},
    "llama": {},
    "gemma": {},
    # soft caps low enough to bend scores, a window shorter than the documents in the first layer and none in the second
    "gemma2": {"sliding_window": WINDOW, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    # as the demo's backbone: a window in every other layer, and the tuple that a config file gives for a list
    "qwen3-window": {
        "sliding_window": WINDOW,
        "use_sliding_window": True,
        "layer_types": ("sliding_attention", "full_attention"),
    },
}


@pytest.fixture(params=ARCHITECTURES)
def architecture(request) -> str:
    return request.param


@pytest.fixture
def backbone(architecture) -> CausalLM:
    return build(architecture)


@pytest.fixture
def new_backbone() -> Callable[..., CausalLM]:
    return build


@pytest.fixture
def new_layout() -> Callable[[list[list[int]]], Layout]:
    return pack


def build(architecture: str = "llama", **settings) -> CausalLM:
    """A random backbone; the usual deviation of 0.02 would make attention flat and hide mistakes."""
    torch.manual_seed(0)
    model = CausalLM.from_config(architecture.split("-")[0], **SIZES | ARCHITECTURES.get(architecture, {}) | settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.1))
    return model.eval()


def pack(rows: list[list[int]]) -> Layout:
    """The layout of rows of document lengths."""
    width = max(sum(lengths) for lengths in rows)
    documents = torch.full((len(rows), width), -1)
    positions = torch.zeros(len(rows), width, dtype=torch.int64)
    groups: dict[int, list[torch.Tensor]] = {}
    for row, lengths in enumerate(rows):
        start = 0
        for index, length in enumerate(lengths):
            documents[row, start : start + length] = index
            positions[row, start : start + length] = torch.arange(length)
            groups.setdefault(length, []).append(row * width + start + torch.arange(length))
            start += length
    return Layout(positions, documents, tuple(torch.stack(members) for members in groups.values()))
