"""The ledger tells what moved from what did not, bit by bit."""

from pathlib import Path

import pytest
import torch
from torch import nn

from plait.errors import CheckpointError
from plait.freezing import FreezePlan, scale_groups
from plait.ledger import Ledger, digest


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.BatchNorm1d(3)
        self.body = nn.Linear(3, 3)
        self.unused = nn.Parameter(torch.ones(2))

    @property
    def parts(self) -> dict[str, nn.Module]:
        spare = nn.Module()
        spare.unused = self.unused
        return {"encoder": self.encoder, "body": self.body, "spare": spare}


def train(model: Model, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(3):
        optimizer.zero_grad()
        model.body(model.encoder(torch.randn(8, 3))).square().sum().backward()
        optimizer.step()


def open_ledger() -> tuple[Model, FreezePlan, torch.optim.Optimizer, Ledger]:
    torch.manual_seed(0)
    model, plan = Model(), FreezePlan(freeze=["encoder"], learning_rate={"spare": 0.1})
    optimizer = scale_groups(torch.optim.AdamW(plan.parameter_groups(model), lr=0.01, weight_decay=0.1))
    return model, plan, optimizer, Ledger.open(model, plan.resolve(model), optimizer)


def test_rows_are_what_the_optimizer_holds() -> None:
    *_, ledger = open_ledger()
    rows = {(row.part, row.is_trainable, row.learning_rate, row.weight_decay): row.parameters for row in ledger.rows}
    assert rows == {
        ("encoder", False, None, None): 6,
        ("body", True, 0.01, 0.1): 9,
        ("body", True, 0.01, 0.0): 3,
        ("spare", True, 0.001, 0.0): 2,
    }
    assert (ledger.parameters, ledger.trainable_parameters) == (20, 14)
    assert "AdamW" in ledger.table()
    assert "frozen" in ledger.table()


def test_a_kept_plan_and_an_unmoved_tensor() -> None:
    """The frozen part rests; `unused` gets no gradient and no decay, and is reported."""
    model, plan, optimizer, ledger = open_ledger()
    model.encoder.eval()
    train(model, optimizer)
    proof = ledger.close(model, plan.resolve(model), 3).proof
    assert proof.changed_frozen == ()
    assert proof.unmoved_trainable == ("spare.unused",)
    assert not proof.is_kept
    table = ledger.close(model, plan.resolve(model), 3).table()
    assert "1 of 3 trainable tensors did NOT move (spare.unused)" in table


def test_running_statistics_of_a_frozen_part_count() -> None:
    model, plan, optimizer, ledger = open_ledger()
    train(model, optimizer)
    changed = ledger.close(model, plan.resolve(model), 3).proof.changed_frozen
    assert set(changed) == {"encoder.running_mean", "encoder.running_var", "encoder.num_batches_tracked"}


def test_the_smallest_change_is_seen() -> None:
    model, plan, _, ledger = open_ledger()
    with torch.no_grad():
        model.encoder.weight[1] = torch.nextafter(model.encoder.weight[1], torch.tensor(2.0))
    assert ledger.close(model, plan.resolve(model), 0).proof.changed_frozen == ("encoder.weight",)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_digest_reads_bytes(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    assert digest(tensor) == digest(tensor.clone())
    assert digest(tensor) != digest(tensor[:1])
    assert digest(tensor.t()[0]) == digest(tensor[:, 0].clone())
    assert digest(torch.tensor(-0.0)) != digest(torch.tensor(0.0))
    assert len(digest(torch.empty(0))) == 16


def test_round_trip(tmp_path: Path) -> None:
    model, plan, optimizer, ledger = open_ledger()
    train(model, optimizer)
    closed = ledger.close(model, plan.resolve(model), 3)
    closed.write(tmp_path / "ledger.json")
    assert Ledger.read(tmp_path / "ledger.json") == closed
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.json"]


def test_another_model_is_refused() -> None:
    *_, ledger = open_ledger()
    model = Model()
    model.body = nn.Linear(3, 3, bias=False)
    with pytest.raises(CheckpointError, match=r"1 differ \(body.bias\)"):
        ledger.close(model, FreezePlan(freeze=["encoder"]).resolve(model), 1)
