"""InternLM2 and Mono-InternVL against numbers of the public code: its weights in, its layers and logits out, in every way of calling."""

import json
import re
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from plait.adapters.internlm2 import INPUT, OUTPUT, VISION, read_settings, split, to_internlm2, to_llama
from plait.backbones.attention import DocumentScope
from plait.backbones.causal_lm import CausalLM
from plait.backbones.experts import add_vision_experts
from plait.checkpoints import assign_weights
from plait.records import Layout, Side
from tests import goldens

MODEL_TOLERANCE, LAYER_TOLERANCE = 1e-4, 1e-5
LAYER = "model.layers.0."


def load(released: dict[str, Tensor], config: dict) -> CausalLM:
    """A backbone with released weights, and with experts where they have them."""
    settings = read_settings(config)
    heads = {name: settings[name] for name in ("num_attention_heads", "num_key_value_heads")}
    weights = to_llama(released, **heads, is_tied=settings["tie_word_embeddings"])
    backbone = CausalLM.from_config("llama", **settings).eval()
    if any(VISION in name for name in released):
        add_vision_experts(backbone)
    assign_weights(backbone.model, weights, "the golden")
    back = to_internlm2(backbone.model.state_dict(), **heads)
    assert back.keys() - {OUTPUT} == released.keys() - {OUTPUT}  # a tied output may be stored once
    assert all(torch.equal(back[name], value) for name, value in released.items())
    return backbone


def rows_of(is_real: np.ndarray, positions: np.ndarray | None = None) -> Layout:
    """The layout of rows that hold one document each, with padding on either side."""
    real = goldens.tensor(is_real).bool()
    where = real.long().cumsum(1) - 1 if positions is None else goldens.tensor(positions).expand(real.shape)
    flat = torch.arange(real.numel()).view(real.shape)
    groups: dict[int, list[Tensor]] = {}
    for row, tokens in zip(flat, real, strict=True):
        groups.setdefault(int(tokens.sum()), []).append(row[tokens])
    stacked = tuple(torch.stack(members) for length, members in groups.items() if length)
    return Layout(torch.where(real, where, 0), torch.where(real, 0, -1), stacked)


def record(golden: dict[str, np.ndarray], shape: tuple[int, int]) -> Side:
    """Which tokens the file calls visual: none where it does not speak of it."""
    if "visual_token_mask" not in golden:
        return Side(torch.zeros(shape, dtype=torch.bool))
    return Side(goldens.tensor(golden["visual_token_mask"])[..., 0] > 0.5)


@pytest.mark.parametrize("path", goldens.family("internlm2_layer*"))
def test_golden_layer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One decoder layer: its output, and queries, keys and values before and after they are turned."""
    golden = goldens.read(path)
    config = json.loads(str(golden["cfg"])) | {"num_hidden_layers": 1}
    table, norm = torch.zeros(config["vocab_size"], config["hidden_size"]), torch.ones(config["hidden_size"])
    own = {LAYER + name: value for name, value in goldens.weights(golden).items()}
    backbone = load({INPUT: table, OUTPUT: table, "model.norm.weight": norm, **own}, config)

    found: dict[str, Tensor] = {}
    layer = backbone.decoder.layers[0]
    layer.register_forward_hook(lambda _, __, output: found.update(out=output))
    for name in "qkv":
        module = getattr(layer.self_attn, f"{name}_proj")
        module.register_forward_hook(lambda _, __, output, name=name: found.update({name: output}))
    attend = DocumentScope.attend

    def watch(scope, index, query, key, value, rule):
        found.update(q_rope=query.transpose(1, 2), k_rope=key.transpose(1, 2))
        return attend(scope, index, query, key, value, rule)

    monkeypatch.setattr(DocumentScope, "attend", watch)
    x = goldens.tensor(golden["x"])
    layout, side = rows_of(np.ones(x.shape[:2]), golden["position_ids"]), record(golden, x.shape[:2])
    with torch.no_grad():
        backbone(x, layout, side)
    compare(found.pop("out").view(x.shape), golden["out"], LAYER_TOLERANCE)
    for name, states in found.items():  # (1 rows*tokens heads*width) here, (rows heads tokens width) there
        if name in golden:
            rows, heads, tokens, width = golden[name].shape
            compare(states.reshape(rows, tokens, heads, width).transpose(1, 2), golden[name], LAYER_TOLERANCE)
    if "wqkv_out" in golden:
        separate = split(goldens.tensor(golden["wqkv_out"]).permute(2, 0, 1), *heads_of(backbone))
        for name, states in zip("qkv", separate, strict=True):
            compare(states.permute(1, 2, 0).reshape(found[name].shape), found[name].numpy(), LAYER_TOLERANCE)


def heads_of(backbone: CausalLM) -> tuple[int, int]:
    return backbone.config.num_attention_heads, backbone.config.num_key_value_heads


def compare(found: Tensor, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(found.numpy(), expected, atol=tolerance, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("path", goldens.family("internlm2_*model*", "mono_ve*"))
def test_golden_model(path: Path) -> None:
    """Logits from ids and from embeddings, and of rows that are padded on the right and on the left."""
    golden = goldens.read(path)
    config, released = json.loads(str(golden["cfg"])), goldens.weights(golden)
    backbone, ids = load(released, config), goldens.tensor(golden["ids"])
    if "keys" in golden:
        assert set(golden["keys"].tolist()) >= set(released)
    whole, side = rows_of(np.ones(ids.shape)), record(golden, tuple(ids.shape))

    def logits_of(layout: Layout, model: CausalLM = backbone, kinds: Side | None = side) -> Tensor:
        return model.text_scores(model(model.embed_text(ids), layout, kinds))

    compare(logits_of(whole), golden["logits"], MODEL_TOLERANCE)
    for padding in ("right", "left"):
        if f"logits_{padding}" in golden:
            real = golden[f"attn_{padding}"].astype(bool)
            layout = rows_of(real, golden.get(f"position_ids_{padding}"))
            compare(logits_of(layout)[torch.from_numpy(real)], golden[f"logits_{padding}"][real], MODEL_TOLERANCE)
    if "labels" in golden:
        labels = goldens.tensor(golden["labels"])
        scores = logits_of(rows_of(golden.get("attn_right", np.ones(ids.shape))))
        loss = functional.cross_entropy(scores[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        np.testing.assert_allclose(loss.item(), golden["loss"], atol=MODEL_TOLERANCE)
    if "inputs_embeds" in golden:
        hidden = backbone(goldens.tensor(golden["inputs_embeds"]), whole, side)
        for name in ("last_hidden", "hidden_embeds_last"):
            if name in golden:
                compare(hidden, golden[name], MODEL_TOLERANCE)
        if "logits_embeds" in golden:
            compare(backbone.text_scores(hidden), golden["logits_embeds"], MODEL_TOLERANCE)
    if "logits_experts_copied" in golden:
        plain = load({name: value for name, value in released.items() if VISION not in name}, config)
        compare(logits_of(whole, plain, None), golden["logits_experts_copied"], MODEL_TOLERANCE)
        copied = add_vision_experts(plain)
        for kinds in (side, Side(~side.is_visual), Side(torch.zeros_like(side.is_visual))):
            compare(logits_of(whole, copied, kinds), golden["logits_experts_copied"], MODEL_TOLERANCE)


WAYS = ("token by token", "in pairs", "prompt and steps", "prompt and the rest", "prompt and compiled steps")


def sizes_of(way: str, length: int, prompt: int) -> list[int]:
    """Tokens per call."""
    rest = length - prompt
    return {
        "token by token": [1] * length,
        "in pairs": [2] * (length // 2) + [1] * (length % 2),
        "prompt and the rest": [prompt, rest],
    }.get(way, [prompt, *[1] * rest])


@torch.no_grad()
def run_cached(backbone: CausalLM, ids: Tensor, is_visual: Tensor, sizes: list[int]) -> Tensor:
    """Logits of calls through a cache."""
    cache, parts = backbone.new_cache(len(ids), ids.shape[1]), []
    for tokens, kinds in zip(ids.split(sizes, 1), is_visual.split(sizes, 1), strict=True):
        layout = cache.append(torch.arange(len(ids)), torch.full((len(ids),), tokens.shape[1]))
        parts.append(backbone(backbone.embed_text(tokens), layout, Side(kinds), cache))
    return backbone.text_scores(torch.cat(parts, 1))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", goldens.family("internlm2_*model*", "mono_ve*"))
def test_golden_cached(path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cached logits are those of the whole sequence. Upstream's own cache, which runs visual tokens through the feed-forward of text,
    gave others; they are stored as a warning, and nothing here computes them unless it is told that those tokens are text."""
    golden = goldens.read(path)
    backbone, ids = load(goldens.weights(golden), json.loads(str(golden["cfg"]))), goldens.tensor(golden["ids"])
    is_visual, length = record(golden, tuple(ids.shape)).is_visual, ids.shape[1]
    prompt = int(golden["neg_prefill"]) if "neg_prefill" in golden else length - 3
    if "compiled" in way:
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a compiler cannot look through the checks of shapes
        backbone.compile_decoding(backend="eager", fullgraph=True)
    sizes = sizes_of(way, length, prompt)
    logits = run_cached(backbone, ids, is_visual, sizes)
    compare(logits, golden["logits"], MODEL_TOLERANCE)
    wrong = golden.get("neg_cached_text_ffn_logits")
    if wrong is not None:
        assert np.abs(golden["logits"][:, prompt:] - wrong).max() > 0.5
        assert np.abs(logits[:, prompt:].numpy() - wrong).max() > 0.5
        if way == "prompt and steps":
            told = is_visual.clone()
            told[:, prompt:] = False
            compare(run_cached(backbone, ids, told, sizes)[:, prompt:], wrong, MODEL_TOLERANCE)


@pytest.mark.parametrize("path", goldens.family("mono_ve*"))
def test_golden_thirds_would_be_wrong(path: Path) -> None:
    """A grouped map that is cut into queries, keys and values one after another has the right shapes and gives other logits."""
    golden = goldens.read(path)
    backbone, ids = load(goldens.weights(golden), json.loads(str(golden["cfg"]))), goldens.tensor(golden["ids"])
    if heads_of(backbone)[1] == 1:
        pytest.skip("one key head: a single group is in the order of thirds")
    wrong = backbone.model.state_dict()
    for name, value in goldens.weights(golden).items():
        match = re.fullmatch(r"(model\.layers\.\d+\.)attention\.wqkv\.weight", name)
        if match:
            names = [f"{match[1]}self_attn.{part}_proj.weight" for part in "qkv"]
            wrong |= zip(names, value.split([len(wrong[part]) for part in names]), strict=True)
    assign_weights(backbone.model, wrong, "the golden, misread")
    with torch.no_grad():
        logits = backbone.text_scores(
            backbone(backbone.embed_text(ids), rows_of(np.ones(ids.shape)), record(golden, ids.shape))
        )
    assert np.abs(logits.numpy() - golden["logits"]).max() > 0.5
