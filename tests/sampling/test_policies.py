"""Policies against plain definitions."""

import pytest
import torch

from plait.errors import RecipeError
from plait.sampling.constraints import AllowAfter, AllowOnly, Disallow
from plait.sampling.policies import PerSampleNoise, SamplingPolicy, keep_top_k, keep_top_p, scale


def test_top_k_keeps_ties() -> None:
    kept = keep_top_k(torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0]]), 2)
    assert kept.isfinite().tolist() == [[False, True, True, True, False]]


def test_top_p_keeps_the_token_that_crosses() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert keep_top_p(logits, 0.6).isfinite().tolist() == [[True, True, False, False]]
    assert keep_top_p(logits, 0.4).isfinite().tolist() == [[True, False, False, False]]


def test_draws_follow_the_probabilities() -> None:
    probabilities = torch.tensor([[0.1, 0.0, 0.6, 0.3]]).expand(20_000, 4)
    drawn = PerSampleNoise(range(20_000)).choose(probabilities, torch.arange(20_000))
    share = torch.bincount(drawn, minlength=4) / 20_000
    assert share[1] == 0
    assert torch.allclose(share, probabilities[0], atol=0.012)


def test_guidance_and_impossible_ids() -> None:
    logits = torch.tensor([[1.0, 2.0, -torch.inf]])
    unconditional = torch.tensor([[0.0, 4.0, 9.0]])
    policy = SamplingPolicy(guidance=3.0, temperature=0.0)
    assert policy.draw(logits, [unconditional], torch.tensor([0]), PerSampleNoise([0])).tolist() == [0]  # 3 against -2


def test_two_branches_are_weighed_one_after_the_other() -> None:
    full, image, nothing = torch.randn(3, 4, 9)
    policy = SamplingPolicy(guidance=(1.2, 3.0))
    assert torch.allclose(policy.guide(full, [nothing, image]), nothing + 1.2 * (image - nothing) + 3.0 * (full - image))
    assert SamplingPolicy(guidance=(1.0, 1.0)).guidance_weights == ()  # the sum telescopes: nothing to run


def test_constraints_forbid_and_repetition_is_penalised() -> None:
    logits = torch.tensor([[3.0, 2.0, -1.0, -4.0]])
    choose = lambda history, **settings: SamplingPolicy(temperature=0.0, **settings).draw(  # noqa: E731
        logits, (), torch.tensor([0]), PerSampleNoise([0]), [history]
    )
    assert choose([0], repetition_penalty=2.0).tolist() == [1]
    assert choose([], repetition_penalty=2.0).tolist() == [0]
    assert choose([1, 1], constraints=(AllowOnly((2, 3)),)).tolist() == [2]
    assert choose([1, 1], constraints=(Disallow((0,), from_length=2),)).tolist() == [1]
    assert choose([1], constraints=(Disallow((0,), from_length=2),)).tolist() == [0]
    assert choose([1, 2], constraints=(AllowAfter(1, (3,), offset=2),)).tolist() == [3]
    assert choose([2, 1], constraints=(AllowAfter(1, (3,), offset=2),)).tolist() == [0]
    with pytest.raises(RecipeError, match="forbid every id"):
        choose([], constraints=(AllowOnly((0,)), Disallow((0,))))
    with pytest.raises(RecipeError, match=r"names the ids \[7\], the policy draws among 0 to 3"):
        choose([], constraints=(AllowOnly((7,)),))


@pytest.mark.parametrize(
    "settings",
    [
        {"top_p": 0.0},
        {"top_p": float("nan")},
        {"top_p": 1.5},
        {"top_k": -1},
        {"top_k": True},
        {"temperature": float("inf")},
        {"temperature": float("nan")},
        {"temperature": -0.1},
        {"guidance": 1e38},
        {"guidance": float("nan")},
        {"guidance": (1.0, float("inf"))},
        {"guidance": ()},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": 1e38},
        {"repetition_penalty": 1e-40},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_by_name(settings) -> None:
    ((name, _),) = settings.items()
    with pytest.raises(RecipeError, match=f"A sampling policy with {name}=.*0 < top_p <= 1.*Next: change"):
        SamplingPolicy(**settings)


ODD = [
    *({"temperature": value} for value in (5e-324, 1e-40, 1e-30, 1e-7)),
    {"top_p": 1e-40},
    {"top_p": 5e-324},
    {"top_k": 1},
    {"temperature": 1e-40, "top_p": 1e-3, "top_k": 3},
    {"temperature": 1e-3, "repetition_penalty": 1e6},
]


@pytest.mark.parametrize("settings", ODD, ids=str)
def test_odd_settings_that_leave_one_id_take_the_most_likely(settings) -> None:
    logits = torch.randn(40, 9, generator=torch.Generator().manual_seed(3)) * 20
    logits[:, [2, 8]] = -torch.inf
    drawn = SamplingPolicy(**settings).draw(logits, (), torch.arange(40), PerSampleNoise(range(40)))
    assert drawn.tolist() == logits.argmax(-1).tolist()


def test_the_strongest_guidance_follows_the_difference_alone() -> None:
    logits, nothing = torch.randn(2, 40, 9, generator=torch.Generator().manual_seed(3)) * 20
    for temperature in (0.0, 5e-324, 1e-6, 1.0):
        policy = SamplingPolicy(guidance=1e6, temperature=temperature)
        drawn = policy.draw(logits, [nothing], torch.arange(40), PerSampleNoise(range(40)))
        assert drawn.tolist() == (logits - nothing).argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [1e7, 1e40, 1.7e308])
def test_a_huge_temperature_draws_every_legal_id_and_no_other(temperature) -> None:
    logits = torch.tensor([[1.0, -torch.inf, 30.0, -5.0]]).expand(4000, 4)
    drawn = SamplingPolicy(temperature=temperature).draw(logits, (), torch.arange(4000), PerSampleNoise(range(4000)))
    share = torch.bincount(drawn, minlength=4) / 4000
    assert share[1] == 0
    assert torch.allclose(share[[0, 2, 3]], torch.full((3,), 1 / 3), atol=0.03)


def test_usual_temperatures_draw_as_they_always_did() -> None:
    logits = torch.randn(5, 9)
    for temperature in (1e-6, 0.5, 1.0, 2.0, 1e6):
        assert torch.equal(scale(logits, temperature), logits / temperature)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_not_drawn_from(bad, temperature) -> None:
    logits = torch.tensor([[1.0, bad, 0.0], [1.0, -torch.inf, -torch.inf]])
    drawn = SamplingPolicy(temperature=temperature).draw(logits, (), torch.arange(2), PerSampleNoise([0, 1]))
    assert drawn.tolist() == [-1, 0]
