"""What a stage trains: freeze plans over part and parameter names, and the optimiser groups that follow from them.

A model offers `.parts: dict[str, nn.Module]`; the full name of a parameter is "<part>.<name inside the part>". A pattern (shell
style, `fnmatch`) meets a part by the part's name and a single tensor by its full name. The plan never looks at what a part is,
and it does not know the base learning rate: groups carry multipliers, `scale_groups` applies them to a built optimiser.
Published recipes state their frozen set in prose; here it is data, and a pattern that meets nothing is an error. What was
planned is written down and proven by plait/ledger.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from plait.errors import RecipeError


@dataclass(frozen=True)
class PlannedTensor:
    """One parameter with what the plan says about it (rates as multipliers of the base)."""

    part: str
    name: str
    tensor: nn.Parameter
    is_trainable: bool
    learning_rate: float
    weight_decay: float


@dataclass(frozen=True)
class FreezePlan:
    """Which parameters train, and how fast.

    Args:
        freeze: patterns of parts or parameters that stay as they are. Everything else trains.
        train: patterns that train although `freeze` met them (the exception inside a frozen part).
        learning_rate: pattern -> multiplier of the base learning rate; the last pattern that meets a parameter counts.
        weight_decay: pattern -> multiplier of the base weight decay, likewise.
        decay_vectors: whether tensors with fewer than two axes (biases, norms) decay where no pattern speaks of them.
    """

    freeze: Sequence[str] = ()
    train: Sequence[str] = ()
    learning_rate: Mapping[str, float] = field(default_factory=dict)
    weight_decay: Mapping[str, float] = field(default_factory=dict)
    decay_vectors: bool = False

    def resolve(self, model: nn.Module) -> list[PlannedTensor]:
        """What the plan says about every parameter of the model, in the order of its parts.

        Raises:
            RecipeError: a pattern meets nothing, a parameter lies in no part, or nothing is left to train.
        """
        named = list(named_part_parameters(model))
        self._check_patterns(named)
        planned = []
        for part, name, tensor in named:
            frozen = _meets_any(self.freeze, part, name) and not _meets_any(self.train, part, name)
            decay = 1.0 if self.decay_vectors or tensor.ndim >= 2 else 0.0
            planned.append(
                PlannedTensor(
                    part,
                    name,
                    tensor,
                    not frozen,
                    _last_met(self.learning_rate, part, name, 1.0),
                    _last_met(self.weight_decay, part, name, decay),
                )
            )
        if not any(item.is_trainable for item in planned):
            raise RecipeError(
                f"The freeze plan leaves nothing to train: all {len(planned)} tensors are met by freeze={list(self.freeze)}. "
                "Freeze less, or name exceptions under `train`."
            )
        return planned

    def apply(self, model: nn.Module) -> list[PlannedTensor]:
        """Set `requires_grad` of every parameter as planned and return the plan in full."""
        planned = self.resolve(model)
        for item in planned:
            item.tensor.requires_grad_(item.is_trainable)
        return planned

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Optimiser groups of the trainable parameters, one per pair of multipliers (a group costs 0.1 ms per step), parameters as
        (name, tensor)."""
        groups: dict[tuple, dict[str, Any]] = {}
        for item in self.apply(model):
            if not item.is_trainable:
                continue
            key = (item.learning_rate, item.weight_decay)
            group = groups.setdefault(
                key,
                {
                    "params": [],
                    "learning_rate_multiplier": item.learning_rate,
                    "weight_decay_multiplier": item.weight_decay,
                },
            )
            group["params"].append((item.name, item.tensor))
        return list(groups.values())

    def _check_patterns(self, named: Sequence[tuple[str, str, Tensor]]) -> None:
        names = sorted({part for part, _, _ in named}) + [name for _, name, _ in named]
        for origin in ("freeze", "train", "learning_rate", "weight_decay"):
            for pattern in getattr(self, origin):
                if any(_meets(pattern, part, name) for part, name, _ in named):
                    continue
                close = get_close_matches(pattern, names, n=3, cutoff=0.4)
                parts = sorted({part for part, _, _ in named})
                raise RecipeError(
                    f"The pattern {pattern!r} of the freeze plan ({origin}) meets none of {len(named)} parameters. "
                    + (f"Close names: {', '.join(close)}. " if close else "")
                    + f"The parts are {', '.join(parts)}; a parameter is named '<part>.<name>', e.g. {named[0][1]!r}."
                )


def named_part_parameters(model: nn.Module) -> Iterator[tuple[str, str, nn.Parameter]]:
    """(part, full name, parameter) of every parameter, once: a parameter shared by parts belongs to the first that lists it.

    Raises:
        RecipeError: the model has no parts, or a parameter lies in none of them (no plan could reach it).
    """
    parts: Mapping[str, nn.Module] = getattr(model, "parts", {})
    if not parts:
        raise RecipeError(f"{type(model).__name__} has no `.parts`: expected a dict of part name -> module to train.")
    found: dict[int, tuple[str, str, nn.Parameter]] = {}
    for part, module in parts.items():
        for name, tensor in module.named_parameters():
            found.setdefault(id(tensor), (part, f"{part}.{name}", tensor))
    lost = [name for name, tensor in model.named_parameters() if id(tensor) not in found]
    if lost:
        raise RecipeError(
            f"{len(lost)} parameters of {type(model).__name__} lie in no part ({', '.join(lost[:3])}): "
            f"add their module to `.parts`, which now holds {', '.join(parts)}."
        )
    yield from found.values()


def scale_groups(optimizer: Optimizer) -> Optimizer:
    """Multiply the base rates of a fresh optimiser by the multipliers of the plan (once, before a schedule)."""
    for group in optimizer.param_groups:
        group["lr"] *= group.get("learning_rate_multiplier", 1.0)
        if "weight_decay" in group:
            group["weight_decay"] *= group.get("weight_decay_multiplier", 1.0)
    return optimizer


def _meets(pattern: str, part: str, name: str) -> bool:
    return fnmatchcase(part, pattern) or fnmatchcase(name, pattern)


def _meets_any(patterns: Sequence[str], part: str, name: str) -> bool:
    return any(_meets(pattern, part, name) for pattern in patterns)


def _last_met(multipliers: Mapping[str, float], part: str, name: str, default: float) -> float:
    met = [value for pattern, value in multipliers.items() if _meets(pattern, part, name)]
    return float(met[-1]) if met else default
