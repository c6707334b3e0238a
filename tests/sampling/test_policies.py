"""Policies against plain definitions."""

import pytest
import torch

from plait.errors import RecipeError
from plait.sampling.policies import PerSampleNoise, SamplingPolicy, keep_top_k, keep_top_p


def test_top_k_keeps_ties() -> None:
    kept = keep_top_k(torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0]]), 2)
    assert kept.isfinite().tolist() == [[False, True, True, True, False]]


def test_top_p_keeps_the_token_that_crosses() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert keep_top_p(logits, 0.6).isfinite().tolist() == [[True, True, False, False]]
    assert keep_top_p(logits, 0.4).isfinite().tolist() == [[True, False, False, False]]


def test_draws_follow_the_probabilities() -> None:
    probabilities = torch.tensor([[0.1, 0.0, 0.6, 0.3]]).expand(20_000, 4)
    drawn = PerSampleNoise(range(20_000))(probabilities, torch.arange(20_000))
    share = torch.bincount(drawn, minlength=4) / 20_000
    assert share[1] == 0
    assert torch.allclose(share, probabilities[0], atol=0.012)


def test_guidance_and_impossible_ids() -> None:
    logits = torch.tensor([[1.0, 2.0, -torch.inf]])
    unconditional = torch.tensor([[0.0, 4.0, 9.0]])
    policy = SamplingPolicy(guidance=3.0, temperature=0.0)
    assert policy.draw(logits, unconditional, torch.tensor([0]), PerSampleNoise([0])).tolist() == [0]  # 3 against -2


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(RecipeError, match="0 < top_p <= 1"):
        SamplingPolicy(top_p=0.0)
