"""Tokenizers that keep everything, blur, or mistake colours; codebooks whose use is known."""

import numpy as np
import pytest
import torch

from plait.errors import VocabularyError
from plait.evaluation.bench import Bench
from plait.evaluation.codebook import measure_codebook, measure_codebooks
from plait.sampling.policies import SamplingPolicy
from plait.worlds.emoji.examinations.blind import BlindAnswers
from plait.worlds.emoji.examinations.plan import list_training_scenes
from plait.worlds.emoji.examinations.reconstruction import calibrate_oracle, judge_reconstruction
from plait.worlds.emoji.oracle import Oracle
from tests.worlds.stub_models import PICTURES, PerfectModel

POLICIES = {"text": SamplingPolicy(), "image": SamplingPolicy()}


class BlurringModel(PerfectModel):
    def pictures(self, spans):
        small = torch.nn.functional.avg_pool2d(super().pictures(spans), 8)
        return torch.nn.functional.interpolate(small, scale_factor=8, mode="bilinear")


class RedBlindModel(PerfectModel):
    def pictures(self, spans):
        return super().pictures(spans).flip(1)


@pytest.fixture(scope="module")
def blind(world):
    return BlindAnswers(list_training_scenes(world, 300))


def judge(model, world, oracle, blind, split="val"):
    return judge_reconstruction(Bench(model(world), world, oracle, PICTURES, POLICIES, n=40), blind, split)


def test_reconstruction_says_what_is_lost(world, oracle, blind):
    perfect, records = judge(PerfectModel, world, oracle, blind)
    assert perfect["val/reconstruction"].value == 1.0
    assert perfect["val/reconstruction"].baselines["original"] == 1.0
    # the cast to 8 bit may lose one level
    assert perfect["val/reconstruction_pixel_error"].value < 1 / 255
    assert sum(len(record.document.images) for record in records) == 80
    flipped, _ = judge(RedBlindModel, world, oracle, blind)
    assert flipped["val/reconstruction"].value < 0.4
    assert flipped["val/reconstruction_pixel_error"].value > 0.01
    blurred, _ = judge(BlurringModel, world, oracle, blind)
    error = blurred["val/reconstruction_pixel_error"]
    assert 0.01 < error.value < error.baselines["mean_picture"]


def test_half_of_the_scenes_have_one_object_where_there_are_such(world, oracle, blind):
    for split, singles in (("val", 20), ("test_pair", 0), ("test_combo", 20)):
        _, records = judge(PerfectModel, world, oracle, blind, split)
        assert len(records) == 40
        assert sum("," not in record.expected for record in records) == singles


def test_the_oracle_is_loosened_for_blur_within_its_limits(world):
    oracle = Oracle(world)
    strict = oracle.thresholds
    bench = Bench(PerfectModel(world), world, oracle, PICTURES, POLICIES)
    assert calibrate_oracle(bench, 60).right == 1.0
    assert oracle.thresholds == strict

    class SoftModel(PerfectModel):
        def pictures(self, spans):
            sharp = super().pictures(spans)
            return 0.15 * sharp + 0.85 * torch.nn.functional.avg_pool2d(sharp, 9, 1, 4)

    found = calibrate_oracle(Bench(SoftModel(world), world, oracle, PICTURES, POLICIES), 60)
    assert found.wanted.worst > strict.worst or found.wanted.margin < strict.margin
    assert oracle.thresholds != strict


def test_codebook_health_of_known_codes():
    even = measure_codebook(np.arange(8).repeat(5), 8)
    assert (even.used, even.size) == (1.0, 8)
    assert even.perplexity == pytest.approx(8.0)
    dead = measure_codebook(np.zeros((4, 4), dtype=int), 8)
    assert (dead.used, dead.perplexity) == (0.125, pytest.approx(1.0))
    with pytest.raises(VocabularyError, match=r"size 8: found codes 0\.\.8"):
        measure_codebook(np.array([0, 8]), 8)
    with pytest.raises(VocabularyError, match="no codes"):
        measure_codebook(np.array([], dtype=int), 8)


def test_digits_have_their_own_health():
    # code = low digit + 4 * high digit; the high digit never moves
    health = measure_codebooks([(np.array([[0, 1], [2, 3]]),)], [(4, 3)])
    assert set(health) == {"level_0", "level_0_digit_0", "level_0_digit_1"}
    assert health["level_0"].used == pytest.approx(4 / 12)
    assert health["level_0_digit_0"].perplexity == pytest.approx(4.0)
    assert health["level_0_digit_1"].perplexity == pytest.approx(1.0)
    two_levels = measure_codebooks([(np.array([[0]]), np.array([[1]]))], [(5,), (2,)])
    assert set(two_levels) == {"level_0", "level_1"}
