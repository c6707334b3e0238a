"""The lean loss equals the full cross entropy, in value and gradient; factorised rows equal their written-out logits."""

import pytest
import torch
from torch.nn import functional as F

from plait.errors import RecipeError
from plait.heads.rows import DenseRows, FactorisedRows, TextRows
from plait.heads.shared import SharedHead
from plait.heads.starts import RowStart
from plait.objectives.next_token import summed_cross_entropy

WIDTH = 12


def head(kind: str, softcap: float | None) -> tuple[SharedHead, torch.nn.Parameter]:
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(17, WIDTH))
    codes = (
        FactorisedRows((3, 4, 5), WIDTH, start=RowStart(std=1.0))
        if kind == "factorised"
        else DenseRows(60, WIDTH, is_tied=kind == "tied", softcap=softcap, start=RowStart(std=1.0))
    )
    text = TextRows(17, lambda ids: F.embedding(ids, table), lambda: table, softcap)
    return SharedHead([text, DenseRows(4, WIDTH, is_tied=True, softcap=softcap, start=RowStart(std=1.0)), codes]), table


@pytest.mark.parametrize(("kind", "softcap"), [("tied", None), ("untied", None), ("tied", 5.0), ("factorised", None)])
@pytest.mark.parametrize("chunk_elements", [1, 500, 1 << 20])
def test_lean_equals_full(kind, softcap, chunk_elements) -> None:
    shared, table = head(kind, softcap)
    hidden = torch.randn(50, WIDTH, requires_grad=True)
    segments = torch.randint(0, 3, (50,))
    local = torch.stack([torch.randint(0, rows.size, (50,)) for rows in shared.rows])[segments, torch.arange(50)]
    parameters = [table, *shared.parameters()]

    full = shared.logits(hidden, [0, 1, 2])
    offsets = torch.tensor([0, 17, 21])
    expected = F.cross_entropy(full, local + offsets[segments], reduction="sum")
    expected_gradients = torch.autograd.grad(expected * 0.7, [hidden, *parameters], allow_unused=True)

    lean = summed_cross_entropy(
        hidden, segments, local, shared.score, shared.score_parameters(), shared.num_logits, chunk_elements
    )
    assert torch.allclose(lean, expected, rtol=1e-5)
    gradients = torch.autograd.grad(lean * 0.7, [hidden, *parameters], allow_unused=True)
    for got, want in zip(gradients, expected_gradients, strict=True):
        got, want = (torch.zeros(1) if gradient is None else gradient for gradient in (got, want))
        assert torch.allclose(got, want, atol=1e-4)
    with torch.no_grad():
        again = summed_cross_entropy(
            hidden, segments, local, shared.score, shared.score_parameters(), shared.num_logits, chunk_elements
        )
    assert torch.allclose(again, expected, rtol=1e-5)


def test_digits_rebuild_the_code() -> None:
    rows = FactorisedRows((3, 4, 5), WIDTH)
    ids = torch.arange(60)
    assert torch.equal((rows.digits(ids) * rows.strides).sum(1), ids)
    assert len({tuple(d) for d in rows.digits(ids).tolist()}) == 60


def test_gradients_are_given_once() -> None:
    """The gradients are made in the forward pass and handed over: a second call would scale them twice."""
    _, table = head("tied", None)
    hidden = torch.randn(5, WIDTH, requires_grad=True)
    segments, local = torch.zeros(5, dtype=torch.long), torch.arange(5)
    loss = summed_cross_entropy(hidden, segments, local, _score_text(table), [table], num_logits=17)
    loss.backward(retain_graph=True)
    with pytest.raises(RecipeError, match=r"asked for a second time.*Expected one backward per forward.*Next: compute"):
        loss.backward()


def _score_text(table):
    def score(states, segments, local):
        logits = F.linear(states, table)
        return logits.logsumexp(1), logits.gather(1, local[:, None])[:, 0]

    return score
