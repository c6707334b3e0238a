"""The lean loss equals the full cross entropy, in value and gradient; factorised rows equal their written-out logits."""

import pytest
import torch
from torch.nn import functional as F

from plait.errors import RecipeError
from plait.heads.rows import DenseRows, FactorisedRows, TextRows
from plait.heads.shared import SharedHead
from plait.heads.starts import RowStart
from plait.objectives.next_token import CHUNK_VARIABLE, count_positions, summed_cross_entropy

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
@pytest.mark.parametrize("chunk_bytes", [1, 2000, 4 << 20])
def test_lean_equals_full(kind, softcap, chunk_bytes) -> None:
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
        hidden, segments, local, shared.score, shared.score_parameters(), shared.num_logits, chunk_bytes
    )
    assert torch.allclose(lean, expected, rtol=1e-5)
    gradients = torch.autograd.grad(lean * 0.7, [hidden, *parameters], allow_unused=True)
    for got, want in zip(gradients, expected_gradients, strict=True):
        got, want = (torch.zeros(1) if gradient is None else gradient for gradient in (got, want))
        assert torch.allclose(got, want, atol=1e-4)
    with torch.no_grad():
        again = summed_cross_entropy(
            hidden, segments, local, shared.score, shared.score_parameters(), shared.num_logits, chunk_bytes
        )
    assert torch.allclose(again, expected, rtol=1e-5)


@pytest.mark.parametrize(("kind", "softcap"), [("tied", None), ("untied", 5.0), ("factorised", None)])
@pytest.mark.parametrize("chunk_bytes", [1, 3000, None])
def test_lean_equals_full_under_autocast(monkeypatch, kind, softcap, chunk_bytes) -> None:
    """As close as roundings to bfloat16 leave it (2^-7 of the largest entry), however the positions are cut, and no farther from the
    gradients in fp32 than those of full logits are."""
    monkeypatch.setattr("plait.objectives.next_token.TABLE_BLOCK", 7)
    shared, table = head(kind, softcap)
    parameters = [table, *shared.parameters()]
    hidden = torch.randn(50, WIDTH, requires_grad=True)
    segments = torch.randint(0, 3, (50,))
    local = torch.stack([torch.randint(0, rows.size, (50,)) for rows in shared.rows])[segments, torch.arange(50)]
    targets = local + torch.tensor([0, 17, 21])[segments]

    def gradients(loss) -> list[torch.Tensor]:
        return [loss.detach(), *torch.autograd.grad(loss, [hidden, *parameters], allow_unused=True, materialize_grads=True)]

    exact = gradients(F.cross_entropy(shared.logits(hidden, [0, 1, 2]), targets, reduction="sum"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        full = F.cross_entropy(shared.logits(hidden, [0, 1, 2]), targets, reduction="sum")
        lean = summed_cross_entropy(
            hidden, segments, local, shared.score, shared.score_parameters(), shared.num_logits, chunk_bytes
        )
    for mine, theirs, true in zip(gradients(lean), gradients(full), exact, strict=True):
        scale = theirs.abs().max()
        assert mine.dtype == theirs.dtype == torch.float32
        assert (mine - theirs).abs().max() <= 2**-7 * scale
        assert (mine - true).abs().max() <= 1.5 * (theirs - true).abs().max() + 1e-6 * scale


def test_chunks_are_of_bytes_of_the_device(monkeypatch) -> None:
    """At the size of Gemma with codes (264,192 rows), on a GPU whose logits are rounded to bfloat16 first."""
    monkeypatch.delenv(CHUNK_VARIABLE, raising=False)
    assert (count_positions(264_192, "cpu"), count_positions(264_192, "cuda")) == (47, 2032)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert count_positions(264_192, "cpu") == 31
    monkeypatch.setenv(CHUNK_VARIABLE, "256")
    assert count_positions(264_192, "cuda") == count_positions(264_192, "cpu") == 254
    monkeypatch.setenv(CHUNK_VARIABLE, "0.5")
    with pytest.raises(RecipeError, match=r"PLAIT_LOSS_CHUNK_MIB is '0.5', expected a whole number of MiB"):
        count_positions(264_192, "cpu")


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
