"""The max-z term equals that of written-out logits, in value and gradient, for every kind of rows."""

from types import SimpleNamespace

import pytest
import torch

from plait.heads import rows as heads
from plait.objectives.max_z import max_z
from plait.sequence.batch import TERMS
from tests.objectives.test_next_token import WIDTH, head
from tests.systems.test_liquid import PAIR, tiny_liquid


def batch(targets: torch.Tensor) -> SimpleNamespace:
    """Words where a target stands, and pictures nowhere."""
    places = [(targets.flatten() >= 0).nonzero().squeeze(1), torch.empty(0, dtype=torch.long)]
    return SimpleNamespace(wanted={name: SimpleNamespace(places=each) for name, each in zip(TERMS, places, strict=True)})


@pytest.mark.parametrize(("kind", "softcap"), [("tied", None), ("untied", None), ("tied", 5.0), ("factorised", None)])
@pytest.mark.parametrize("chunk_elements", [1, 500, 1 << 20])
def test_lean_equals_full(monkeypatch, kind, softcap, chunk_elements) -> None:
    lean = heads.top_dense
    monkeypatch.setattr(heads, "top_dense", lambda hidden, weight, cap: lean(hidden, weight, cap, chunk_elements))
    shared, table = head(kind, softcap)
    hidden = torch.randn(5, 10, WIDTH, requires_grad=True)
    targets = torch.randint(-1, 3, (5, 10))
    parameters = [hidden, table, *shared.parameters()]

    full = shared.logits(hidden[targets >= 0], [0, 1, 2])
    expected = full.float().amax(-1).square().sum()
    wanted = torch.autograd.grad(expected * 0.7, parameters, allow_unused=True)
    terms = max_z(shared, hidden, batch(targets))
    assert terms.counts == {"max_z": float((targets >= 0).sum())}
    torch.testing.assert_close(terms.sums["max_z"], expected)
    gradients = torch.autograd.grad(terms.sums["max_z"] * 0.7, parameters, allow_unused=True)
    for got, want in zip(gradients, wanted, strict=True):
        got, want = (torch.zeros(()) if gradient is None else gradient for gradient in (got, want))
        torch.testing.assert_close(got, want.expand_as(got), atol=1e-4, rtol=1e-5)


def test_nothing_to_predict_is_nothing() -> None:
    shared, _ = head("tied", None)
    terms = max_z(shared, torch.randn(2, 3, WIDTH), batch(torch.full((2, 3), -1)))
    assert (terms.sums["max_z"].item(), terms.counts["max_z"]) == (0.0, 0.0)


@pytest.mark.parametrize("code_rows", ["dense", "factorised"])
def test_a_model_has_it_when_asked_and_only_then(monkeypatch, code_rows) -> None:
    model = tiny_liquid(code_rows=code_rows, has_max_z=True)
    batch = model.builder.build([model.template.wrap(PAIR, counter) for counter in range(8)], row_length=64)
    terms = model.loss(batch)
    logits = model.head.logits(model.hidden(batch)[batch.targets >= 0], range(len(model.builder.vocabulary.segments)))
    torch.testing.assert_close(terms.sums["max_z"], logits.amax(-1).square().sum())
    assert terms.counts["max_z"] == sum(batch.counts.values())
    model = tiny_liquid(code_rows=code_rows)
    monkeypatch.setattr(model.head, "top", lambda hidden: pytest.fail("computed although it is off"))
    assert set(model.loss(batch).sums) == {"text", "image"}
