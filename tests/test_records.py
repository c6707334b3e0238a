"""The record of a call: what goes with its tokens, and what stays with its pictures."""

import jaxtyping
import pytest
import torch

from plait.errors import LayoutError
from plait.records import Side, find_routes
from tests.backbones.conftest import pack

IS_VISUAL = torch.tensor([[False, True, True, False], [True, False, False, False]])
VISIBLE = torch.tensor([[0, 1, 1, 2], [1, 1, 0, -1]])
DOCUMENTS = torch.tensor([[0, 0, 0, 0], [1, 1, 2, -1]])
PICTURES = torch.tensor([[4, 0], [2, -1], [-1, -1]])


def test_what_goes_with_tokens_is_reordered_and_what_goes_with_pictures_is_not() -> None:
    features = (torch.randn(5, 3, 4, 4), torch.randn(5, 3, 2, 2))
    taken = Side(IS_VISUAL, VISIBLE, DOCUMENTS, PICTURES, features).take(torch.tensor([4, 5, 3, 1]))
    assert taken.is_visual.tolist() == [[True, False, False, True]]
    assert taken.visible.tolist() == [[1, 1, 2, 1]]
    assert taken.documents.tolist() == [[1, 1, 0, 0]]
    assert taken.pictures is PICTURES
    assert taken.features is features


def test_a_token_sees_the_first_pictures_of_its_own_document() -> None:
    side = Side(IS_VISUAL, VISIBLE, DOCUMENTS, PICTURES)
    assert side.seen.tolist() == [[[-1, -1], [4, -1], [4, -1], [4, 0]], [[2, -1], [2, -1], [-1, -1], [-1, -1]]]


def test_given_routes_count_tokens_as_layers_are_fed() -> None:
    layout = pack([[3, 1], [1, 1, 1]])
    order = torch.cat([group.flatten() for group in layout.groups])
    side = Side(IS_VISUAL, given_routes=find_routes(IS_VISUAL, layout.groups))
    for given, found in zip(side.take(order).routes, Side(IS_VISUAL).take(order).routes, strict=True):
        assert torch.equal(given, found)
    for given, found in zip(find_routes(IS_VISUAL), Side(IS_VISUAL).routes, strict=True):
        assert torch.equal(given, found)


def test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        LayoutError, match="some of visible, documents and pictures and not the others, expected all three or none"
    ):
        Side(IS_VISUAL, VISIBLE)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside of tests
    with pytest.raises(LayoutError, match=r"shapes \[\(2, 3\), \(2, 4\)\], expected one entry per token"):
        Side(IS_VISUAL, VISIBLE[:, :3], DOCUMENTS, PICTURES)
    with pytest.raises(LayoutError, match="does not say which pictures its tokens may look at: expected side=Side"):
        Side(IS_VISUAL).seen  # noqa: B018
