"""Freeze plans: who trains, how fast, and patterns that meet nothing."""

import pytest
import torch
from torch import nn

from plait.errors import RecipeError
from plait.freezing import FreezePlan, named_part_parameters, scale_groups


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        self.head = nn.Linear(4, 2)

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {"backbone": self.backbone, "image_head": self.head}


def trainable(plan: FreezePlan) -> set[str]:
    return {item.name for item in plan.resolve(Model()) if item.is_trainable}


def test_a_part_by_name() -> None:
    assert trainable(FreezePlan(freeze=["backbone"])) == {"image_head.weight", "image_head.bias"}


def test_an_exception_in_a_frozen_part() -> None:
    assert trainable(FreezePlan(freeze=["*"], train=["backbone.1.*"])) == {"backbone.1.weight", "backbone.1.bias"}


def test_apply_sets_and_resets() -> None:
    """A model passes through stages: what one froze, the next trains."""
    model = Model()
    FreezePlan(freeze=["backbone"]).apply(model)
    assert not any(p.requires_grad for p in model.backbone.parameters())
    FreezePlan().apply(model)
    assert all(p.requires_grad for p in model.parameters())


def test_groups_carry_multipliers() -> None:
    """The last pattern counts; vectors do not decay unless a pattern says so."""
    plan = FreezePlan(
        freeze=["image_head.bias"], learning_rate={"*": 0.5, "image_head": 10.0}, weight_decay={"backbone.1.bias": 2.0}
    )
    model = Model()
    optimizer = scale_groups(torch.optim.AdamW(plan.parameter_groups(model), lr=0.1, weight_decay=0.2))
    held = {name: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for name in group["param_names"]}
    assert held == {
        "backbone.0.weight": (0.05, 0.2),
        "backbone.0.bias": (0.05, 0.0),
        "backbone.1.weight": (0.05, 0.0),
        "backbone.1.bias": (0.05, 0.4),
        "image_head.weight": (1.0, 0.2),
    }


def test_a_shared_parameter_has_one_part() -> None:
    model = Model()
    model.head.weight = nn.Parameter(torch.zeros(4, 4))
    model.backbone[0].weight = model.head.weight
    names = [name for _, name, _ in named_part_parameters(model)]
    assert names.count("backbone.0.weight") == 1
    assert "image_head.weight" not in names


@pytest.mark.parametrize("origin", ["freeze", "train", "learning_rate", "weight_decay"])
def test_a_pattern_that_meets_nothing(origin: str) -> None:
    pattern = {"imagehead": 1.0} if origin in ("learning_rate", "weight_decay") else ["imagehead"]
    with pytest.raises(RecipeError, match=rf"'imagehead' of the freeze plan \({origin}\) meets none of 6.*image_head"):
        FreezePlan(**{origin: pattern}).resolve(Model())


def test_nothing_left() -> None:
    with pytest.raises(RecipeError, match="leaves nothing to train: all 6 tensors"):
        FreezePlan(freeze=["*"]).resolve(Model())


def test_a_parameter_outside_all_parts() -> None:
    model = Model()
    model.stray = nn.Linear(2, 2)
    with pytest.raises(RecipeError, match=r"2 parameters of Model lie in no part \(stray.weight"):
        FreezePlan().resolve(model)


def test_a_model_without_parts() -> None:
    with pytest.raises(RecipeError, match=r"Linear has no `.parts`"):
        FreezePlan().resolve(nn.Linear(2, 2))
