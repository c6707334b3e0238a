"""Batches are a pure function of (seed, number); counts are those of the whole optimiser step; ranks share a batch out."""

import numpy as np
import pytest
import torch

from plait.data.filling import Pictures
from plait.data.mixture import Mixture
from plait.document import Document, ImageSpan, TextSpan
from plait.errors import RecipeError
from tests.sequence.random_documents import tiny_builder

CODES = (np.zeros((2, 3), dtype=np.int64),)


class PlainTemplate:
    """Words nothing: codes for images, loss on all text."""

    def wrap(self, document, counter):
        spans = tuple(
            ImageSpan(span.image_id, loss=True, form="codes") if isinstance(span, ImageSpan) else TextSpan(span.text, True)
            for span in document.spans
        )
        return Document(spans, id=f"{document.id}#{counter}")

    def guidance_branches(self, document, image_index):
        return ()


def mixture(kind: type[Mixture] = Mixture, **changes) -> Mixture:
    sources = {
        "short": [Document((TextSpan("a red car"),), id=f"short-{i}") for i in range(5)],
        "long": [Document((TextSpan("the blue house is above the car"), ImageSpan(f"i{i}")), id=f"long-{i}") for i in range(7)],
    }
    settings = {
        "weights": {"short": 1.0, "long": 3.0},
        "row_length": 40,
        "num_batches": 12,
        "documents_per_window": 64,
    } | changes
    return kind(
        sources=sources, template=PlainTemplate(), builder=tiny_builder(), pictures=Pictures(lambda name: CODES), **settings
    )


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    one, other = mixture(), mixture()
    for number in (5, 0, 11, 5):
        a, b = one[number], other[number]
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.targets, b.targets)
    assert not torch.equal(mixture(seed=1)[0].ids, one[0].ids)


def test_a_window_holds_each_of_its_documents_once() -> None:
    data = mixture()
    held = sorted(int(place.id.split("#")[1]) for number in range(4) for place in data[number].documents)
    assert held == list(range(64))
    long = sum("long" in place.id for number in range(12) for place in data[number].documents)
    assert 0.65 < long / 192 < 0.85


def test_counts_are_those_of_the_whole_step() -> None:
    data = mixture(accumulate=3)
    for step in range(4):
        parts = [data[3 * step + i] for i in range(3)]
        own = [part.own_counts() for part in parts]
        for part in parts:
            assert part.counts == {name: sum(count[name] for count in own) for name in ("text", "image")}


def test_ranks_share_a_batch_out() -> None:
    whole = mixture()[2]
    shares = [mixture(rank=rank, num_ranks=2)[2] for rank in range(2)]
    assert sorted(p.id for s in shares for p in s.documents) == sorted(p.id for p in whole.documents)
    assert all(share.counts == whole.counts for share in shares)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": {"shrot": 1.0}}, "weighs \\['shrot'\\]"),
        ({"weights": {"short": 0.0}}, "positive weight"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words) -> None:
    with pytest.raises(RecipeError, match=words):
        mixture(**changes)
    with pytest.raises(RecipeError, match="too few for 4 batches"):
        mixture(documents_per_window=2)[0]
    with pytest.raises(IndexError):
        mixture()[12]
