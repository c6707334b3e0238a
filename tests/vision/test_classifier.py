"""Supervision by attributes: the loss against written-out cross entropies, the metric, and that it learns."""

import pytest
import torch
from torch.nn import functional

from plait.errors import RecipeError
from plait.vision.classifier import AttributeClassifier
from tests.vision.test_encoder import make

ATTRIBUTES = torch.tensor([[0, 3, -1], [1, 2, 4], [5, -1, -1]])


def build(num_attributes: int = 6) -> AttributeClassifier:
    return AttributeClassifier(vision=make(), num_attributes=num_attributes)


def test_the_loss_is_the_mean_over_the_attributes_of_each_picture() -> None:
    model, images = build(), torch.rand(3, 3, 32, 32) * 2 - 1
    terms = model.loss({"images": images, "attributes": ATTRIBUTES})
    logits = model(images)
    expected = sum(
        functional.cross_entropy(logits[row].expand(len(own), -1), torch.tensor(own))
        for row, own in enumerate(([0, 3], [1, 2, 4], [5]))
    )
    torch.testing.assert_close(terms.sums["attributes"], expected)
    assert terms.counts == {"attributes": 3.0}


def test_the_metric_counts_attributes_among_as_many_highest_logits() -> None:
    model = build()
    model.forward = lambda images: torch.tensor([[9.0, 1, 2, 8, 0, 0], [0, 9, 1, 7, 8, 0], [9, 8, 7, 6, 5, 4]])
    terms = model.loss({"images": torch.zeros(3, 3, 32, 32), "attributes": ATTRIBUTES})
    # first picture: both; second: 1 and 4 but not 2; third: 5 is the lowest
    assert terms.metrics["attributes_found"] == (4.0, 6.0)


def test_learns_eight_pictures() -> None:
    model, images = build(8), torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch = {"images": images, "attributes": torch.arange(8)[:, None]}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        terms = model.loss(batch)
        terms.sums["attributes"].backward()
        optimizer.step()
    assert terms.metrics["attributes_found"] == (8.0, 8.0)
    owned = [id(parameter) for part in model.parts.values() for parameter in part.parameters()]
    assert sorted(owned) == sorted(id(parameter) for parameter in model.parameters())


def test_one_attribute_is_refused() -> None:
    with pytest.raises(RecipeError, match="num_attributes is 1, expected at least 2"):
        build(1)
