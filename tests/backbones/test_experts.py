"""Vision experts: every token through the feed-forward of its kind and no other, in whatever way the backbone is called."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import jaxtyping
import pytest
import torch
from torch import nn

from plait.backbones.causal_lm import CausalLM
from plait.backbones.experts import add_vision_experts
from plait.errors import LayoutError
from plait.freezing import FreezePlan
from plait.records import Side, find_routes
from tests.backbones.conftest import ARCHITECTURES, SIZES, build, pack
from tests.backbones.routed import LAYERS, PACKED, ROWS, TOKENS, build_experts, draw_tokens, run, run_cached


class BothBlended(nn.Module):
    """The other way to do it, for comparison: both feed-forwards everywhere, and a mask that chooses."""

    def __init__(self, text: nn.Module, vision: nn.Module, is_visual: torch.Tensor) -> None:
        super().__init__()
        self.text, self.vision, self.is_visual = text, vision, is_visual

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.where(self.is_visual[..., None], self.vision(hidden), self.text(hidden))


def blended(routed: CausalLM, is_visual: torch.Tensor) -> CausalLM:
    """A plain backbone with the weights of one with experts, for rows of one document each."""
    plain = build_like(routed)
    for ours, theirs in zip(plain.decoder.layers, routed.decoder.layers, strict=True):
        ours.mlp = BothBlended(deepcopy(theirs.mlp.text), deepcopy(theirs.mlp.vision), is_visual.reshape(1, -1))
    return plain


def build_like(routed: CausalLM) -> CausalLM:
    plain = CausalLM(type(routed.model)(deepcopy(routed.config))).train(routed.training)
    plain.model.load_state_dict(routed.model.state_dict(), strict=False)
    return plain


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_values_and_gradients_are_those_of_both_blended(architecture: str) -> None:
    ids, is_visual = draw_tokens()
    routed = build_experts(architecture)
    reference = blended(routed, is_visual)
    layout, weights = pack([[TOKENS]] * ROWS), torch.randn(ROWS, TOKENS, routed.width)
    hidden, expected = run(routed, ids, is_visual), reference(reference.embed_text(ids), layout)
    torch.testing.assert_close(hidden, expected, atol=2e-5, rtol=1e-5)
    for states in (hidden, expected):
        (states * weights).sum().backward()
    theirs = dict(reference.named_parameters())
    assert {name for name, _ in routed.named_parameters()} == set(theirs)
    for name, parameter in routed.named_parameters():
        if parameter.grad is not None:
            scale = theirs[name].grad.abs().max()
            torch.testing.assert_close(parameter.grad / scale, theirs[name].grad / scale, atol=1e-5, rtol=1e-4, msg=name)


@torch.no_grad()
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_copies_change_nothing_whatever_is_visual(architecture: str) -> None:
    """F5 of specs section 9: FFN_V = FFN_T at the start."""
    ids, _ = draw_tokens()
    plain, routed = build(architecture), add_vision_experts(build(architecture))
    expected = plain(plain.embed_text(ids), pack([[TOKENS]] * ROWS))
    logits = plain.text_scores(expected)
    generator = torch.Generator().manual_seed(0)
    for share in (0.1, 0.5, 0.9):
        is_visual = torch.rand(ids.shape, generator=generator) < share
        assert is_visual.any()
        assert not is_visual.all()
        difference = routed.text_scores(run(routed, ids, is_visual)) - logits
        assert difference.abs().max() <= 1e-6 * logits.abs().max()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_call_of_text_alone_is_bit_equal_to_the_backbone_without_experts(architecture: str) -> None:
    ids, _ = draw_tokens()
    plain, routed = build(architecture), build_experts(architecture)
    none, layout = torch.zeros_like(ids, dtype=torch.bool), pack(PACKED)
    assert torch.equal(run(routed, ids, none), plain(plain.embed_text(ids), pack([[TOKENS]] * ROWS)))
    packed, no_token = torch.randint(50, layout.documents.shape), torch.zeros_like(layout.documents, dtype=torch.bool)
    assert torch.equal(run(routed, packed, no_token, layout), plain(plain.embed_text(packed), layout))
    sizes = [4, 1, 3, 1, 1]
    assert torch.equal(run_cached(routed, ids, none, sizes), run_cached(plain, ids, none, sizes))


def test_a_call_of_one_picture_is_bit_equal_to_a_backbone_of_experts_alone() -> None:
    ids, _ = draw_tokens()
    routed = build_experts()
    seeing = build_like(routed)
    for ours, theirs in zip(seeing.decoder.layers, routed.decoder.layers, strict=True):
        ours.mlp.load_state_dict(theirs.mlp.vision.state_dict())
    every = torch.ones_like(ids, dtype=torch.bool)
    assert torch.equal(run(routed, ids, every), seeing(seeing.embed_text(ids), pack([[TOKENS]] * ROWS)))


def test_each_feed_forward_sees_its_own_tokens_and_no_other() -> None:
    ids, is_visual = draw_tokens()
    routed, seen = build_experts(), []
    for name in ("text", "vision"):
        module = getattr(routed.decoder.layers[0].mlp, name)
        module.register_forward_pre_hook(lambda _, inputs, name=name: seen.append((name, inputs[0].shape[1])))
    none, every = torch.zeros_like(is_visual), torch.ones_like(is_visual)
    for kinds in (is_visual, none, every):
        run(routed, ids, kinds)
    number = int(is_visual.sum())
    assert seen == [("text", ids.numel() - number), ("vision", number), ("text", ids.numel()), ("vision", ids.numel())]


def test_what_an_expert_computes_cannot_reach_a_token_that_is_not_its_own() -> None:
    """A blend with a mask would: 0 times nan is nan."""
    ids, is_visual = draw_tokens()
    routed = build_experts()
    before = run(routed, ids, is_visual)
    with torch.no_grad():
        routed.decoder.layers[-1].mlp.vision.down_proj.weight.fill_(float("nan"))
    after = run(routed, ids, is_visual)
    assert torch.equal(after[~is_visual], before[~is_visual])
    assert after[is_visual].isnan().all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("sizes", [[1] * TOKENS, [4, 1, 3, 1, 1], [6, 4]], ids=["each", "mixed", "chunks"])
def test_cached_equals_uncached(architecture: str, sizes: list[int]) -> None:
    """F6 of specs section 9."""
    ids, is_visual = draw_tokens()
    routed = build_experts(architecture)
    torch.testing.assert_close(run_cached(routed, ids, is_visual, sizes), run(routed, ids, is_visual), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_ragged_rows_of_a_cache_are_routed_by_their_own_tokens() -> None:
    ids, is_visual = draw_tokens()
    routed = build_experts()
    expected = run(routed, ids, is_visual)
    cache, done = routed.new_cache(ROWS, TOKENS), [0] * ROWS
    for rows, steps in (([2, 0], [4, 6]), ([1], [9]), ([0, 1, 2], [4, 1, 2]), ([2], [4])):
        layout = cache.append(torch.tensor(rows), torch.tensor(steps))
        embeddings = torch.randn(*layout.positions.shape, routed.width) * 100  # noise at padding, of any kind
        kinds = torch.rand(layout.positions.shape) < 0.5
        for place, (row, step) in enumerate(zip(rows, steps, strict=True)):
            fed = slice(done[row], done[row] + step)
            embeddings[place, :step], kinds[place, :step] = routed.embed_text(ids[row, fed]), is_visual[row, fed]
        hidden = routed(embeddings, layout, Side(kinds), cache)
        for place, (row, step) in enumerate(zip(rows, steps, strict=True)):
            found, wanted = hidden[place, :step], expected[row, done[row] : done[row] + step]
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
            done[row] += step
    assert done == [TOKENS] * ROWS


def test_compiled_steps_are_routed_and_need_two_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for steps of text and one for steps of visual tokens; mixtures, of which there are too many, are not compiled."""
    ids, is_visual = draw_tokens()
    assert {int(kinds.sum()) for kinds in is_visual[:, 4:].T} == {0, 1, 2, 3}
    routed, graphs = build_experts(), []
    expected = run(routed, ids, is_visual)

    def count(graph: torch.fx.GraphModule, _: list) -> Callable:
        graphs.append(graph)
        return graph.forward  # kernels are not what is tested

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a compiler cannot look through the checks of shapes
    routed.compile_decoding(backend=count, fullgraph=True)  # a break in the graph is an error
    for _ in range(2):
        torch.testing.assert_close(run_cached(routed, ids, is_visual, [3, *[1] * 7]), expected, atol=1e-5, rtol=1e-4)
    assert len(graphs) == 2


def test_packed_equals_alone_and_rows_may_stand_in_any_order() -> None:
    routed, layout = build_experts("gemma2"), pack(PACKED)
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(50, layout.documents.shape, generator=generator)
    is_visual = torch.rand(ids.shape, generator=generator) < 0.5
    hidden = run(routed, ids, is_visual, layout)
    for row, lengths in enumerate(PACKED):
        for index, length in enumerate(lengths):
            own = layout.documents[row] == index
            alone = run(routed, ids[row, own][None], is_visual[row, own][None])
            assert alone.shape[1] == length
            torch.testing.assert_close(hidden[row, own], alone[0], atol=1e-5, rtol=1e-4)
    turned = run(routed, ids.flip(0), is_visual.flip(0), pack(PACKED[::-1]))
    torch.testing.assert_close(turned.flip(0), hidden, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_recomputed_layers_are_routed_alike(architecture: str) -> None:
    """transformers recomputes `forward` and leaves the hooks of a layer outside: with the record in a hook this would fail. The backward
    pass has a thread of its own, as on a GPU."""
    ids, is_visual = draw_tokens()
    backbone, gradients, calls = build_experts(architecture), {}, []
    backbone.decoder.layers[0].mlp.vision.register_forward_pre_hook(lambda *_: calls.append(1))
    for is_on in (False, True):
        backbone = CausalLM(backbone.model, gradient_checkpointing=is_on).train()
        backbone.zero_grad()
        loss = run(backbone, ids, is_visual).square().sum()
        with ThreadPoolExecutor(1) as other:
            other.submit(loss.backward).result()
        gradients[is_on] = {
            name: parameter.grad for name, parameter in backbone.named_parameters() if parameter.grad is not None
        }
    assert len(calls) == 1 + 2
    assert len(gradients[False]) > 10 * LAYERS
    assert gradients[False].keys() == gradients[True].keys()
    assert all(torch.equal(gradient, gradients[True][name]) for name, gradient in gradients[False].items())


@torch.no_grad()
def test_routes_made_with_the_batch_are_taken_as_they_are() -> None:
    routed, layout = build_experts(), pack(PACKED)
    ids = torch.randint(50, layout.documents.shape)
    is_visual = (torch.rand(ids.shape) < 0.5) & (layout.documents >= 0)
    embeddings, routes = routed.embed_text(ids), find_routes(is_visual, layout.groups)
    assert torch.equal(routed(embeddings, layout, Side(is_visual, given_routes=routes)), run(routed, ids, is_visual, layout))
    turned = Side(is_visual, given_routes=routes[::-1])  # the record is believed
    assert not torch.allclose(routed(embeddings, layout, turned), run(routed, ids, is_visual, layout), atol=1e-2)
    cache = routed.new_cache(len(ids), ids.shape[1])
    announced = cache.append(torch.arange(len(ids)), torch.tensor([sum(lengths) for lengths in PACKED]))
    with pytest.raises(LayoutError, match=r"given_routes lead 22 tokens and the layers are fed 24: .*find_routes"):
        routed(embeddings, announced, Side(is_visual, given_routes=routes), cache)


def trained(backbone: CausalLM) -> set[str]:
    """Which feed-forwards have a gradient."""
    return {
        name.split(".mlp.")[1].split(".")[0]
        for name, p in backbone.named_parameters()
        if ".mlp." in name and p.grad is not None
    }


def test_only_the_feed_forward_that_was_used_gets_a_gradient() -> None:
    ids, is_visual = draw_tokens()
    expected = {"text": torch.zeros_like(is_visual), "vision": torch.ones_like(is_visual), "both": is_visual}
    for kind, kinds in expected.items():
        routed = build_experts()
        run(routed, ids, kinds).sum().backward()
        assert trained(routed) == ({"text", "vision"} if kind == "both" else {kind})


class Whole(nn.Module):
    """A model of one part."""

    def __init__(self, backbone: CausalLM) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {"backbone": self.backbone}


def test_trained_experts_leave_text_as_it_was_to_the_last_bit() -> None:
    """The first stage of SynerGen-VL: experts train, the language model rests, and what it says of text alone cannot change."""
    ids, is_visual = draw_tokens()
    routed, none = add_vision_experts(build()), torch.zeros_like(is_visual)
    before, seen = run(routed, ids, none), run(routed, ids, is_visual)
    planned = FreezePlan(freeze=["backbone"], train=["backbone.*.mlp.vision.*"]).apply(Whole(routed))
    names = [item.name for item in planned if item.is_trainable]
    assert len(names) == 3 * LAYERS
    assert all(".mlp.vision." in name for name in names)
    optimizer = torch.optim.AdamW([item.tensor for item in planned if item.is_trainable], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        run(routed, ids, is_visual).square().sum().backward()
        optimizer.step()
    assert torch.equal(run(routed, ids, none), before)
    assert not torch.allclose(run(routed, ids, is_visual)[is_visual], seen[is_visual], atol=1e-2)


def test_a_deep_copy_routes_by_its_own_calls() -> None:
    ids, is_visual = draw_tokens()
    routed = build_experts()
    copied, expected = deepcopy(routed), run(routed, ids, is_visual)
    with torch.no_grad():
        for parameter in routed.parameters():
            parameter.zero_()
    assert torch.equal(run(copied, ids, is_visual), expected)


def test_a_record_is_held_by_its_call() -> None:
    ids, is_visual = draw_tokens()
    routed, hidden = build_experts(), torch.zeros(ROWS, TOKENS, SIZES["hidden_size"])
    feed_forward = routed.decoder.layers[0].mlp
    for is_broken in (False, True):
        if is_broken:
            feed_forward.vision.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ValueError("broken")))
            with pytest.raises(ValueError, match="broken"):
                run(routed, ids, is_visual)
        else:
            run(routed, ids, is_visual)
        with pytest.raises(LayoutError, match=r"got no record of which tokens are visual, expected side=.* \(3, 10\)"):
            feed_forward(hidden)


def test_a_call_that_does_not_say_what_is_visual_is_refused() -> None:
    ids, is_visual = draw_tokens()
    routed, layout = build_experts(), pack([[TOKENS]] * ROWS)
    embeddings = routed.embed_text(ids).detach()
    again = CausalLM(routed.model)  # wrapped anew, the model still says what it needs
    for backbone in (routed, deepcopy(routed), again):
        with pytest.raises(LayoutError, match=r"has vision experts, but the call has no record .* Expected side=.*all False"):
            backbone(embeddings, layout)
    with pytest.raises(LayoutError, match=r"shape \(3, 9\), the layout \(3, 10\): expected one entry per token"):
        routed(embeddings, layout, Side(is_visual[:, 1:]))
    cache = routed.new_cache(ROWS, TOKENS)
    announced = cache.append(torch.arange(ROWS), torch.full((ROWS,), TOKENS))
    with torch.no_grad(), pytest.raises(LayoutError, match="no record"):
        routed(embeddings, announced, cache=cache)
    plain = build()
    assert torch.equal(plain(embeddings, layout, Side(is_visual)), plain(embeddings, layout))


def test_autocast_routes_too() -> None:
    ids, is_visual = draw_tokens()
    routed = build_experts()
    exact = run(routed, ids, is_visual)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = run(routed, ids, is_visual)
    assert nn.functional.cosine_similarity(hidden.float(), exact, dim=-1).min() > 0.99
