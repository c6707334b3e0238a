"""Supervision by attributes: the loss against written-out cross entropies, the metric, and that it learns."""

import pytest
import torch
from torch.nn import functional

from plait.errors import RecipeError
from plait.vision.classifier import AttributeClassifier
from tests.vision.test_encoder import make

ATTRIBUTES = torch.tensor([[0, 3, -1], [1, 2, 4], [5, -1, -1]])


def build(num_attributes: int = 6, temperature: float | None = None) -> AttributeClassifier:
    return AttributeClassifier(vision=make(), num_attributes=num_attributes, temperature=temperature)


class Fixed(torch.nn.Module):
    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.logits


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
    model.head = Fixed([[9.0, 1, 2, 8, 0, 0], [0, 9, 1, 7, 8, 0], [9, 8, 7, 6, 5, 4]])
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


def test_the_views_term_is_the_cross_entropy_both_ways_and_no_picture_is_its_own_negative() -> None:
    model, generator = build(temperature=0.1).eval(), torch.Generator().manual_seed(0)
    images, originals = (torch.rand(3, 3, 32, 32, generator=generator) * 2 - 1 for _ in range(2))
    batch = {"images": images, "originals": originals, "attributes": ATTRIBUTES, "numbers": torch.tensor([0, 1, 0])}
    terms = model.loss(batch)
    cosines = (
        functional.cosine_similarity(model.vision(images).pooled[:, None], model.vision(originals).pooled[None], dim=2) / 0.1
    )
    own = torch.tensor([0, 1, 2])
    cosines[0, 2] = cosines[2, 0] = -torch.inf  # one picture, drawn twice
    expected = (functional.cross_entropy(cosines, own) + functional.cross_entropy(cosines.T, own)) * 3 / 2
    torch.testing.assert_close(terms.sums["views"], expected)
    assert terms.counts == {"attributes": 3.0, "views": 3.0}
    assert terms.metrics["originals_found"] == (float((cosines.argmax(1) == own).sum()), 3.0)


def test_renderings_without_originals_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"set batches\.has_originals"):
        build(temperature=0.1).loss({"images": torch.zeros(3, 3, 32, 32), "attributes": ATTRIBUTES})
    with pytest.raises(RecipeError, match=r"temperature is 0\.0, expected a number above 0"):
        build(temperature=0.0)
