"""Backbones with vision experts, as tests call them."""

import torch

from plait.backbones.causal_lm import CausalLM
from plait.backbones.experts import add_vision_experts
from plait.records import Layout, Side
from tests.backbones.conftest import SIZES, build, pack

PACKED = [[5, 7], [7, 1, 2]]
TOKENS = 10
ROWS = 3
LAYERS = SIZES["num_hidden_layers"]


def build_experts(architecture: str = "llama") -> CausalLM:
    """A random backbone whose two feed-forwards have nothing to do with each other."""
    backbone = add_vision_experts(build(architecture))
    with torch.no_grad():
        for layer in backbone.decoder.layers:
            for parameter in layer.mlp.vision.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    return backbone


def draw_tokens() -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, is_visual), (rows tokens) each: visual tokens in the middle and at the end, of every mixture along the rows."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(50, (ROWS, TOKENS), generator=generator)
    is_visual = torch.zeros(ROWS, TOKENS, dtype=torch.bool)
    is_visual[:, 3:5] = is_visual[0, 6] = is_visual[1:, 7] = is_visual[:, -1] = True
    return ids, is_visual


def run(backbone: CausalLM, ids: torch.Tensor, is_visual: torch.Tensor, layout: Layout | None = None) -> torch.Tensor:
    """Hidden states of an uncached call."""
    layout = pack([[ids.shape[1]]] * len(ids)) if layout is None else layout
    return backbone(backbone.embed_text(ids), layout, Side(is_visual))


@torch.no_grad()
def run_cached(backbone: CausalLM, ids: torch.Tensor, is_visual: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """The same through a cache, in calls of so many tokens per row."""
    cache, parts = backbone.new_cache(len(ids), ids.shape[1]), []
    for tokens, kinds in zip(ids.split(sizes, 1), is_visual.split(sizes, 1), strict=True):
        layout = cache.append(torch.arange(len(ids)), torch.full((len(ids),), tokens.shape[1]))
        parts.append(backbone(backbone.embed_text(tokens), layout, Side(kinds), cache))
    return torch.cat(parts, 1)
