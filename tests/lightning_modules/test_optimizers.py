"""Muon and AdamW as one optimiser equal the two apart; schedules."""

import copy

import pytest
import torch
from torch import nn

from lightning_modules.training import schedules
from lightning_modules.training.muon import Muon, orthogonalise
from lightning_modules.training.optimizers import MuonWithAdamW
from plait.errors import RecipeError
from plait.freezing import FreezePlan, scale_groups
from tests.lightning_modules.stubs import Model

PLAN = FreezePlan(learning_rate={"head": 0.5})


def make(model: nn.Module) -> MuonWithAdamW:
    optimizer = MuonWithAdamW(
        PLAN.parameter_groups(model), lr=0.01, muon_lr=0.02, hidden=("hidden.*", "body.*"), weight_decay=0.1
    )
    return scale_groups(optimizer)


def set_gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def two_models() -> tuple[Model, Model]:
    first, second = Model(), Model()
    second.load_state_dict(first.state_dict())
    return first, second


def test_equals_two_optimizers() -> None:
    """Two-dimensional hidden weights by Muon, the rest by AdamW, each at its own rate and decay."""
    ours, theirs = two_models()
    optimizer = make(ours)
    named = dict(theirs.named_parameters())
    matrices = [named.pop("layers.weight"), named.pop("body.0.weight")]
    heads = [named.pop("head.weight")]
    vectors = [named.pop("head.bias")]
    muon = Muon(matrices, lr=0.02, weight_decay=0.1)
    groups = [
        {"params": heads, "lr": 0.005, "weight_decay": 0.1},
        {"params": vectors, "lr": 0.005, "weight_decay": 0.0},
        {"params": list(named.values()), "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
    for step in range(4):
        for model, optimizers in ((ours, [optimizer]), (theirs, [muon, adamw])):
            set_gradients(model, step)
            for item in optimizers:
                item.step()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name


def test_state_round_trip_and_schedule() -> None:
    """Loaded state is used by both, and a schedule moves the rates of both."""
    ours, theirs = two_models()
    first, second = make(ours), make(theirs)
    scheduler = schedules.cosine(first, max_steps=10, warmup_steps=2)
    for step in range(3):
        set_gradients(ours, step)
        first.step()
        scheduler.step()
    theirs.load_state_dict(ours.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # else both would hold the same tensors
    for model, optimizer in ((ours, first), (theirs, second)):
        set_gradients(model, 9)
        optimizer.step()
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    rates = {name: group["lr"] for group in first.param_groups for name in group["param_names"]}
    assert rates["hidden.layers.weight"] == pytest.approx(2 * rates["hidden.layers.bias"])
    assert rates["head.bias"] == pytest.approx(0.5 * rates["hidden.layers.bias"])


@pytest.mark.parametrize("shape", [(6, 6), (4, 12), (12, 4)])
def test_muon_is_that_of_torch(shape: tuple[int, int]) -> None:
    """Up to the bfloat16 in which torch orthogonalises, over four steps with momentum and decay."""
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    optimizers = [Muon([ours], lr=0.1), torch.optim.Muon([theirs], lr=0.1, adjust_lr_fn="match_rms_adamw")]
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    moved = (theirs.detach() - 1).norm()
    assert float((ours.detach() - theirs.detach()).norm() / moved) < 0.03


def test_a_kernel_is_a_matrix_of_its_output_channels() -> None:
    """However it lies in memory; Jordan et al. flatten it the same way."""
    start = torch.randn(4, 3, 2, 2)
    kernel, matrix = (
        nn.Parameter(start.contiguous(memory_format=torch.channels_last)),
        nn.Parameter(start.flatten(1).clone()),
    )
    optimizers = [Muon([kernel], lr=0.1), Muon([matrix], lr=0.1)]
    for _ in range(3):
        gradient = torch.randn(4, 3, 2, 2)
        kernel.grad, matrix.grad = gradient.contiguous(memory_format=torch.channels_last), gradient.flatten(1)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(kernel.detach().flatten(1), matrix.detach())
    assert not torch.equal(kernel.detach(), start)


def test_orthogonalise_is_batched() -> None:
    """Each matrix as it would be alone, singular values near 1."""
    matrices = torch.randn(3, 5, 9, generator=torch.Generator().manual_seed(0))
    together = orthogonalise(matrices)
    for matrix, result in zip(matrices, together, strict=True):
        torch.testing.assert_close(orthogonalise(matrix[None])[0], result, atol=1e-5, rtol=1e-5)
    values = torch.linalg.svdvals(together)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3


def test_closure_is_called_once() -> None:
    model, calls = Model(), []
    optimizer = make(model)

    def closure() -> torch.Tensor:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = model.head.weight.sum()
        loss.backward()
        return loss

    before = model.head.weight.detach().clone()
    assert float(optimizer.step(closure).detach()) == pytest.approx(float(before.sum()))
    assert calls == [True]
    assert not torch.equal(before, model.head.weight)


def test_only_matrices() -> None:
    """Nothing is left for AdamW: fine. Nothing for Muon: an error."""
    optimizer = MuonWithAdamW(FreezePlan().parameter_groups(Holder()), hidden=("a.*",))
    assert [group["algorithm"] for group in optimizer.param_groups] == ["muon"]
    with pytest.raises(RecipeError, match=r"met by hidden=\['nothing'\]"):
        MuonWithAdamW(FreezePlan().parameter_groups(Holder()), hidden=("nothing",))
    with pytest.raises(RecipeError, match="parameters with names"):
        MuonWithAdamW([{"params": [nn.Parameter(torch.ones(2, 2))]}])


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3, bias=False)
        self.parts = {"a": self.a}


def rates(schedule: object, **settings: float) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=2.0)
    scheduler = schedule(optimizer, max_steps=10, **settings)
    seen = []
    for _ in range(10):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_schedules() -> None:
    assert rates(schedules.constant, warmup_steps=4)[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    cosine = rates(schedules.cosine, warmup_steps=2, final_ratio=0.1)
    assert cosine[:3] == [1.0, 2.0, 2.0]
    assert cosine[6] == pytest.approx(2.0 * 0.55)
    assert cosine[2:] == sorted(cosine[2:], reverse=True)
    assert cosine[-1] > 0.2
    assert rates(schedules.cosine, warmup_share=0.11, final_ratio=0.1) == cosine  # 1.1 of ten steps are two
    trapezoid = rates(schedules.trapezoid, decay_share=0.5)
    assert trapezoid[:6] == [2.0] * 6
    assert trapezoid[-1] == pytest.approx(0.4)
