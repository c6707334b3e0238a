"""Backbones with taps, documents with pictures, and the layer with a tap written out."""

import torch
from torch import nn

from plait.backbones.causal_lm import CausalLM
from plait.backbones.taps import add_taps
from plait.records import Layout, Side
from tests.backbones.conftest import SIZES, build, pack

FAMILIES = {
    "llama": {},
    "qwen3": {},
    "mistral": {},
    "gemma": {},
    # a tied table and fewer key heads, as SmolLM2
    "llama-smollm2": {"num_key_value_heads": 1, "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
}
PACKED = [[5, 7], [7, 1, 2]]
LENGTHS = [5, 7, 7, 1, 2]
PICTURES = torch.tensor([[3, -1], [0, 4], [1, 2], [-1, -1], [5, -1]])
"""of the documents of PACKED, row after row"""
FROM = (1, 3)
"""positions from which the first and the second picture of a document may be looked at"""


class LookingTap(nn.Module):
    """Every token asks each picture that it may look at, and adds what it finds: the last of them counts twice."""

    def __init__(self) -> None:
        super().__init__()
        width, channels = SIZES["hidden_size"], 6
        self.query, self.value = nn.Linear(width, channels), nn.Linear(channels, width)

    def forward(self, hidden: torch.Tensor, side: Side) -> torch.Tensor:
        rows = side.seen
        pictures = (side.features[0].mean((2, 3)) + side.features[1].amax((2, 3)))[rows.clamp(min=0)]
        weights = torch.sigmoid((pictures * self.query(hidden)[:, :, None]).sum(-1))
        is_last = torch.arange(rows.shape[2]) + 1 == side.visible[..., None]
        found = (pictures * (weights * (rows >= 0) * (1 + is_last.int()))[..., None]).sum(2)
        return torch.tanh(self.value(found))


def build_tapped(family: str, layers: tuple[int, ...] = (0, 1)) -> CausalLM:
    """A random backbone with a tap in these layers."""
    backbone = build(family, **FAMILIES[family])
    torch.manual_seed(7)
    return add_taps(backbone, {index: LookingTap() for index in layers})


def draw_features() -> tuple[torch.Tensor, torch.Tensor]:
    """Two levels of a pyramid for six pictures."""
    generator = torch.Generator().manual_seed(4)
    return torch.randn(6, 6, 4, 4, generator=generator), torch.randn(6, 6, 2, 2, generator=generator)


def draw_documents() -> list[torch.Tensor]:
    """Ids of the documents of PACKED."""
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(50, (length,), generator=generator) for length in LENGTHS]


def look(layout: Layout, documents: torch.Tensor, features: tuple[torch.Tensor, ...]) -> Side:
    """The record of a call, from the row of PICTURES that each token belongs to."""
    number = (PICTURES >= 0).sum(1)[documents]
    passed = sum((layout.positions >= place).long() for place in FROM)
    return Side(torch.zeros_like(documents, dtype=torch.bool), torch.minimum(passed, number), documents, PICTURES, features)


def run_packed(backbone: CausalLM, features: tuple[torch.Tensor, ...], rows: list[list[int]] = PACKED) -> list[torch.Tensor]:
    """Hidden states of each document (l d), from rows that hold them in order."""
    layout = pack(rows)
    first = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)[:-1, None]
    documents, is_real = torch.where(layout.documents >= 0, layout.documents + first, -1), layout.documents >= 0
    ids = torch.zeros_like(documents).masked_scatter(is_real, torch.cat(draw_documents()))
    hidden = backbone(backbone.embed_text(ids), layout, look(layout, documents, features))
    return list(hidden[is_real].split(LENGTHS))


@torch.no_grad()
def run_cached(backbone: CausalLM, features: tuple[torch.Tensor, ...], step: int) -> list[torch.Tensor]:
    """The same through a cache with a row per document, so many tokens per call."""
    ids = draw_documents()
    cache, parts = backbone.new_cache(len(ids), max(LENGTHS)), [[] for _ in ids]
    for begin in range(0, max(LENGTHS), step):
        feeds = {row: document[begin : begin + step] for row, document in enumerate(ids) if begin < len(document)}
        layout = cache.append(torch.tensor(list(feeds)), torch.tensor([len(feed) for feed in feeds.values()]))
        embeddings = torch.randn(*layout.positions.shape, backbone.width) * 100  # noise at padding
        for place, feed in enumerate(feeds.values()):
            embeddings[place, : len(feed)] = backbone.embed_text(feed)
        owners = torch.where(layout.documents >= 0, torch.tensor(list(feeds))[:, None], -1)
        hidden = backbone(embeddings, layout, look(layout, owners, features), cache)
        for row, states in zip(feeds, hidden, strict=True):
            parts[row].append(states[: len(feeds[row])])
    return [torch.cat(pieces) for pieces in parts]


def run_written_out(plain: CausalLM, taps: dict[int, nn.Module], features: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Each document alone through transformers' own modules, in the order of the paper."""
    decoder, states = plain.decoder, []
    for index, ids in enumerate(draw_documents()):
        hidden, layout = plain.embed_text(ids[None]), pack([[len(ids)]])
        side = look(layout, torch.full_like(layout.documents, index), features)
        mask = torch.full((len(ids), len(ids)), float("-inf")).triu(1)[None, None]
        turns = decoder.rotary_emb(hidden, layout.positions)
        for number, layer in enumerate(decoder.layers):
            attended, _ = layer.self_attn(layer.input_layernorm(hidden), position_embeddings=turns, attention_mask=mask)
            hidden = hidden + attended
            if number in taps:
                hidden = hidden + taps[number](hidden, side)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        states.append(decoder.norm(hidden)[0])
    return states
