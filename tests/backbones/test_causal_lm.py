"""Packed documents equal the plain transformers model run on padded rows, in value and in gradient."""

import json
from copy import deepcopy

import pytest
import torch
from torch.nn import functional
from transformers import GPT2Config, LlamaConfig

from plait.backbones.causal_lm import CausalLM
from plait.backbones.configuration import build_config
from plait.errors import CheckpointError, LayoutError, RecipeError
from plait.records import Layout, Side

LENGTHS = [7, 2, 5, 7, 1]
PACKED = [[5, 7], [7, 1, 2]]
ORDER = [2, 0, 3, 4, 1]
"""the documents of LENGTHS in the order in which PACKED holds them"""


def padded_ids() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids, one document per row, and which of them are real."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(50, (len(LENGTHS), max(LENGTHS)), generator=generator)
    return ids, torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]


def packed_ids(layout: Layout) -> torch.Tensor:
    ids, is_real = padded_ids()
    row = torch.zeros(layout.documents.shape, dtype=torch.int64)
    row[layout.documents >= 0] = torch.cat([ids[index][is_real[index]] for index in ORDER])
    return row


def reference_of(backbone: CausalLM):
    """The plain transformers model with the same weights, in its own eager code."""
    model = deepcopy(backbone.model)
    model.set_attn_implementation("eager")
    return model


def in_order(hidden: torch.Tensor, is_real: torch.Tensor) -> torch.Tensor:
    return torch.cat([hidden[index][is_real[index]] for index in ORDER])


def test_packed_equals_padded_reference(backbone, new_layout) -> None:
    ids, is_real = padded_ids()
    layout = new_layout(PACKED)
    output = reference_of(backbone)(ids, attention_mask=is_real.long(), output_hidden_states=True, use_cache=False)
    hidden = backbone(backbone.embed_text(packed_ids(layout)), layout)
    torch.testing.assert_close(hidden[layout.documents >= 0], in_order(output.hidden_states[-1], is_real), atol=1e-5, rtol=1e-5)
    assert not hidden[layout.documents < 0].any()
    torch.testing.assert_close(
        backbone.text_scores(hidden)[layout.documents >= 0], in_order(output.logits, is_real), atol=2e-5, rtol=1e-5
    )


def test_padded_rows_are_a_layout(backbone, new_layout) -> None:
    ids, is_real = padded_ids()
    layout = new_layout([[length] for length in LENGTHS])
    expected = reference_of(backbone).model(ids, attention_mask=is_real.long(), use_cache=False).last_hidden_state
    hidden = backbone(backbone.embed_text(ids), layout)
    torch.testing.assert_close(hidden[is_real], expected[is_real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_packed_gradient_equals_padded_gradient(architecture, new_backbone, new_layout, gradient_checkpointing) -> None:
    backbone = new_backbone(architecture).train()
    reference = reference_of(backbone)
    if gradient_checkpointing:
        backbone = CausalLM(backbone.model, gradient_checkpointing=True).train()
    ids, is_real = padded_ids()
    layout = new_layout(PACKED)
    weights = torch.randn(sum(LENGTHS), backbone.width)
    expected = reference.model(ids, attention_mask=is_real.long(), use_cache=False).last_hidden_state
    (in_order(expected, is_real) * weights).sum().backward()
    hidden = backbone(backbone.embed_text(packed_ids(layout)), layout)
    (hidden[layout.documents >= 0] * weights).sum().backward()
    compared = 0
    for (name, ours), theirs in zip(backbone.model.named_parameters(), reference.parameters(), strict=True):
        if theirs.grad is not None:
            scale = theirs.grad.abs().max()
            torch.testing.assert_close(ours.grad / scale, theirs.grad / scale, atol=1e-5, rtol=1e-4, msg=name)
            compared += 1
    assert compared >= 20


def test_checkpointing_recomputes_layers(new_backbone, new_layout) -> None:
    layout = new_layout(PACKED)
    calls = {False: 0, True: 0}
    for is_on in calls:
        backbone = CausalLM(new_backbone().model, gradient_checkpointing=is_on).train()

        def count(*_, is_on=is_on) -> None:
            calls[is_on] += 1

        backbone.decoder.layers[0].mlp.register_forward_pre_hook(count)
        backbone(backbone.embed_text(packed_ids(layout)), layout).sum().backward()
    assert calls == {False: 1, True: 2}


def test_no_mask_is_built(backbone, new_layout, monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("a dense mask was built")

    monkeypatch.setattr("transformers.masking_utils.sdpa_mask", refuse)
    monkeypatch.setattr("transformers.masking_utils.eager_mask", refuse)
    seen = []
    backbone.decoder.layers[0].self_attn.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
    )
    layout = new_layout(PACKED)
    backbone(backbone.embed_text(packed_ids(layout)), layout)
    assert [mask.numel() for mask in seen] == [1]  # a stand-in, which no one reads


def test_documents_do_not_see_each_other(backbone, new_layout) -> None:
    layout = new_layout(PACKED)
    embeddings = backbone.embed_text(packed_ids(layout)).detach()
    before = backbone(embeddings, layout)
    embeddings[0, :5] += 1.0
    after = backbone(embeddings, layout)
    changed = (before - after).abs().amax(-1) > 1e-6
    assert changed[0, :5].all()
    assert not changed[0, 5:].any()
    assert not changed[1].any()


def test_autocast(backbone, new_layout) -> None:
    layout = new_layout(PACKED)
    embeddings = backbone.embed_text(packed_ids(layout))
    exact = backbone(embeddings, layout)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = backbone(embeddings, layout)
    assert functional.cosine_similarity(hidden.float(), exact, dim=-1)[layout.documents >= 0].min() > 0.99
    hidden.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in backbone.decoder.layers.parameters())


def test_side_reaches_every_layer_in_the_order_of_its_tokens(new_backbone, new_layout) -> None:
    backbone, seen = new_backbone(), []
    for layer in backbone.decoder.layers:
        layer.self_attn.register_forward_pre_hook(lambda _, __, kwargs: seen.append(kwargs["side"]), with_kwargs=True)
    layout = new_layout(PACKED)
    is_first = (layout.positions == 0) & (layout.documents >= 0)
    backbone(backbone.embed_text(packed_ids(layout)), layout, side=Side(is_first))
    assert len(seen) == len(backbone.decoder.layers)
    expected = torch.cat([group[:, 0] * 0 + group.shape[1] for group in layout.groups])  # documents follow each other
    for side in seen:
        assert torch.equal(side.is_visual[0].nonzero()[:, 0], expected.cumsum(0) - expected)
        assert torch.equal(side.routes[1], side.is_visual[0].nonzero()[:, 0])


def test_gemma_scales_rows_and_caps_scores(new_backbone) -> None:
    gemma, llama = new_backbone("gemma2"), new_backbone("llama")
    ids = torch.tensor([3, 4])
    assert gemma.embedding_scale == pytest.approx(32**0.5)
    torch.testing.assert_close(gemma.embed_text(ids), gemma.text_table[ids] * gemma.embedding_scale)
    assert gemma.logit_softcap == 3.0
    assert gemma.is_tied
    assert gemma.text_scores(torch.randn(9, 32) * 50).abs().max() <= 3.0
    assert (llama.embedding_scale, llama.logit_softcap, llama.is_tied) == (1.0, None, False)
    assert torch.equal(llama.embed_text(ids), llama.text_table[ids])
    assert isinstance(gemma.bfloat16().embedding_scale, float)
    assert gemma.embedding_scale == float(torch.tensor(32**0.5).bfloat16())


def test_shape_of_the_table(backbone) -> None:
    assert (backbone.width, backbone.text_rows) == (32, 50)
    assert backbone.text_weight.shape == (50, 32)


def test_row_0_is_an_ordinary_row(new_backbone, new_layout) -> None:
    gemma = new_backbone("gemma")  # whose config class makes id 0 the padding row by default
    layout = new_layout([[2]])
    gemma(gemma.embed_text(torch.zeros(1, 2, dtype=torch.int64)), layout).sum().backward()
    assert gemma.text_table.grad[0].any()


def test_from_pretrained_round_trip(backbone, new_layout, tmp_path) -> None:
    backbone.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    loaded = CausalLM.from_pretrained(tmp_path).eval()
    layout = new_layout(PACKED)
    ids = packed_ids(layout)
    assert loaded.is_tied == backbone.is_tied
    assert torch.equal(loaded(loaded.embed_text(ids), layout), backbone(backbone.embed_text(ids), layout))


def test_a_release_brings_no_code(backbone, tmp_path) -> None:
    backbone.save_pretrained(tmp_path)
    for option in ({"trust_remote_code": True}, {"attn_implementation": "evil/kernel"}, {"cache_dir": "x"}):
        with pytest.raises(TypeError, match=next(iter(option))):
            CausalLM.from_pretrained(tmp_path, **option)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "attn_implementation": "evil/kernel"}))
    for read in (CausalLM.from_pretrained, CausalLM.from_folder):
        with pytest.raises(RecipeError, match="names the attention 'evil/kernel', code of a repository"):
            read(tmp_path)


def test_a_folder_gives_the_architecture_without_weights(backbone, tmp_path) -> None:
    backbone.save_config(tmp_path, bos_token_id=7)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    again = CausalLM.from_folder(tmp_path)
    again.model.load_state_dict(backbone.model.state_dict())
    assert (again.is_tied, again.embedding_scale, again.config.bos_token_id) == (backbone.is_tied, backbone.embedding_scale, 7)
    assert backbone.config.bos_token_id is None
    small = CausalLM.from_folder(tmp_path, vocab_size=9, device="meta")
    assert (small.text_rows, small.text_table.device.type, small.is_tied) == (9, "meta", backbone.is_tied)
    assert small.embedding_scale == backbone.embedding_scale


def test_a_folder_without_a_readable_config_is_refused(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"No backbone in .*expected a config\.json"):
        CausalLM.from_folder(tmp_path)
    for content in ("no", '{"model_type": "unheard_of"}', '{"auto_map": {"AutoConfig": "evil.Config"}}'):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
            CausalLM.from_folder(tmp_path)


def test_config_class_is_an_architecture(new_layout) -> None:
    backbone = CausalLM.from_config(
        LlamaConfig, vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    layout = new_layout([[3]])
    assert backbone(backbone.embed_text(torch.tensor([[1, 2, 3]])), layout).shape == (1, 3, 16)


def test_groups_must_hold_every_token(new_backbone, new_layout) -> None:
    backbone = new_backbone()
    layout = new_layout(PACKED)
    embeddings = backbone.embed_text(packed_ids(layout))
    with pytest.raises(LayoutError, match="hold 0 tokens but 22 of 24"):
        backbone(embeddings, Layout(layout.positions, layout.documents))
    with pytest.raises(LayoutError, match=r"\(2, 11\), the layout \(2, 12\)"):
        backbone(embeddings[:, 1:], layout)


def test_wrong_settings_are_refused_by_name() -> None:
    with pytest.raises(RecipeError, match="no architecture 'lama'"):
        CausalLM.from_config("lama")
    with pytest.raises(RecipeError, match=r"no setting 'hidden_sise': did you mean hidden_size"):
        CausalLM.from_config("llama", hidden_sise=16)
    with pytest.raises(RecipeError, match="4 is not a multiple of num_key_value_heads = 3"):
        CausalLM.from_config("llama", num_attention_heads=4, num_key_value_heads=3)
    with pytest.raises(RecipeError, match="num_hidden_layers is 3, expected a multiple of the 2 entries of layer_types"):
        CausalLM.from_config("qwen3", num_hidden_layers=3, layer_types=("sliding_attention", "full_attention"))
    with pytest.raises(RecipeError, match="refuses"):
        CausalLM.from_config("qwen3", num_hidden_layers=2, layer_types=("looking", "away"))


def test_a_pattern_of_layers_is_repeated() -> None:
    config = build_config("qwen3", num_hidden_layers=4, layer_types=("sliding_attention", "full_attention"))
    assert config.layer_types == ["sliding_attention", "full_attention"] * 2


def test_gpt2_passes_the_proof(new_layout) -> None:
    backbone = CausalLM.from_config(GPT2Config, vocab_size=20, n_embd=16, n_layer=1, n_head=2).eval()
    layout = new_layout([[2, 3]])
    embeddings = backbone.embed_text(torch.arange(5)[None])
    alone = reference_of(backbone).transformer(inputs_embeds=embeddings[:, 2:], use_cache=False)
    torch.testing.assert_close(backbone(embeddings, layout)[:, 2:], alone.last_hidden_state, atol=1e-5, rtol=1e-5)
