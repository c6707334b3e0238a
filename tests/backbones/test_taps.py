"""Taps: what they give reaches the residual stream and the feed-forward, in whatever way the backbone is called."""

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import jaxtyping
import pytest
import torch

from plait.backbones.causal_lm import CausalLM
from plait.backbones.experts import add_vision_experts
from plait.backbones.taps import add_taps
from plait.errors import LayoutError, RecipeError
from plait.protocols import Tap
from plait.records import Side
from tests.backbones.conftest import SIZES, build, pack
from tests.backbones.tapped import (
    FAMILIES,
    LENGTHS,
    LookingTap,
    build_tapped,
    draw_features,
    run_cached,
    run_packed,
    run_written_out,
)

SEES_NOTHING = (torch.zeros(1, 3, dtype=torch.int64),) * 2 + (torch.zeros(1, 1, dtype=torch.int64), draw_features())


class Narrow(torch.nn.Module):
    """A tap whose output would be spread over the width."""

    def forward(self, hidden: torch.Tensor, _: Side) -> torch.Tensor:
        return hidden[..., :1]


def plain_of(tapped: CausalLM) -> CausalLM:
    """The same weights without taps, in transformers' own eager code."""
    plain = CausalLM(type(tapped.model)(deepcopy(tapped.config)))
    missing, unexpected = plain.model.load_state_dict(tapped.model.state_dict(), strict=False)
    assert not missing, "taps rename no weight"
    assert all(".tap." in name for name in unexpected)
    plain.model.set_attn_implementation("eager")
    return plain


@pytest.mark.parametrize("gradient_checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_values_and_gradients_are_those_of_the_layer_written_out(family: str, gradient_checkpointing: bool) -> None:
    """The backward pass has a thread of its own, as on a GPU."""
    tapped = CausalLM(build_tapped(family).model, gradient_checkpointing).train()
    plain = plain_of(tapped)
    taps = {index: deepcopy(layer.tap) for index, layer in enumerate(tapped.decoder.layers)}
    both = [tuple(level.requires_grad_() for level in draw_features()) for _ in range(2)]
    hidden = torch.cat(run_packed(tapped, both[0]))
    expected = torch.cat(run_written_out(plain, taps, both[1]))
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(expected)
    for states in (hidden, expected):
        with ThreadPoolExecutor(1) as other:
            other.submit((states * weights).sum().backward).result()
    theirs = dict(plain.model.named_parameters())
    prefix = next(name for name, _ in tapped.model.named_parameters()).split(".")[0]
    theirs |= {f"{prefix}.layers.{i}.tap.{name}": value for i, tap in taps.items() for name, value in tap.named_parameters()}
    ours = dict(tapped.model.named_parameters())
    assert ours.keys() == theirs.keys()
    pairs = [(name, ours[name].grad, theirs[name].grad) for name in ours if theirs[name].grad is not None]
    assert len(pairs) > 25
    for name, found, wanted in pairs + [("features", *(level.grad for level in pair)) for pair in zip(*both, strict=True)]:
        scale = wanted.abs().max()
        assert scale > 0, name
        torch.testing.assert_close(found / scale, wanted / scale, atol=1e-5, rtol=1e-4, msg=name)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_padded_and_cached_look_at_the_same_pictures(family: str) -> None:
    tapped, features = build_tapped(family), draw_features()
    expected = torch.cat(run_packed(tapped, features))
    for found in (
        run_packed(tapped, features, [[length] for length in LENGTHS]),
        *(run_cached(tapped, features, n) for n in (1, 3)),
    ):
        torch.testing.assert_close(torch.cat(found), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_picture_reaches_the_tokens_that_may_look_at_it_and_no_other() -> None:
    tapped, features = build_tapped("llama", layers=(1,)), draw_features()
    before = run_packed(tapped, features)
    features[0][4] += 1.0  # the second picture of the second document
    moved = [(old - new).abs().amax(1) > 0 for old, new in zip(before, run_packed(tapped, features), strict=True)]
    for index, tokens in enumerate(moved):
        assert tokens.tolist() == [index == 1 and place >= 3 for place in range(LENGTHS[index])]


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tap_that_gives_nothing_changes_no_bit(family: str) -> None:
    tapped, features = build_tapped(family), draw_features()
    for layer in tapped.decoder.layers:
        for parameter in layer.tap.value.parameters():
            parameter.zero_()
    plain = build(family, **FAMILIES[family])
    for found, expected in zip(run_packed(tapped, features), run_packed(plain, features), strict=True):
        assert torch.equal(found, expected)


@torch.no_grad()
def test_taps_stand_beside_vision_experts() -> None:
    features, expected = draw_features(), run_packed(build_tapped("llama"), draw_features())
    both = add_taps(add_vision_experts(build("llama")), {0: LookingTap(), 1: LookingTap()})
    assert all(isinstance(layer.tap, Tap) for layer in both.decoder.layers)
    assert both.model.side_readers == ("vision experts", "taps")
    tapped = build_tapped("llama")
    for ours, theirs in zip(both.decoder.layers, tapped.decoder.layers, strict=True):
        ours.tap = theirs.tap
    for found, wanted in zip(run_packed(both, features), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    with pytest.raises(RecipeError, match=r"has taps, .* add vision experts before taps"):
        add_vision_experts(tapped)


@torch.no_grad()
def test_a_deep_copy_and_a_compiled_step_look_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tapped, features = build_tapped("llama"), draw_features()
    expected, copied = torch.cat(run_packed(tapped, features)), deepcopy(tapped)
    for parameter in tapped.parameters():
        parameter.zero_()
    torch.testing.assert_close(torch.cat(run_packed(copied, features)), expected)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a compiler cannot look through the checks of shapes
    copied.compile_decoding(backend="eager", fullgraph=True)
    torch.testing.assert_close(torch.cat(run_cached(copied, features, 1)), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_text_alone_is_tapped_too() -> None:
    """A record without any picture: a tap may still add what does not depend on one."""
    tapped, layout = build_tapped("llama", layers=(0,)), pack([[3]])
    nothing, features = torch.zeros(1, 3, dtype=torch.int64), tuple(level[:0] for level in draw_features())
    embeddings = tapped.embed_text(torch.tensor([[1, 2, 3]]))
    side = Side(nothing.bool(), nothing, nothing, torch.empty(1, 0, dtype=torch.int64), features)
    plain = plain_of(tapped).model.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    assert (tapped(embeddings, layout, side) - plain).abs().max() > 1e-3
    tapped.decoder.layers[0].tap.value.bias.zero_()
    torch.testing.assert_close(tapped(embeddings, layout, side), plain, atol=1e-5, rtol=1e-5)


def test_a_call_without_a_record_or_without_pictures_is_refused() -> None:
    tapped, layout = build_tapped("llama"), pack([[3]])
    embeddings = tapped.embed_text(torch.tensor([[1, 2, 3]]))
    with pytest.raises(LayoutError, match=r"The backbone has taps, but the call has no record .*Expected side="):
        tapped(embeddings, layout)
    with pytest.raises(LayoutError, match="does not say which pictures its tokens may look at"):
        tapped(embeddings, layout, Side(torch.zeros(1, 3, dtype=torch.bool)))
    tapped.decoder.layers[1].tap = Narrow()
    with pytest.raises(LayoutError, match=r"A tap gave \(1, 3, 1\) for hidden states \(1, 3, 32\), expected the same shape"):
        CausalLM(tapped.model)(embeddings, layout, Side(torch.zeros(1, 3, dtype=torch.bool), *SEES_NOTHING))
    with pytest.raises(LayoutError, match="A layer with a tap got no record of the call"):
        tapped.decoder.layers[0].post_attention_layernorm(embeddings)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("gemma2", {}, r"layers are not x \+ attention.* differ by"),
        ("olmo2", {}, r"layers have no residual stream between .*input_layernorm"),
        ("phi3", {"resid_pdrop": 0.1}, r"layers are not x \+ attention"),
        ("granite", {"residual_multiplier": 0.5}, r"layers are not x \+ attention"),
        ("cohere", {"logit_scale": 1.0}, r"layers have no residual stream between"),
    ],
)
def test_other_layouts_are_refused_by_name(name: str, settings: dict, message: str) -> None:
    sizes = {key: value for key, value in SIZES.items() if key != "head_dim"}
    backbone = CausalLM.from_config(name, **sizes | settings)
    with pytest.raises(RecipeError, match=f"The backbone '{name}' takes no taps: its {message}"):
        add_taps(backbone, {0: LookingTap()})
    assert not backbone.reads_side


def test_layers_that_are_not_there_or_taken_are_refused() -> None:
    tapped = build_tapped("llama", layers=(1,))
    with pytest.raises(
        RecipeError, match=r"given for the layers \[0, 4\], expected some of the layers 0 to 1 of the backbone 'llama'"
    ):
        add_taps(tapped, {0: LookingTap(), 4: LookingTap()})
    with pytest.raises(RecipeError, match=r"The layers \[1\] have a tap already"):
        add_taps(tapped, {1: LookingTap()})
