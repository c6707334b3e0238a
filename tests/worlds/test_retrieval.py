"""Retrieval: an encoder that knows the picture finds it, one that sees nothing is at chance, pixels stand beside both."""

import pytest
import torch

from plait.data.jitter import Jitter
from plait.evaluation.features import FeatureSpace
from plait.worlds.emoji.examinations.retrieval import judge_retrieval
from tests.worlds.test_distribution import Downsampled


class Blind(Downsampled):
    """Sees a little noise of its own, whatever it is shown."""

    def forward(self, images):
        found = super().forward(images)
        generator = torch.Generator().manual_seed(len(images))
        found.pooled.copy_(torch.randn(found.pooled.shape, generator=generator))
        return found


def still(images, generator):
    return images


@pytest.fixture(scope="module")
def few_glyphs(world):
    """The world with a gallery of 60 glyphs."""

    class Few(type(world)):
        def glyphs(self, split):
            return super().glyphs(split)[:60]

    return Few()


def test_the_same_picture_is_found_and_a_blind_encoder_guesses(few_glyphs) -> None:
    figures, records = judge_retrieval(FeatureSpace("plain", Downsampled()), few_glyphs, still, n=40)
    assert {key: figure.n for key, figure in figures.items()} == {
        "glyphs/retrieval": 40,
        "unseen_glyphs/retrieval": 40,
        "objects/retrieval": 40,
        "unseen_objects/retrieval": 12,
    }
    assert all(figure.value == 1.0 for figure in figures.values())
    assert {key: figure.facts["gallery"] for key, figure in figures.items()} == {
        "glyphs/retrieval": 60,
        "unseen_glyphs/retrieval": 120,
        "objects/retrieval": 48,
        "unseen_objects/retrieval": 60,
    }
    assert figures["glyphs/retrieval"].baselines == {"chance": pytest.approx(1 / 60), "pixels": 1.0}
    assert records[0].found == records[0].expected
    blind, _ = judge_retrieval(FeatureSpace("blind", Blind()), few_glyphs, still, n=40)
    assert blind["glyphs/retrieval"].value < 0.2


def test_queries_are_fresh_and_the_same_each_time(few_glyphs) -> None:
    space = FeatureSpace("plain", Downsampled())
    (figures, records), (again, _) = (judge_retrieval(space, few_glyphs, Jitter(), n=20) for _ in range(2))
    assert figures == again
    shown, _, query = records[0].pictures
    assert shown.tobytes() != query.tobytes()
    assert figures["glyphs/retrieval"].value < 1.0
